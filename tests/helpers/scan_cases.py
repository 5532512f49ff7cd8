"""The cases that every backend of the selective scan is held to, run through the operator."""

from __future__ import annotations

import torch

import zoo
from zoo.ops import selective_scan
from zoo.ops.scan.self_check.cases import (
    CASES,
    TOLERANCE,
    Case,
    cotangent,
    make_inputs,
    random_case,
    relative,
)

__all__ = [
    "BACKENDS",
    "CASES",
    "TINY",
    "TOLERANCE",
    "Case",
    "make_inputs",
    "random_case",
    "relative",
    "run",
]

BACKENDS = [b.name for b in zoo.backends() if b.available and b.name in ("native", "chunked")]
"""Backends of a CPU, compared with ``reference``; those of a GPU: tests/gpu."""

TINY = [case for case in CASES if case.B * case.L * case.K * case.E * case.N <= 600 and case.B]


def run(inputs, case: Case, backend: str):
    """Output and gradients of a weighted sum of it."""
    leaves = [t if t is None else t.detach().requires_grad_() for t in inputs[:-1]]
    order = inputs[-1]
    y = selective_scan(*leaves, order, reduce=case.reduce, backend=backend)
    wanted = [t for t in leaves if t is not None]
    gradients = torch.autograd.grad(y, wanted, cotangent(y))
    return [y, *gradients]
