"""Backends that are wrong in one way each, for the self-check; a CPU stands for the GPU.

All compute with ``chunked`` and then spoil the result as a kernel would that has this fault.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import torch

from zoo.ops.scan import chunked
from zoo.ops.scan.self_check import child, processes
from zoo.ops.scan.self_check.cases import Case
from zoo.ops.scan.self_check.comparison import Check


class Right:
    """A backend without a fault, under Triton's name."""

    NAME = "triton"

    @property
    def PLACE(self):  # noqa: N802 - a constant of other backends
        return f"{__name__}:{next(n for n, b in BACKENDS.items() if b is self)}"

    def __init__(self):
        self.served, self.count = [], itertools.count(1)

    def summary(self):
        return type(self).__name__

    def unavailable(self):
        return None

    def declines(self, inputs):
        return None

    def forward(self, inputs, reduce):
        self.served.append("forward")
        return self.y(inputs, reduce)

    def backward(self, inputs, grad_y, reduce):
        self.served.append("backward")
        return self.gradients(inputs, grad_y, reduce)

    def y(self, inputs, reduce):
        return chunked.forward(inputs, reduce)

    def gradients(self, inputs, grad_y, reduce):
        return chunked.backward(inputs, grad_y, reduce)


class WrongGradient(Right):
    """The gradient of A misses the last state."""

    def gradients(self, *arguments):
        found = super().gradients(*arguments)
        found.A[..., -1] = 0
        return found


class WrongPadding(Right):
    """A step without a token reads token 0, and still writes nothing."""

    def y(self, inputs, reduce):
        padded = inputs.order < 0
        if not padded.any() or inputs.order.dim() == 3:
            return super().y(inputs, reduce)
        extra = inputs.u.shape[1]  # a token behind the last is a copy of the first

        def longer(tensor):
            return torch.cat(
                [tensor, tensor[:, :1].expand(-1, int(padded.sum()), *tensor[0, 0].shape)], 1
            )

        order = inputs.order.clone()
        order[padded] = torch.arange(extra, extra + int(padded.sum()), dtype=order.dtype)
        given = inputs._replace(
            u=longer(inputs.u), delta=longer(inputs.delta), B=longer(inputs.B), C=longer(inputs.C),
            order=order,
        )  # fmt: skip
        return super().y(given, reduce)[:, :extra].contiguous()


class NanInBfloat16(Right):
    """One value overflows, in bfloat16 only."""

    def y(self, inputs, reduce):
        y = super().y(inputs, reduce)
        if y.dtype == torch.bfloat16:
            y[0, -1].view(-1)[0] = float("nan")
        return y


class Race(Right):
    """In one of three runs, a sum over directions loses a term."""

    def y(self, inputs, reduce):
        y = super().y(inputs, reduce)
        if next(self.count) % 3 == 0:
            y[:, 0] *= 0.5
        return y


class Throws(Right):
    """The device has read outside its memory."""

    def gradients(self, *arguments):
        raise RuntimeError(
            "CUDA error: an illegal memory access was encountered\nCUDA kernel errors"
        )


class Hangs(Right):
    """A barrier that one warp never reaches."""

    def y(self, inputs, reduce):
        if inputs.order.dim() == 3:
            time.sleep(3600)
        return super().y(inputs, reduce)


class Crashes(Right):
    """The process dies."""

    def gradients(self, *arguments):
        os.kill(os.getpid(), signal.SIGSEGV)


class WrongDtype(Right):
    """y stays in float32."""

    def y(self, inputs, reduce):
        return super().y(inputs, reduce).float()


class IgnoresReduce(Right):
    """Directions are never summed."""

    def y(self, inputs, reduce):
        return super().y(inputs, False)


class IgnoresOrderPerImage(Right):
    """All images follow the order of the first."""

    def y(self, inputs, reduce):
        order = inputs.order if inputs.order.dim() == 2 else inputs.order[0]
        return super().y(inputs._replace(order=order), reduce)


class WrongD(Right):
    """The gradient of D is that of the first image."""

    def gradients(self, inputs, grad_y, reduce):
        found = super().gradients(inputs, grad_y, reduce)
        first = {n: getattr(inputs, n)[:1] for n in ("u", "delta", "B", "C")}
        order = inputs.order if inputs.order.dim() == 2 else inputs.order[:1]
        alone = super().gradients(inputs._replace(**first, order=order), grad_y[:1], reduce)
        return found._replace(D=alone.D)


class WrongBias(Right):
    """The gradient of delta_bias is forgotten where the step is given in full."""

    def gradients(self, inputs, grad_y, reduce):
        found = super().gradients(inputs, grad_y, reduce)
        if inputs.delta_weight is None:
            found.delta_bias.zero_()
        return found


class NeverEqual(Right):
    """In deterministic mode, sums still have no fixed sequence: the last bits differ."""

    def gradients(self, *arguments):
        found = super().gradients(*arguments)
        if next(self.count) % 2:
            found.B.view(-1)[0] *= 1 + 2e-7
        return found


class OutOfMemory(Right):
    """Another program has the memory."""

    def y(self, inputs, reduce):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


BACKENDS = {
    "right": Right(),
    "wrong_gradient": WrongGradient(),
    "wrong_padding": WrongPadding(),
    "nan_in_bfloat16": NanInBfloat16(),
    "race": Race(),
    "throws": Throws(),
    "hangs": Hangs(),
    "crashes": Crashes(),
    "wrong_dtype": WrongDtype(),
    "ignores_reduce": IgnoresReduce(),
    "ignores_order_per_image": IgnoresOrderPerImage(),
    "wrong_d": WrongD(),
    "wrong_bias": WrongBias(),
    "never_equal": NeverEqual(),
    "out_of_memory": OutOfMemory(),
}
globals().update(BACKENDS)

ONE_GROUP = ((Check(Case(), torch.float32), Check(Case(per_image=True), torch.float32)),)
SHORT_PLAN = (*ONE_GROUP, (Check(Case(), torch.bfloat16),))
"""Cases for tests that start processes."""


def run_in_this_process(monkeypatch):
    """Run here what would run in processes of its own: the same code, without their start.

    Returns:
        What each of them has been told to do.
    """
    begun = []

    def start(module, **order):
        assert module == "child"
        begun.append(order)
        lines = []
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(readline=lambda: json.dumps(order)))
        monkeypatch.setattr(child, "tell", lambda **line: lines.append(json.dumps(line)))
        # It would end the process of the tests.
        monkeypatch.setattr(child.faulthandler, "dump_traceback_later", lambda *_, **__: None)
        child.main()
        ended = SimpleNamespace(poll=lambda: 0, wait=lambda timeout: 0)
        return processes._Process(ended, io.BytesIO("\n".join(lines).encode()), io.BytesIO())

    monkeypatch.setattr(processes, "_start", start)
    return begun
