"""Precisions by name, and mixed precision: one table for inference, training and export."""

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
    """A context in which a network's matrix products and convolutions run in a precision.

    Weights stay float32, and so does the inside of the scan. "fp32" changes nothing.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, DTYPES[precision])
