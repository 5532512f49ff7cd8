"""What joins the levels of a U-Net: downsamplers, and skips from the encoder to the decoder.

Shape suffixes: B batch, H height, W width, I input channels, O output channels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.blocks.layers import Conv2d
from zoo.registry import Registry


class Downsampler(nn.Module):
    """Halves the size: ``(B, H, W, I) -> (B, H/2, W/2, O)``, H and W even; ``down(dim, out=)``.

    ``dim`` is I and ``out`` is O.
    """

    def forward(self, x_BHWI: Tensor) -> Tensor:
        raise NotImplementedError


class Skip(nn.Module):
    """Joins features of the decoder and the encoder, ``(x_BHWC, skip_BHWC) -> (B, H, W, O)``.

    Built as ``skip(dim)``; ``dim`` is C, the number of channels of both.

    Attributes:
        out: output channels O.
    """

    out: int

    def forward(self, x_BHWC: Tensor, skip_BHWC: Tensor) -> Tensor:
        raise NotImplementedError


DownsamplerFactory: TypeAlias = Callable[..., Downsampler]
SkipFactory: TypeAlias = Callable[..., Skip]

DOWNSAMPLERS = Registry("downsampler", Downsampler, supplied=("dim", "out"))
SKIPS = Registry("skip", Skip, supplied=("dim",))


@DOWNSAMPLERS.register("pixelunshuffle")
class UnshuffleDown(Downsampler):
    """A 3x3 convolution to O / 4 channels without bias, then pixel unshuffle (Restormer).

    Args:
        dim: input channels I.
        out: output channels O, a multiple of 4.
    """

    def __init__(self, dim: int, *, out: int) -> None:
        super().__init__()
        if out % 4:
            raise ValueError(
                f"dim is {dim}, and the level below has {out} channels; pixel unshuffle needs a "
                "multiple of 4 there"
            )
        self.conv = Conv2d(dim, out // 4, 3, padding=1, bias=False)

    def forward(self, x_BHWI: Tensor) -> Tensor:
        # The channel order is (c, row, column): the inverse of pixel shuffle.
        return rearrange(
            self.conv(x_BHWI), "b (h i) (w j) c -> b h w (c i j)", i=2, j=2
        ).contiguous()


@DOWNSAMPLERS.register("strided")
class StridedDown(Downsampler):
    """A 2x2 convolution of stride 2.

    Args:
        dim: input channels I.
        out: output channels O.
    """

    def __init__(self, dim: int, *, out: int) -> None:
        super().__init__()
        self.conv = Conv2d(dim, out, 2, stride=2)

    def forward(self, x_BHWI: Tensor) -> Tensor:
        return self.conv(x_BHWI)


@SKIPS.register("concat_conv")
class ConcatConvSkip(Conv2d, Skip):
    """Concatenation, then a 1x1 convolution back to C channels, without bias (Restormer).

    Args:
        dim: channels C.
    """

    # The part is the convolution itself, so its weight has the name of earlier versions.
    def __init__(self, dim: int) -> None:
        super().__init__(2 * dim, dim, 1, bias=False)
        self.out = dim

    def forward(self, x_BHWC: Tensor, skip_BHWC: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(torch.cat([x_BHWC, skip_BHWC], dim=-1))


@SKIPS.register("concat")
class ConcatSkip(Skip):
    """Concatenation: 2C channels.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out = 2 * dim

    def forward(self, x_BHWC: Tensor, skip_BHWC: Tensor) -> Tensor:
        return torch.cat([x_BHWC, skip_BHWC], dim=-1)


@SKIPS.register("sum")
class SumSkip(Skip):
    """Sum of both.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out = dim

    def forward(self, x_BHWC: Tensor, skip_BHWC: Tensor) -> Tensor:
        return x_BHWC + skip_BHWC
