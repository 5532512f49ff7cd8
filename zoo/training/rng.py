"""The states of all random generators that training uses, in a form for checkpoints."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from zoo.errors import ZooError


def seed_all(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch (on all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def make_deterministic() -> None:
    """Make a GPU add numbers in the same sequence in each run; it takes longer.

    cuBLAS reads its part of it when CUDA starts in this process.

    Raises:
        ZooError: if CUDA has started already without it.
    """
    if not os.environ.get(_CUBLAS):
        if torch.cuda.is_initialized():
            raise ZooError(
                f"equal runs need {_CUBLAS}={_FIXED} in the environment before CUDA starts, and it "
                "has started; set it before Python does"
            )
        os.environ[_CUBLAS] = _FIXED
    torch.use_deterministic_algorithms(True)


_CUBLAS, _FIXED = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""The variable that fixes what memory each product uses, and the value that NVIDIA names."""


def rng_state(device: str) -> dict[str, Any]:
    """Return the states of Python, NumPy, torch and the device, as plain types and tensors."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [str(name), [int(key) for key in keys], *map(float, rest)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.startswith("cuda") else None,
    }


@contextmanager
def rng_kept(device: str) -> Iterator[None]:
    """Leave the random generators as they are before the block, whatever it draws."""
    before = rng_state(device)
    try:
        yield
    finally:
        restore_rng_state(before, device)


def restore_rng_state(state: Mapping[str, Any], device: str) -> None:
    """Restore the random states that :func:`rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys, int(position), int(has_gauss), gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.startswith("cuda"):
        torch.cuda.set_rng_state(state["cuda"], device)
