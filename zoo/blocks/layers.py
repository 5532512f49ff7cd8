"""Small layers that work on ``(B, H, W, C)`` memory.

Shape suffixes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` for ``(B, H, W, C)`` tensors, without copies (channels-last memory)."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return super().forward(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


LARGEST_KERNEL = 63
"""Largest kernel of a convolution whose size is an option. Its time grows with the square."""


def check_kernel(size: int, name: str, *, odd: bool = True) -> None:
    """Raise a ValueError if an option is no size of a kernel; ``odd`` kernels have a centre."""
    if not 1 <= size <= LARGEST_KERNEL or (odd and size % 2 == 0):
        wanted = "odd and " if odd else ""
        raise ValueError(f"{name} is {size}; it must be {wanted}from 1 to {LARGEST_KERNEL}")


class DropPath(nn.Module):
    """Drops the branch of a random sample in training (Huang et al., "Stochastic depth", 2016).

    Args:
        rate: probability of dropping, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path is {rate}; it must be at least 0 and below 1")
        self.rate = rate

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x_BHWC
        keep = 1 - self.rate
        mask = torch.empty(len(x_BHWC), 1, 1, 1, device=x_BHWC.device).bernoulli_(keep)
        return x_BHWC * (mask / keep).to(x_BHWC.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def init_linear(module: nn.Module) -> None:
    """Initialise a Linear layer as the authors do: normal with std 0.02, bias zero.

    Other layers are left unchanged.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def at_least_one(channels: int, reduction: int, what: str) -> int:
    """Return ``channels // reduction``.

    Raises:
        ValueError: if ``reduction`` is below 1, or the result is 0; the message names the smallest
            width that works.
    """
    if reduction < 1:
        raise ValueError(f"{what} is {reduction}; it must be at least 1")
    if channels < reduction:
        raise ValueError(
            f"{what} divides {channels} channels by {reduction}; "
            f"use dim >= {reduction} or a smaller value"
        )
    return channels // reduction
