"""Names of precisions and their dtypes, and mixed precision, for inference, training and export."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def autocast(device: str | torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Autocast: run a network's matrix products and convolutions in the given precision.

    Weights and the scan's state stay float32. With "fp32" nothing changes.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, DTYPES[precision])


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Turn autocast off inside, for arithmetic that must keep the dtype of its tensors."""
    # Entered only where autocast is on: a traced graph would keep the context as an operator.
    # The meta device has no autocast.
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
