"""Small layers that work on ``(B, H, W, C)`` memory.

Shape suffixes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.ops import passes


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` for ``(B, H, W, C)`` tensors, without copies (channels-last memory)."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.activated(x_BHWC, "none")

    def activated(self, x_BHWC: Tensor, activation: passes.Activation) -> Tensor:
        """The output with an activation, of a depthwise convolution in one pass where that runs."""
        if self.is_a_pass():
            y = passes.depthwise(
                x_BHWC, self.weight, self.bias, dilation=self.dilation[0], activation=activation
            )
            if y is not None:
                return y
        if self._is_a_product(x_BHWC):
            y_BHWC = F.linear(x_BHWC, self.weight[:, :, 0, 0], self.bias)
        else:
            y_BCHW = super().forward(x_BHWC.permute(0, 3, 1, 2))
            y_BHWC = y_BCHW.permute(0, 2, 3, 1).contiguous()
        return passes.ACTIVATIONS[activation](y_BHWC)

    def is_of_pixels(self) -> bool:
        """Whether the convolution is a matrix product of each pixel alone."""
        return (
            self.kernel_size == self.stride == (1, 1)
            and self.padding == (0, 0)
            and self.groups == 1
        )

    def _is_a_product(self, x_BHWC: Tensor) -> bool:
        """Whether PyTorch's matrix product may replace the convolution; on a CPU it is faster."""
        return (
            self.is_of_pixels()
            and x_BHWC.dim() == 4
            and x_BHWC.device.type == "cpu"
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
        )

    def is_a_pass(self) -> bool:
        """Whether the convolution is one that :func:`zoo.ops.passes.depthwise` computes."""
        (height, width), (dilation, other) = self.kernel_size, self.dilation
        return (
            self.groups == self.in_channels == self.out_channels
            and height == width
            and dilation == other
            and self.padding == (dilation * (height // 2),) * 2
            and self.padding_mode == "zeros"
            and self.stride == (1, 1)
        )


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

    def is_active(self) -> bool:
        """Whether samples are dropped now."""
        return self.training and self.rate > 0

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if not self.is_active():
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
