"""Features for the passes in C++, and PyTorch's activations by name."""

from __future__ import annotations

import torch
import torch.nn.functional as F

ACTIVATIONS = {"none": lambda x: x, "silu": F.silu, "gelu": F.gelu}


def normal(*shape):
    """Normal numbers that depend on the shape alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def padded(x):
    """The same values with a gap between the tokens."""
    return F.pad(x, (0, 5))[..., : x.shape[-1]]
