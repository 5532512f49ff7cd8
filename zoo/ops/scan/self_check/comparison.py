"""Compares a backend with the definition: one case, forward and backward, several times.

The reference is ``chunked`` in float64 on the CPU, with the same rounded tokens. Its own error is
1e-12, so a tolerance covers the rounding of the backend alone: see :data:`cases.TOLERANCE`. Every
output is held to it by itself, so that a fault in the gradient of D alone is found.

Shape suffixes: see :mod:`zoo.ops.scan.contract`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zoo.ops.scan import chunked
from zoo.ops.scan.checks import output_shape
from zoo.ops.scan.contract import PARAMETERS, ScanGradients, ScanInputs
from zoo.ops.scan.self_check.cases import TOLERANCE, Case, cotangent, make_inputs, relative

RUNS = 3
"""How often each case runs: a race need not show at the first time."""


class OwnCheck(Protocol):
    """A check that knows itself what is right."""

    def fault(self, device: torch.device, runs: int) -> str | None:
        """Say what is wrong in one of some runs; None if all is right."""
        ...


class Examined(Protocol):
    """The part of a backend that is examined; see :class:`zoo.ops.scan.contract.Backend`."""

    def forward(self, inputs: ScanInputs, reduce: bool) -> Tensor:
        """Return y."""
        ...

    def backward(self, inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
        """Return the gradients of the inputs."""
        ...


@dataclass(frozen=True)
class Check:
    """A case in a dtype.

    Attributes:
        case: sizes and kind of the call.
        dtype: dtype of the tokens.
        fixed: whether sums must be made in a fixed sequence, so that equal runs are equal.
    """

    case: Case
    dtype: torch.dtype
    fixed: bool = False

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"{name} {self.case}{' deterministic' if self.fixed else ''}"


def fault(
    backend: Examined, check: Check | OwnCheck, device: torch.device, *, runs: int = RUNS
) -> str | None:
    """Say what a backend computes wrongly in a check; None if all is right.

    Args:
        backend: the backend.
        check: the case.
        device: where it runs.
        runs: how often.
    """
    if not isinstance(check, Check):
        return check.fault(device, runs)
    inputs = make_inputs(check.case, check.dtype)
    exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
    given = ScanInputs._make(None if t is None else t.to(device) for t in inputs)
    reduce = check.case.reduce
    right = ScanInputs._make(exact)
    # With values that the dtype can hold, so that both get the same gradient.
    grad_y = cotangent(right.u.new_empty(output_shape(right, reduce))).to(check.dtype)
    wanted = _results(chunked, right, grad_y.double(), reduce)
    before: dict[str, Tensor] = {}
    for run in range(runs):
        with _deterministic(check.fixed):
            found = _results(backend, given, grad_y.to(device), reduce)
        wrong = _difference(found, wanted, check.dtype)
        if check.fixed and wrong is None and run:
            wrong = _unequal(found, before)
        if wrong is not None:
            return f"{wrong}, in run {run + 1} of {runs}" if run else wrong
        before = found
    return None


def first_fault(
    backend: Examined, checks: Sequence[Check], device: torch.device
) -> tuple[Check, str] | None:
    """The first check that a backend fails, and what is wrong; exceptions count as faults."""
    for check in checks:
        try:
            wrong = fault(backend, check, device)
        except Exception as error:
            wrong = in_one_line(error)
        if wrong is not None:
            return check, wrong
    return None


def in_one_line(error: BaseException) -> str:
    """Return the class and message of an error as one line of at most 300 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


@contextlib.contextmanager
def _deterministic(fixed: bool) -> Iterator[None]:
    if not fixed:  # the switch belongs to the whole process: it is left alone where it can be
        yield
        return
    before = torch.get_deterministic_debug_mode()
    # Not torch.use_deterministic_algorithms, which imports the compiler: two seconds.
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def _results(
    backend: Examined, inputs: ScanInputs, grad_y: Tensor, reduce: bool
) -> dict[str, Tensor]:
    """Output and gradients by name."""
    y = backend.forward(inputs, reduce)
    gradients = backend.backward(inputs, grad_y, reduce)._asdict()
    named = {f"the gradient of {name}": value for name, value in gradients.items()}
    return {"y": y, **{name: value for name, value in named.items() if value is not None}}


def _difference(
    found: dict[str, Tensor], wanted: dict[str, Tensor], dtype: torch.dtype
) -> str | None:
    for name, right in wanted.items():
        if name not in found:
            return f"{name} is missing"
        ours = found[name]
        kept = torch.float32 if name.split()[-1] in PARAMETERS else dtype
        if ours.dtype != kept:
            return f"{name} has dtype {ours.dtype}, not {kept}"
        if ours.shape != right.shape:
            return f"{name} has shape {tuple(ours.shape)}, not {tuple(right.shape)}"
        ours = ours.cpu()
        if bad := int((~ours.isfinite()).sum()):
            return f"{name} has {bad} of {ours.numel()} values that are infinite or NaN"
        deviation = relative(ours, right)
        if not deviation <= TOLERANCE[dtype]:
            return f"{name} deviates by {deviation:.1e}, and {TOLERANCE[dtype]:.1e} is allowed"
    return None


def _unequal(found: dict[str, Tensor], before: dict[str, Tensor]) -> str | None:
    """Which result of a run differs in any bit from that of the run before it."""
    for name, value in found.items():
        if not torch.equal(value, before[name]):
            return f"{name} differs from that of an equal run in deterministic mode"
    return None
