"""Names of precisions and their dtypes, and mixed precision, for inference, training and export."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


SLOW_BFLOAT16 = "bfloat16 is slower than float32 here: the processor has no instructions for it"


def autocast(device: str | torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Autocast: run a network's matrix products and convolutions in the given precision.

    Weights and the scan's state stay float32. With "fp32" nothing changes.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, DTYPES[precision])


def bfloat16_is_slow(device: str | torch.device) -> bool:
    """Whether bfloat16 is slower than float32 on a device, up to 2.6 times.

    That is so on x86-64 processors that have no instructions for it (AVX512_BF16 or AMX). Of other
    processors nothing is known; the answer is False.
    """
    if torch.device(device).type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    # PyTorch has these tests, but no public names for them.
    tests = [
        getattr(torch.cpu, name, None)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return None not in tests and not any(test() for test in tests if test)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Turn autocast off inside, for arithmetic that must keep the dtype of its tensors."""
    # Entered only where autocast is on: a traced graph would keep the context as an operator.
    # The meta device has no autocast.
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
