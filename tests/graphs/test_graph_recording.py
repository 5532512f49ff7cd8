"""The recording of a run: PyTorch's capture, over a stand-in for GPUs. Real ones: tests/gpu."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.graph_gpu import Gpu
from zoo.inference import graph_recording
from zoo.inference.graph_recording import CudaRecording, NotRecordableError, Outside

CPU = torch.device("cpu")
CUDA = [torch.device("cuda", number) for number in range(2)]


class OnGpu(torch.Tensor):
    """A tensor of the CPU that says that it is on a GPU."""


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(graph_recording, "_streams", {})
    return Gpu(monkeypatch)


@pytest.fixture
def on(gpu, monkeypatch):
    """Records a run on a GPU, whose tensors are those of the CPU."""

    class AnyDevice(Outside):
        def __init__(self, device, own):
            super().__init__(CPU, own)

    monkeypatch.setattr(graph_recording, "Outside", AnyDevice)

    def record(number, run, value, before=()):
        monkeypatch.setattr(OnGpu, "device", CUDA[number])
        given = value.as_subclass(OnGpu)
        plain = lambda t: t.as_subclass(torch.Tensor)  # noqa: E731
        monkeypatch.setattr(OnGpu, "flip", lambda self, axis: plain(self).flip(axis))
        monkeypatch.setattr(torch, "empty_like", lambda t: plain(t).clone())
        return CudaRecording(run, [given], set(), list(before))

    return record


def test_a_replay_computes_of_its_own_inputs_and_the_given_ones_stay(on):
    weight = torch.rand(3)
    given = torch.rand(2, 3)
    kept = given.clone()
    recording = on(0, lambda x: x * weight + 1, given)
    assert torch.equal(given, kept)
    for _ in range(3):
        value = torch.rand(2, 3)
        torch.testing.assert_close(recording.replay([value]), value * weight + 1)
    assert torch.equal(given, kept)


def test_what_is_recorded_is_not_right_by_chance(on):
    """A graph without kernels returns what the capture has left."""
    given = torch.rand(2, 3)
    recording = on(0, lambda x: x * 2, given)
    recording.graph.calls.clear()
    assert not torch.allclose(recording.replay([given]), given * 2)


def test_tensors_from_outside_are_kept_as_long_as_the_recording(on):
    order = torch.tensor([2, 0, 1])
    recording = on(0, lambda x: x[:, order], torch.rand(2, 3))
    assert any(kept is order for kept in recording.outside)


def test_each_gpu_has_a_stream_of_its_own_for_captures(on, gpu):
    on(0, lambda x: x + 1, torch.rand(2))
    on(1, lambda x: x + 1, torch.rand(2))
    on(0, lambda x: x + 1, torch.rand(2))
    streams = [stream for stream, _, _ in gpu.captures]
    assert [stream.device for stream in streams] == [CUDA[0], CUDA[1], CUDA[0]]
    assert streams[0] is streams[2] and gpu.device == CUDA[0]
    assert all(stream not in gpu.usual.values() for stream in streams)


def test_recordings_of_a_network_share_their_memory(on, gpu):
    first = on(0, lambda x: x + 1, torch.rand(2))
    on(0, lambda x: x + 1, torch.rand(3), [first])
    on(0, lambda x: x + 1, torch.rand(2))
    pools = [pool for _, pool, _ in gpu.captures]
    assert pools[0] == pools[1] != pools[2]


def test_other_threads_may_use_the_gpu_meanwhile(on, gpu):
    on(0, lambda x: x + 1, torch.rand(2))
    assert gpu.captures[0][2]["capture_error_mode"] == "thread_local"


def test_a_capture_that_fails_leaves_the_stream_of_before(on, gpu):
    gpu.fails = True
    before = gpu.stream(CUDA[0])
    with pytest.raises(RuntimeError, match="previous error during capture"):
        on(0, lambda x: x + 1, torch.rand(2))
    assert gpu.stream(CUDA[0]) is before and gpu.device == CUDA[0]
    assert gpu.ended == [(0, gpu.captures[0][1])]


def test_what_waits_for_the_device_is_not_captured(on, gpu):
    with pytest.raises(NotRecordableError, match="waits for the device"):
        on(0, lambda x: x * float(x.sum()), torch.rand(2))
    assert not gpu.captures and not gpu.ended


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
