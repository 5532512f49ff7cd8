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
from tests.helpers.recorder import CPU, Stand, image, recorder_of, told
from tests.helpers.tape import Forgetful, Refusing, Stale, Tape, Waiting, WrongAtOnce
from zoo.inference import RestoreSettings, graphs, recordable, restore_tensor
from zoo.inference.graphs import KEPT, RUNS, Recorder
from zoo.inference.recordable import unrecorded
from zoo.inference.tiling import fitting_tile


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
        paused.append(recordable._paused.blocks)
        return image

    fitting_tile(probe, torch.zeros(1, 3, 600, 600), 16, Memory())
    assert paused and all(paused) and not recordable._paused.blocks


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
