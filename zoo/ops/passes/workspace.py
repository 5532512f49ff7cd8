"""Memory for what passes compute only for one another.

Each thread keeps some, so that the system does not take it back after every layer and clear its
pages for the next one.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

MOST_KEPT = 8 << 20
"""Largest number of floats that a thread keeps, 32 MiB."""

_kept = threading.local()


def workspace(floats: int) -> Tensor:
    """Memory for at least so many floats, with any values.

    The next call in the same thread may return the same memory.
    """
    kept: Tensor | None = getattr(_kept, "floats", None)
    if kept is not None and kept.numel() >= floats:
        return kept
    new = torch.empty(floats, dtype=torch.float32, device="cpu")
    if floats <= MOST_KEPT:
        _kept.floats = new
    return new


def drop_workspace() -> None:
    """Free what this thread keeps."""
    vars(_kept).clear()
