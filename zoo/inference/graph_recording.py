"""Recording a run of a network as a CUDA graph, with all memory that the graph reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_INDEXING = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_}
"""Operators that wait if an index is a mask."""

_ANSWERS = {torch.ops.aten.equal, torch.ops.aten.is_nonzero}
"""Operators that return a truth value, and are not marked as waiting for it."""

_WAITING = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
"""Marks of the other operators that wait."""

Run: TypeAlias = Callable[..., Tensor]


class Recording(Protocol):
    """A run of a network that can be repeated on other values of the same shapes."""

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the output; the next replay of any recording overwrites it."""
        ...


Record: TypeAlias = Callable[[Run, Sequence[Tensor], set[int], Sequence[Any]], Recording]
"""Makes a recording of a run on some inputs, given the addresses of the network's own tensors and
the recordings of the same network that are there already."""


class NotRecordableError(RuntimeError):
    """A run does what a CUDA graph cannot hold. Nothing was recorded."""


class CudaRecording:
    """A run as a CUDA graph, with the tensors that it reads from and writes to.

    Only one may be made at a time in a process, and all that live must be of one network: PyTorch
    may free what the captures of a stream share when one of their graphs is destroyed.

    Args:
        run: takes tensors on a GPU and returns one.
        inputs: tensors of the shapes that it is run on.
        own: addresses of tensors that somebody else looks after.
        before: recordings of the same network, whose memory this one shares.

    Raises:
        NotRecordableError: if the run waits for the GPU or moves data to it.
        Exception: if the capture fails. Others must not be tried then: PyTorch does not undo all of
            it.
    """

    def __init__(
        self, run: Run, inputs: Sequence[Tensor], own: set[int], before: Sequence[CudaRecording]
    ) -> None:
        device = inputs[0].device
        # Other values than those that the first replay gets, which must not be right by chance.
        self.inputs = [torch.empty_like(t).copy_(t.flip(-1)) for t in inputs]
        with torch.cuda.device(device):
            # Not while it is recorded: the passes do not run where something watches them.
            with Outside(device, own) as outside:
                run(*self.inputs)
            self.outside = outside.tensors
            self.pool: Any = before[0].pool if before else torch.cuda.graph_pool_handle()
            self.graph = torch.cuda.CUDAGraph()
            usual = torch.cuda.current_stream(device)
            try:
                # PyTorch's own stream for captures may be of another GPU. Threads may use this one.
                with torch.cuda.graph(
                    self.graph,
                    pool=self.pool,
                    stream=_stream_of(device),
                    capture_error_mode="thread_local",
                ):
                    self.output = run(*self.inputs)
            except BaseException:
                torch.cuda.set_stream(usual)
                with contextlib.suppress(Exception):
                    torch._C._cuda_endAllocateToPool(device.index, self.pool)
                raise

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        for place, tensor in zip(self.inputs, inputs, strict=True):
            place.copy_(tensor)
        self.graph.replay()
        return self.output


_streams: dict[torch.device, Any] = {}


def _stream_of(device: torch.device) -> Any:
    """Return the stream of a GPU in which all captures are made."""
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
    return _streams[device]


class Outside(TorchDispatchMode):
    """Collects the tensors that a run reads and has not made itself, to keep them alive.

    A graph reads memory by its address, and nothing else holds some of these tensors for as long:
    scan orders come from a cache that may drop them. Intermediate tensors are not collected: they
    would take the memory of all layers at once.

    Args:
        device: where the run must stay.
        own: addresses of tensors that are not collected.

    Raises:
        NotRecordableError: in the block, if an operator has a tensor of another device, or returns
            what depends on values on the device, for which Python waits.
    """

    def __init__(self, device: torch.device, own: set[int]) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []
        self._device = device
        self._seen = set(own)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _waits(func, args):
            raise NotRecordableError(f"{func} waits for the device")
        for tensor in self._here(func, (args, kwargs)):
            address = tensor.untyped_storage().data_ptr()
            if address not in self._seen:
                self._seen.add(address)
                self.tensors.append(tensor)
        found = func(*args, **(kwargs or {}))
        self._seen |= {t.untyped_storage().data_ptr() for t in self._here(func, found)}
        return found

    def _here(self, func: Any, values: Any) -> list[Tensor]:
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            if tensor.device != self._device:
                raise NotRecordableError(f"{func} has a tensor on {tensor.device}")
        return tensors


def _waits(func: Any, args: Sequence[Any]) -> bool:
    """Whether Python waits for what an operator computes: a number, or the size of its result."""
    if func.overloadpacket in _INDEXING:
        masks = (torch.bool, torch.uint8)
        return any(index is not None and index.dtype in masks for index in args[1])
    return func.overloadpacket in _ANSWERS or not _WAITING.isdisjoint(func.tags)
