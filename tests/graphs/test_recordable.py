"""Which runs are recorded, and when a recording does not hold any more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.recorder import CPU, Stand, image, recorder_of, told
from zoo import use_backend
from zoo.inference import recordable
from zoo.inference.evaluation_mode import evaluating
from zoo.inference.graph_recording import Outside
from zoo.inference.graphs import RUNS
from zoo.inference.recordable import unrecorded
from zoo.ops.precision import float32_products


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
        monkeypatch.setenv(recordable.ENVIRONMENT, how)
        run(RUNS + 2)
    elif how == "block":
        with unrecorded():
            run(RUNS + 2)
    else:
        network.train()
        with evaluating(network):  # as in a validation
            run(RUNS + 2)
    assert log == []
    monkeypatch.setenv(recordable.ENVIRONMENT, "1")
    network.eval()
    run(RUNS + 2)
    assert told(log)[0] == "made"


def test_large_images_and_networks_in_training_are_not_recorded(run, network, log, monkeypatch):
    network.train()
    run(RUNS + 2)
    network.eval()
    monkeypatch.setattr(recordable, "PIXELS", 63)
    run(RUNS + 2)
    assert log == []


def test_frames_of_a_burst_count_as_pixels(network, log, monkeypatch):
    monkeypatch.setattr(recordable, "PIXELS", 5 * 64 - 1)
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
    _, holds = recordable.state_of(network)
    assert any(value is network.__dict__["_parameters"] for kept in holds for value in kept)


def test_only_the_usual_stream_of_a_gpu_is_recorded(monkeypatch):
    streams = {"current": 1, "default": 1}
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams["current"])
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: streams["default"])
    device = torch.device("cuda", 0)
    assert recordable._is_ordinary_stream(device)
    streams["current"] = 2
    assert not recordable._is_ordinary_stream(device)


def test_buffers_belong_to_the_state_of_a_network():
    network = nn.BatchNorm2d(3)
    before, _ = recordable.state_of(network)
    network.running_mean.add_(1)
    assert recordable.state_of(network)[0] != before
