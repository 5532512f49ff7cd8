"""A Triton kernel that computes nothing but exponentials; imported where Triton is installed."""

# Triton reads annotations as types of its own.
# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def burn(out_ptr, repeat, BLOCK: tl.constexpr):
    """Two exponentials a lane for each of ``repeat`` rounds, which no compiler can leave out."""
    lane = tl.arange(0, BLOCK)
    x = -1.0 / (1.0 + lane)
    y = x - 0.25
    for _ in range(repeat):
        x, y = tl.exp2(x) - 1.5, tl.exp2(y) - 1.5
    tl.store(out_ptr + tl.program_id(0) * BLOCK + lane, x + y)
