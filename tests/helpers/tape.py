"""Stand-ins for CUDA graphs on a CPU: operators are recorded, and repeated without Python."""

from __future__ import annotations

import os

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.inference.graph_check import GraphCheck
from zoo.inference.graph_recording import NotRecordableError, Outside


class _Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, found))
        return found


class Tape:
    """Like :class:`zoo.inference.graph_recording.CudaRecording`: it knows tensors, and no Python.

    A replay runs the operators on the tensors of the recording and writes results where they were.
    """

    def __init__(self, run, inputs, own, before):
        self.inputs = [tensor.clone() for tensor in inputs]
        with Outside(inputs[0].device, own) as outside:
            run(*self.inputs)
        self.outside = outside.tensors
        with _Recording() as recording:
            self.output = run(*self.inputs)
        self.calls = recording.calls
        self.replays = 0

    def replay(self, inputs):
        self.replays += 1
        for place, tensor in zip(self.inputs, inputs, strict=True):
            place.copy_(tensor)
        for func, args, kwargs, before in self.calls:
            now = func(*args, **kwargs)
            for old, new in zip(tree_leaves(before), tree_leaves(now), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        return self.output


class Stale(Tape):
    """Returns what it has recorded, whatever the inputs are: right at the first replay."""

    def replay(self, inputs):
        return self.output


class WrongAtOnce(Tape):
    """Is wrong by a twentieth at every replay."""

    def replay(self, inputs):
        return super().replay(inputs).mul_(1.06)


class Forgetful(Tape):
    """Reads memory that somebody else has got meanwhile."""

    def replay(self, inputs):
        found = super().replay(inputs)
        return found.fill_(float("nan")) if self.replays > 3 else found


class Waiting(Tape):
    """Waits for the device."""

    def __init__(self, run, inputs, own, before):
        raise NotRecordableError("aten.item waits for the device")


class Crashing(Tape):
    """Ends the process."""

    def replay(self, inputs):
        os.abort()


class Refusing(Tape):
    """Cannot record anything."""

    def __init__(self, run, inputs, own, before):
        raise RuntimeError("operation not permitted when stream is capturing")


WRONG = {kind.__name__: kind for kind in (Stale, WrongAtOnce, Forgetful, Refusing, Waiting)}

_TINY = "mambair_tiny_x2"
RIGHT, CRASHING = (
    ((GraphCheck(model=_TINY, precision="fp32", record=kind),),) for kind in (Tape, Crashing)
)
"""Plans of a self-check."""
