"""CUDA graphs: a network on small images of one size, without the time of its launches.

A network is some thousand small kernels, and Python takes longer to launch them than a GPU to run
them on a small image: MambaIR light at 64 x 64 pixels takes 5 ms of a GPU and 45 ms of Python. A
CUDA graph records the kernels once and launches them all together.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.ops.precision import Precision, autocast
from zoo.ops.scan.dispatch import asked_for

logger = logging.getLogger(__name__)

PIXELS = 512 * 512
"""Images of more pixels are not recorded: the GPU, not Python, bounds their time, and a recording
keeps the memory of a run."""

RUNS = 2
"""A size is recorded after so many runs. They choose algorithms, compile kernels and build scan
orders, which cannot be recorded, and a size that comes once is not worth a recording."""

KEPT = 8
"""Recordings kept for a network; the oldest makes room."""

Run = Callable[..., Tensor]


class Recording(Protocol):
    """A run of a network that can be repeated on other values of the same shapes."""

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the output; the next replay of any recording of the network overwrites it."""
        ...


class CudaRecording:
    """A run as a CUDA graph, with the tensors that it reads from and writes to.

    Args:
        run: takes tensors on a GPU and returns one.
        inputs: what it is run on.
        before: recordings of the same network, whose memory this one shares.
    """

    def __init__(
        self, run: Run, inputs: Sequence[Tensor], before: Sequence[CudaRecording] = ()
    ) -> None:
        self.pool: Any = before[0].pool if before else torch.cuda.graph_pool_handle()
        self.inputs = [tensor.clone() for tensor in inputs]
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile, as those of the app do.
        graph = torch.cuda.graph(self.graph, pool=self.pool, capture_error_mode="thread_local")
        with torch.cuda.device(inputs[0].device), _Outside() as outside, graph:
            self.output = run(*self.inputs)
        self.outside = outside.tensors

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        for place, tensor in zip(self.inputs, inputs, strict=True):
            place.copy_(tensor)
        self.graph.replay()
        return self.output


class _Outside(TorchDispatchMode):
    """Collects the tensors that a run reads and has not made itself, to keep them alive.

    A graph reads memory by its address, and nothing else holds some of these tensors for as long:
    scan orders come from a cache that may drop them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []
        self._found: set[int] = set()
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            address = tensor.untyped_storage().data_ptr()
            if address not in self._made and address not in self._found:
                self._found.add(address)
                self.tensors.append(tensor)
        found = func(*args, **(kwargs or {}))
        made = {tensor.untyped_storage().data_ptr() for tensor in _tensors(found)}
        self._made |= made - self._found
        return found


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


class Recorder:
    """Runs a network, and records it where that is faster.

    Args:
        network: the network. Its tensors tell whether it has changed since a recording.
        record: makes a recording; tests put another in place of a CUDA graph.
    """

    def __init__(self, network: nn.Module, record: Callable[..., Any] = CudaRecording) -> None:
        self._network = weakref.ref(network)
        self._record = record
        self._runs: dict[object, int] = {}
        self._recordings: dict[object, Recording] = {}
        self._state: object = None
        self._refused = False
        self._lock = Lock()

    def __call__(self, inputs: Sequence[Tensor], precision: Precision) -> Tensor:
        """Return the network's output for tensors on its device."""
        network = self._network()
        assert network is not None

        def run(*given: Tensor) -> Tensor:
            with autocast(given[0].device, precision):
                return network(*given)

        pixels = inputs[0].numel() // inputs[0].shape[-3]
        if self._refused or pixels > PIXELS or network.training:
            return run(*inputs)
        with self._lock:
            if recording := self._recording(network, run, inputs, precision):
                return recording.replay(inputs).clone()
        return run(*inputs)

    def _recording(
        self, network: nn.Module, run: Run, inputs: Sequence[Tensor], precision: Precision
    ) -> Recording | None:
        """Return the recording for such inputs; None if there is none yet, or cannot be one."""
        state = tuple(_state(network))
        if state != self._state:
            self._state, self._runs, self._recordings = state, {}, {}
        key = (precision, *_surroundings(), *((tuple(t.shape), t.stride()) for t in inputs))
        if key in self._recordings:
            return self._recordings[key]
        self._runs[key] = self._runs.get(key, 0) + 1
        if self._runs[key] <= RUNS:
            return None
        try:
            made: Recording = self._record(run, inputs, list(self._recordings.values()))
        except Exception as error:  # a part of the user's own may do what cannot be recorded
            logger.debug("%s runs without a CUDA graph: %s", type(network).__name__, error)
            self._refused = True
            return None
        if len(self._recordings) >= KEPT:
            del self._recordings[next(iter(self._recordings))]
        self._recordings[key] = made
        return made


def _state(network: nn.Module) -> Iterator[tuple[int, int]]:
    """Address and version of each tensor of a network: they change if its values may have."""
    for tensor in (*network.parameters(), *network.buffers()):
        yield tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def _surroundings() -> tuple[object, ...]:
    """Settings outside the network that change which kernels run."""
    return (
        asked_for(None),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.is_inference_mode_enabled(),
    )


_recorders: weakref.WeakKeyDictionary[nn.Module, Recorder] = weakref.WeakKeyDictionary()


def recorder(network: nn.Module) -> Recorder:
    """Return the recorder of a network, the same for all its images."""
    if network not in _recorders:
        _recorders[network] = Recorder(network)
    return _recorders[network]
