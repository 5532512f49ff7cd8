"""A Triton kernel that computes only exponentials. Importing it needs Triton."""

# Triton reads annotations as its own types.
# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def burn(out_ptr, repeat, BLOCK: tl.constexpr):
    """Compute two exponentials per lane in each of ``repeat`` rounds; all are really computed."""
    lane = tl.arange(0, BLOCK)
    x = -1.0 / (1.0 + lane)
    y = x - 0.25
    for _ in range(repeat):
        x, y = tl.exp2(x) - 1.5, tl.exp2(y) - 1.5
    tl.store(out_ptr + tl.program_id(0) * BLOCK + lane, x + y)
