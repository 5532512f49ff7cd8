"""Recordings of a network, with a stand-in for CUDA graphs. Real ones: tests/gpu."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo import use_backend
from zoo.inference import graphs
from zoo.inference.graphs import KEPT, RUNS, Recorder, _Outside


class Stand:
    """Computes again, and counts what is made and replayed."""

    def __init__(self, log, run, inputs, before):
        self.log, self.run = log, run
        log.append(("made", tuple(inputs[0].shape), len(before)))

    def replay(self, inputs):
        self.log.append(("replayed", tuple(inputs[0].shape)))
        return self.run(*inputs)


@pytest.fixture
def network():
    return nn.Conv2d(3, 3, 3, padding=1).eval().requires_grad_(False)


@pytest.fixture
def log():
    return []


@pytest.fixture
def recorder(network, log):
    return Recorder(network, lambda *given: Stand(log, *given))


def image(side=8):
    return torch.rand(1, 3, side, side)


def runs(recorder, count, side=8, precision="fp32"):
    for _ in range(count):
        given = image(side)
        found = recorder([given], precision)
    return given, found


def test_a_size_is_recorded_once_and_replayed_from_then_on(recorder, network, log):
    runs(recorder, RUNS)
    assert log == []
    given, found = runs(recorder, 3)
    assert [what for what, *_ in log] == ["made", "replayed", "replayed", "replayed"]
    torch.testing.assert_close(found, network(given))


def test_sizes_and_precisions_have_recordings_of_their_own_and_share_memory(recorder, log):
    for side, precision in [(8, "fp32"), (9, "fp32"), (8, "bf16")]:
        runs(recorder, RUNS + 1, side, precision)
    made = [line[1:] for line in log if line[0] == "made"]
    assert made == [((1, 3, 8, 8), 0), ((1, 3, 9, 9), 1), ((1, 3, 8, 8), 2)]


def test_another_layout_in_memory_is_another_recording(recorder, log):
    runs(recorder, RUNS + 1)
    recorder([image().contiguous(memory_format=torch.channels_last)], "fp32")
    assert [what for what, *_ in log] == ["made", "replayed"]


@pytest.mark.parametrize("change", ["in place", "replaced", "moved"])
def test_new_weights_are_used(change, recorder, network, log):
    runs(recorder, RUNS + 1)
    if change == "in place":
        network.weight.mul_(2)
    elif change == "replaced":
        network.weight = nn.Parameter(torch.rand(3, 3, 3, 3), requires_grad=False)
    else:
        network.double().float()
    log.clear()
    given, found = runs(recorder, RUNS)
    assert log == []
    torch.testing.assert_close(found, network(given))


def test_another_backend_of_the_scan_is_another_recording(recorder, log):
    runs(recorder, RUNS + 1)
    log.clear()
    with use_backend("chunked"):
        runs(recorder, RUNS)
    assert log == []


@pytest.mark.parametrize(
    "place", [torch.backends.cuda.matmul, torch.backends.cudnn], ids=["matmul", "cudnn"]
)
def test_another_precision_of_products_is_another_recording(place, recorder, log):
    runs(recorder, RUNS + 1)
    log.clear()
    before = place.allow_tf32
    try:
        place.allow_tf32 = not before
        runs(recorder, RUNS)
    finally:
        place.allow_tf32 = before
    assert log == []


def test_large_images_and_networks_in_training_are_not_recorded(
    recorder, network, log, monkeypatch
):
    network.train()
    runs(recorder, RUNS + 2)
    network.eval()
    monkeypatch.setattr(graphs, "PIXELS", 63)
    runs(recorder, RUNS + 2)
    assert log == []


def test_what_cannot_be_recorded_runs_as_before_and_is_not_tried_again(network):
    tried = []

    def refuse(*given):
        tried.append(given)
        raise RuntimeError("operation not permitted when stream is capturing")

    recorder = Recorder(network, refuse)
    given, found = runs(recorder, RUNS + 3)
    assert len(tried) == 1
    torch.testing.assert_close(found, network(given))


def test_the_oldest_recording_makes_room(recorder, log):
    for side in range(8, 8 + KEPT + 1):
        runs(recorder, RUNS + 1, side)
    log.clear()
    runs(recorder, 1, 9)
    assert log == [("replayed", (1, 3, 9, 9))]
    runs(recorder, 1, 8)
    assert ("made", (1, 3, 8, 8), KEPT) in log


def test_an_output_stays_what_it_is_when_the_next_one_is_made(network):
    place = torch.empty(1, 3, 8, 8)

    class Overwriting:
        def __init__(self, run, inputs, before):
            self.run = run

        def replay(self, inputs):
            return place.copy_(self.run(*inputs))

    recorder = Recorder(network, Overwriting)
    runs(recorder, RUNS)
    given, found = runs(recorder, 1)
    runs(recorder, 1)
    torch.testing.assert_close(found, network(given))


def test_tensors_that_a_run_has_not_made_are_kept():
    """Not the intermediate ones: they would take the memory of all layers at once."""
    first, second = torch.ones(2), torch.ones(2)
    with _Outside() as outside:
        made = first + 1
        made.mul_(second[:1])
        (made + made).sum()
    assert [t.untyped_storage().data_ptr() for t in outside.tensors] == [
        first.untyped_storage().data_ptr(),
        second.untyped_storage().data_ptr(),
    ]
