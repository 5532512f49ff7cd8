"""Recordings of a network, with stand-ins for CUDA graphs. Real ones: tests/gpu."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import pytest
import torch
from torch import nn

import zoo
from tests.helpers.networks import Nearest
from tests.helpers.tape import Forgetful, Refusing, Stale, Tape, Waiting, WrongAtOnce
from zoo import use_backend
from zoo.inference import RestoreSettings, graphs, restore_tensor
from zoo.inference.evaluation_mode import evaluating
from zoo.inference.graph_recording import NotRecordableError, Outside
from zoo.inference.graphs import KEPT, RUNS, Recorder, unrecorded
from zoo.inference.tiling import fitting_tile
from zoo.ops.precision import float32_products

CPU = torch.device("cpu")


class Stand:
    """Computes again, and counts what is made and replayed."""

    def __init__(self, log, run, inputs, own, before):
        self.log, self.run = log, run
        log.append(("made", tuple(inputs[0].shape), len(before)))

    def replay(self, inputs):
        self.log.append(("replayed", tuple(inputs[0].shape)))
        return self.run(*inputs)


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    monkeypatch.setenv(graphs.ENVIRONMENT, "1")


@pytest.fixture
def network():
    return nn.Conv2d(3, 3, 3, padding=1).eval().requires_grad_(False)


@pytest.fixture
def log():
    return []


@pytest.fixture
def run(log, network):
    """A recorder that is trusted, and a function that runs it some times on new images."""
    recorded = recorder_of(lambda *given: Stand(log, *given))

    def some(count, side=8, precision="fp32"):
        for _ in range(count):
            given = image(side)
            found = recorded(network, network, [given], precision)
        return given, found

    some.recorder = recorded
    return some


def recorder_of(record):
    return Recorder(record, lambda device: True)


def image(side=8):
    return torch.rand(1, 3, side, side)


def told(log):
    return [what for what, *_ in log]


def test_a_size_is_recorded_after_some_runs_and_replayed_from_then_on(run, network, log):
    run(RUNS)
    assert log == []
    given, found = run(3)
    assert told(log) == ["made", "replayed", "replayed", "replayed"]
    torch.testing.assert_close(found, network(given))


def test_sizes_and_precisions_have_recordings_of_their_own_and_share_memory(run, log):
    for side, precision in [(8, "fp32"), (9, "fp32"), (8, "bf16")]:
        run(RUNS + 1, side, precision)
    made = [line[1:] for line in log if line[0] == "made"]
    assert made == [((1, 3, 8, 8), 0), ((1, 3, 9, 9), 1), ((1, 3, 8, 8), 2)]


def test_another_layout_or_dtype_is_another_recording(run, network, log):
    run(RUNS + 1)
    log.clear()
    run.recorder(network, network, [image().contiguous(memory_format=torch.channels_last)], "fp32")
    run.recorder(network, lambda given: given, [image().double()], "fp32")
    assert log == []


@pytest.mark.parametrize("change", ["in place", "replaced", "moved", "attribute", "layer"])
def test_a_network_that_has_changed_is_recorded_again(change, log):
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.LeakyReLU(0.1)).eval()
    network.requires_grad_(False)
    recorded = recorder_of(lambda *given: Stand(log, *given))

    def runs(count):
        for _ in range(count):
            given = image()
            found = recorded(network, network, [given], "fp32")
        return given, found

    runs(RUNS + 2)
    if change == "in place":
        network[0].weight.mul_(2)
    elif change == "replaced":
        network[0].weight = nn.Parameter(torch.rand(3, 3, 3, 3), requires_grad=False)
    elif change == "moved":
        network.double().float()
    elif change == "attribute":
        network[1].negative_slope = 0.5
    else:
        network[1] = nn.Identity()
    log.clear()
    given, found = runs(RUNS)
    assert log == []
    torch.testing.assert_close(found, network(given))
    runs(1)
    assert told(log) == ["made", "replayed"]


def test_another_backend_of_the_scan_is_another_recording(run, log):
    run(RUNS + 1)
    log.clear()
    with use_backend("chunked"):
        run(RUNS)
    assert log == []


@pytest.mark.parametrize("other", ["tf32", "deterministic", "autocast", "inference"])
def test_other_settings_are_another_recording(other, run, log, monkeypatch):
    run(RUNS + 1)
    log.clear()
    if other == "tf32":
        with float32_products(tf32=True):
            run(RUNS)
    elif other == "deterministic":
        torch.use_deterministic_algorithms(True)
        try:
            run(RUNS)
        finally:
            torch.use_deterministic_algorithms(False)
    elif other == "autocast":
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
        run(RUNS)
    else:
        with torch.inference_mode():
            run(RUNS)
    assert log == []


@pytest.mark.parametrize("how", ["", "0", "block", "training"])
def test_what_is_switched_off_is_not_recorded(how, run, network, log, monkeypatch):
    if how in ("", "0"):
        monkeypatch.setenv(graphs.ENVIRONMENT, how)
        run(RUNS + 2)
    elif how == "block":
        with unrecorded():
            run(RUNS + 2)
    else:
        network.train()
        with evaluating(network):  # as in a validation
            run(RUNS + 2)
    assert log == []
    monkeypatch.setenv(graphs.ENVIRONMENT, "1")
    network.eval()
    run(RUNS + 2)
    assert told(log)[0] == "made"


def test_large_images_and_networks_in_training_are_not_recorded(run, network, log, monkeypatch):
    network.train()
    run(RUNS + 2)
    network.eval()
    monkeypatch.setattr(graphs, "PIXELS", 63)
    run(RUNS + 2)
    assert log == []


def test_frames_of_a_burst_count_as_pixels(network, log, monkeypatch):
    monkeypatch.setattr(graphs, "PIXELS", 5 * 64 - 1)
    recorded = recorder_of(lambda *given: Stand(log, *given))
    for _ in range(RUNS + 2):
        recorded(network, lambda burst: burst[:, 0], [torch.rand(1, 5, 3, 8, 8)], "fp32")
    assert log == []


@pytest.mark.parametrize("stranger", ["hook", "module", "forward", "engine", "method", "class"])
def test_python_of_others_is_never_left_out(stranger, network, log, monkeypatch):
    class Counting(nn.Module):
        calls = 0

        def forward(self, x):
            Counting.calls += 1
            return x

    whole = nn.Sequential(network, Counting() if stranger == "module" else nn.Identity()).eval()
    called = []
    if stranger == "hook":
        network.register_forward_hook(lambda *given: called.append(1))
    elif stranger == "forward":
        network.forward = lambda x: called.append(1) or x
    elif stranger == "engine":
        whole.runs_in_torch = False
    elif stranger == "method":
        network.helper = lambda: None
    elif stranger == "class":
        forward = nn.Conv2d.forward

        def counting(self, x):
            called.append(1)
            return forward(self, x)

        monkeypatch.setattr(nn.Conv2d, "forward", counting)
    recorded = recorder_of(lambda *given: Stand(log, *given))
    for _ in range(RUNS + 3):
        recorded(whole, whole, [image()], "fp32")
    assert log == []
    assert stranger in ("engine", "method") or len(called) + Counting.calls == RUNS + 3


def test_what_cannot_be_recorded_runs_as_before_and_is_not_tried_again(network, caplog):
    tried = []

    def refuse(*given):
        tried.append(given)
        return Refusing(*given)

    recorded = recorder_of(refuse)
    for _ in range(RUNS + 3):
        given = image()
        found = recorded(network, network, [given], "fp32")
    assert len(tried) == 1
    torch.testing.assert_close(found, network(given))
    (line,) = caplog.messages
    assert "Conv2d could not be recorded as a CUDA graph, so nothing is recorded any more" in line
    other = nn.Conv2d(3, 3, 1).eval()
    for _ in range(RUNS + 3):
        recorded(other, other, [image()], "fp32")
    assert len(tried) == 1


def test_a_network_that_waits_does_not_keep_others_from_being_recorded(network, log):
    waiting = nn.Conv2d(3, 3, 1).eval()
    made = {"now": Waiting}
    recorded = recorder_of(lambda *given: made["now"](*given))
    for _ in range(RUNS + 3):
        recorded(waiting, waiting, [image()], "fp32")
    made["now"] = lambda *given: Stand(log, *given)
    for _ in range(RUNS + 3):
        recorded(waiting, waiting, [image()], "fp32")
    assert log == [] and not recorded.refusal
    for _ in range(RUNS + 1):
        recorded(network, network, [image()], "fp32")
    assert told(log) == ["made", "replayed"]


def test_graphs_that_are_not_trusted_are_not_made(network, log):
    asked = []
    recorded = Recorder(lambda *given: Stand(log, *given), lambda device: asked.append(device))
    for _ in range(RUNS + 3):
        recorded(network, network, [image()], "fp32")
    assert log == [] and asked == [CPU]


def test_a_replay_that_is_wrong_at_once_is_told_and_not_used(network, caplog):
    recorded = recorder_of(WrongAtOnce)
    for _ in range(RUNS + 3):
        given = image()
        found = recorded(network, network, [given], "fp32")
        torch.testing.assert_close(found, network(given))
    (line,) = caplog.messages
    said = "a CUDA graph of Conv2d gives another result (it deviates by 6.0e-02, and 1.0e-03"
    assert line.startswith(said)
    assert "restore images again" not in line


def test_a_replay_that_is_wrong_later_is_told_with_what_it_has_spoilt(network, caplog):
    recorded, spoilt = recorder_of(Forgetful), []
    for _ in range(RUNS + 12):
        given = image()
        found = recorded(network, network, [given], "fp32")
        spoilt.append(not torch.allclose(found, network(given)))
    assert sum(spoilt) == 1  # the replay before the one that is compared
    (line,) = caplog.messages
    assert "it deviates by nan, and" in line
    assert "restore images again whose tiles have 8 x 8 pixels" in line


def test_replays_are_compared_more_and_more_seldom(network):
    computed = []

    def run(given):
        computed.append(given)
        return network(given)

    recorded = recorder_of(lambda run, inputs, own, before: Replaying(network))
    for _ in range(RUNS + 1):
        recorded(network, run, [image()], "fp32")
    computed.clear()
    when = []
    for number in range(1, 40):
        recorded(network, run, [image()], "fp32")
        when += [number] * len(computed)
        computed.clear()
    assert when == [2, 4, 8, 16, 32]


class Replaying:
    """Computes without the run that it was made of."""

    def __init__(self, network):
        self.network = network

    def replay(self, inputs):
        return self.network(*inputs)


def test_results_that_are_not_finite_say_nothing_of_a_recording(run, network, log):
    network.bias.fill_(float("inf"))
    run(RUNS + 2)
    assert log == [] and not run.recorder.refusal


@pytest.mark.parametrize("late", ["hook", "hook of all", "mode"])
def test_who_watches_later_sees_every_run(late, run, network, log):
    run(RUNS + 1)
    log.clear()
    seen = []
    if late == "mode":
        with Outside(CPU, set()):
            run(1)
        assert log == []
        return
    if late == "hook":
        handle = network.register_forward_hook(lambda *given: seen.append(1))
    else:
        handle = torch.nn.modules.module.register_module_forward_hook(lambda *given: seen.append(1))
    run(2)
    handle.remove()
    assert len(seen) == 2 and log == []
    run(1)
    assert told(log) == ["replayed"]


def test_so_many_sizes_are_recorded_and_no_more(run, log):
    for side in range(8, 8 + KEPT + 2):
        run(RUNS + 2, side)
    assert [line[1][-1] for line in log if line[0] == "made"] == list(range(8, 8 + KEPT))


def test_one_network_at_a_time_is_recorded(run, network, log):
    other = nn.Conv2d(3, 3, 1).eval()

    def runs_other():
        for _ in range(RUNS + 2):
            given = image()
            found = run.recorder(other, other, [given], "fp32")
        torch.testing.assert_close(found, other(given))

    run(RUNS + 1)
    log.clear()
    runs_other()
    assert log == []
    run(1)
    assert told(log) == ["replayed"]
    run.recorder.forget()
    log.clear()
    runs_other()
    assert told(log) == ["made", "replayed", "replayed"]


def test_an_output_stays_what_it_is_when_the_next_one_is_made(network):
    recorded = recorder_of(Tape)
    found = []
    for _ in range(RUNS + 4):
        given = image()
        found.append((recorded(network, network, [given], "fp32"), network(given)))
    for ours, right in found:
        torch.testing.assert_close(ours, right)


def test_threads_do_not_disturb_each_other(network):
    recorded, wrong = recorder_of(Tape), []

    def work():
        for _ in range(30):
            given = image()
            if not torch.allclose(recorded(network, network, [given], "fp32"), network(given)):
                wrong.append(given)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_recorder_keeps_no_network_and_a_copy_is_another_network(log):
    network = zoo.build("mambair_tiny_x2").eval()
    recorded = recorder_of(lambda *given: Stand(log, *given))
    with torch.inference_mode():
        for _ in range(RUNS):
            recorded(network, network, [image()], "fp32")
        copied = copy.deepcopy(network)
        recorded(copied, copied, [image()], "fp32")
    assert log == []
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


def test_recordings_are_forgotten(run, log, monkeypatch):
    monkeypatch.setattr(graphs, "recorder", run.recorder)
    assert not graphs.forget()
    run(RUNS + 1)
    assert run.recorder.recorded == 1 and graphs.forget() and not run.recorder.recorded
    log.clear()
    run(RUNS)
    assert log == []


def test_memory_that_ran_out_ends_recording_if_there_were_any(run, log, monkeypatch):
    monkeypatch.setattr(graphs, "recorder", run.recorder)
    assert not graphs.make_room()
    run(RUNS + 1)
    assert graphs.make_room() and not graphs.make_room()
    log.clear()
    run(RUNS + 2)
    assert log == []


def test_tiles_of_the_same_size_are_tried_again_without_recordings(monkeypatch):
    """Recordings may have taken the memory that is missing."""
    network, sizes = Nearest(), []

    def run(network, run, inputs, precision):
        sizes.append(tuple(inputs[0].shape[-2:]))
        if len(sizes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(*inputs)

    asked = iter([True, False])
    monkeypatch.setattr(graphs, "make_room", lambda: next(asked))
    monkeypatch.setattr(graphs, "recorder", run)
    monkeypatch.setattr("zoo.inference.runner.GPU", "cpu")
    restore_tensor(network, torch.rand(1, 3, 40, 40), RestoreSettings(tile=40, overlap=8))
    assert sizes == [(40, 40)] * 2


def test_the_memory_of_a_tile_is_measured_without_recordings():
    paused = []

    class Memory:
        share, has_results = 0.5, False

        def free(self):
            return 10**9

        def is_scarce(self):
            return True

        def peak(self, function):
            function()
            return 10**6

    def probe(image):
        paused.append(graphs._paused.blocks)
        return image

    fitting_tile(probe, torch.zeros(1, 3, 600, 600), 16, Memory())
    assert paused and all(paused) and not graphs._paused.blocks


def test_the_precision_of_a_run_reaches_the_recorder(monkeypatch):
    asked = []

    def run(network, run, inputs, precision):
        asked.append(precision)
        return run(*inputs)

    monkeypatch.setattr(graphs, "recorder", run)
    monkeypatch.setattr("zoo.inference.runner.GPU", "cpu")
    for precision in ("fp32", "bf16"):
        restore_tensor(Nearest(), torch.rand(1, 3, 4, 4), RestoreSettings(precision=precision))
    assert asked == ["fp32", "bf16"]


def test_networks_of_other_tensors_run_as_before(network, log):
    """Packed and distributed weights are subclasses without an address."""

    class Packed(torch.Tensor):
        pass

    network.weight = nn.Parameter(network.weight.data.as_subclass(Packed), requires_grad=False)
    recorded = recorder_of(lambda *given: Stand(log, *given))
    for _ in range(RUNS + 2):
        recorded(network, network, [image()], "fp32")
    assert log == []


def test_attributes_are_kept_so_that_others_do_not_get_their_identities(network):
    _, holds = graphs.state_of(network)
    assert any(value is network.__dict__["_parameters"] for kept in holds for value in kept)


def test_only_the_usual_stream_of_a_gpu_is_recorded(monkeypatch):
    streams = {"current": 1, "default": 1}
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams["current"])
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: streams["default"])
    device = torch.device("cuda", 0)
    assert graphs._is_ordinary_stream(device)
    streams["current"] = 2
    assert not graphs._is_ordinary_stream(device)


def test_buffers_belong_to_the_state_of_a_network():
    network = nn.BatchNorm2d(3)
    before, _ = graphs.state_of(network)
    network.running_mean.add_(1)
    assert graphs.state_of(network)[0] != before


def test_tensors_that_a_run_has_not_made_are_kept():
    """Not the intermediate ones: they would take the memory of all layers at once."""
    first, second, own = torch.ones(2), torch.ones(2), torch.ones(2)
    with Outside(CPU, {own.untyped_storage().data_ptr()}) as outside:
        made = first + 1
        made.mul_(second[:1])
        (made + made + own).sum()
    assert [t.untyped_storage().data_ptr() for t in outside.tensors] == [
        first.untyped_storage().data_ptr(),
        second.untyped_storage().data_ptr(),
    ]


WAITS = {
    "a number": lambda x: x.sum().item(),
    "places": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0],
    "a mask as index": lambda x: x.index_put_((x > 0,), torch.zeros((), device=x.device)),
    "a truth value": lambda x: torch.equal(x, x),
    "repeats": lambda x: x.repeat_interleave(torch.ones(4, dtype=torch.long)),
}


@pytest.mark.parametrize("what", WAITS)
def test_what_python_waits_for_is_refused(what):
    with pytest.raises(NotRecordableError, match="waits for the device"), Outside(CPU, set()):
        WAITS[what](torch.ones(4))


def test_indices_that_are_numbers_do_not_wait():
    with Outside(CPU, set()):
        assert torch.arange(4)[torch.tensor([1, 2])].shape == (2,)


def test_a_copy_to_the_device_is_refused():
    meta = torch.device("meta")
    for copies in (
        lambda: torch.ones(2).to(meta),
        lambda: torch.ones(2, device=meta).add_(torch.ones(())),
    ):
        with pytest.raises(NotRecordableError, match="has a tensor on cpu"), Outside(meta, set()):
            copies()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_photos_restored_by_replays_are_those_without(precision, monkeypatch):
    """The runner takes this way on a GPU alone."""
    network = zoo.load("mambair_tiny_x2")
    recorded = recorder_of(Tape)
    monkeypatch.setattr(graphs, "recorder", recorded)
    monkeypatch.setattr("zoo.inference.runner.GPU", "cpu")
    settings = RestoreSettings(precision=precision)
    for number in range(2 * RUNS + 6):
        given = torch.rand(1, 3, *[(20, 24), (17, 30)][number % 2])
        monkeypatch.setenv("ZOO_CPU_PASSES", "0")  # which a tape sees through
        found = restore_tensor(network, given, settings)
        with unrecorded():
            expected = restore_tensor(copy.deepcopy(network), given, settings)
        assert (found - expected).abs().max() <= (1e-5 if precision == "fp32" else 3e-2)
    assert not recorded.refusal and recorded.recorded == 2


def test_a_stale_recording_would_be_noticed(network):
    """The test above can fail."""
    recorded = recorder_of(Stale)
    for _ in range(RUNS + 2):
        given = image()
        found = recorded(network, network, [given], "fp32")
    assert not torch.allclose(found, network(given))


def test_a_replay_may_differ_as_ordinary_runs_do(network):
    """On a GPU, sums are added in no fixed order."""
    shaken = 0.002 * torch.randn(3, 3, 8, 8)
    runs = []

    def noisy(given):
        runs.append(given)
        return network(given) + shaken[len(runs) % 3]

    recorded = recorder_of(lambda run, inputs, own, before: Replaying(noisy))
    for _ in range(RUNS + 20):
        recorded(network, noisy, [image()], "fp32")
    assert not recorded.refusal
    recorded = recorder_of(lambda run, inputs, own, before: Replaying(lambda x: noisy(x) * 1.2))
    for _ in range(RUNS + 20):
        recorded(network, noisy, [image()], "fp32")
    assert "it deviates by 2." in recorded.refusal or "it deviates by 1." in recorded.refusal
