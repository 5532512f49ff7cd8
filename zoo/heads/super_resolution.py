"""Heads for super-resolution: two with pixel shuffle, one with nearest-neighbour upsampling.

Shape suffixes: B batch, H height, W width, C feature channels, I image channels.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from zoo.blocks.layers import Conv2d
from zoo.heads.contract import HEADS, Head


def pixel_shuffle(x_BHWC: Tensor, scale: int) -> Tensor:
    """Rearrange channels into pixels: ``(B, H, W, C*s*s) -> (B, s*H, s*W, C)``.

    The order of the input channels is (c, row, column), as in ``torch.nn.PixelShuffle``
    (Shi et al., "Real-time single image and video super-resolution", 2016).
    """
    return rearrange(x_BHWC, "b h w (c i j) -> b (h i) (w j) c", i=scale, j=scale)


class PixelShuffle(nn.Module):
    """:func:`pixel_shuffle` as a layer."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return pixel_shuffle(x_BHWC, self.scale)


class Enlarge(nn.Module):
    """Nearest-neighbour upsampling by an integer factor: ``(B, H, W, C) -> (B, s*H, s*W, C)``."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC.repeat_interleave(self.scale, 1).repeat_interleave(self.scale, 2)


def scale_factors(scale: int) -> list[int]:
    """Split a scale into the authors' upsampling steps: [2, 2, ...], [3], or [] for scale 1.

    Raises:
        ValueError: if the scale is neither 3 nor a power of two.
    """
    if scale == 3:
        return [3]
    if scale < 1 or scale & (scale - 1):
        raise ValueError(
            f"scale {scale} is neither 3 nor a power of two; "
            "the pixelshuffle_direct head takes any integer scale"
        )
    return [2] * (scale.bit_length() - 1)


@HEADS.register("pixelshuffle")
class PixelShuffleHead(Head):
    """One convolution and pixel shuffle for each factor of 2 or 3, then a last convolution.

    Args:
        dim: feature channels C.
        scale: output over input size: 3 or a power of two; 1 keeps the size.
        channels: image channels I.
        hidden: channels between the first and the last convolution; None for C channels without
            the first convolution and its activation.
        last_bias: whether the last convolution has a bias.
    """

    def __init__(
        self,
        dim: int,
        *,
        scale: int,
        channels: int,
        hidden: int | None = 64,
        last_bias: bool = True,
    ) -> None:
        super().__init__()
        self.before = nn.Identity() if hidden is None else Conv2d(dim, hidden, 3, padding=1)
        self.activation = nn.Identity() if hidden is None else nn.LeakyReLU(0.01)
        hidden = dim if hidden is None else hidden
        self.upsample = nn.Sequential()
        for factor in scale_factors(scale):
            self.upsample.append(Conv2d(hidden, factor * factor * hidden, 3, padding=1))
            self.upsample.append(PixelShuffle(factor))
        self.last = Conv2d(hidden, channels, 3, padding=1, bias=last_bias)

    def forward(self, features_BHWC: Tensor, image_BHWI: Tensor) -> Tensor:
        return self.last(self.upsample(self.activation(self.before(features_BHWC))))


@HEADS.register("pixelshuffle_direct")
class PixelShuffleDirectHead(Head):
    """One convolution and one pixel shuffle, for light networks; any integer scale.

    Args:
        dim: feature channels C.
        scale: output over input size, an integer of at least 1.
        channels: image channels I.
    """

    def __init__(self, dim: int, *, scale: int, channels: int) -> None:
        super().__init__()
        if scale < 1:
            raise ValueError(f"scale is {scale}; it must be at least 1")
        self.conv = Conv2d(dim, scale * scale * channels, 3, padding=1)
        self.scale = scale

    def forward(self, features_BHWC: Tensor, image_BHWI: Tensor) -> Tensor:
        return pixel_shuffle(self.conv(features_BHWC), self.scale)


@HEADS.register("nearest_conv")
class NearestConvHead(Head):
    """Nearest-neighbour upsampling and convolutions, which avoid checkerboards (SwinIR, real).

    Args:
        dim: feature channels C.
        scale: output over input size: 3 or a power of two; 1 keeps the size.
        channels: image channels I.
        hidden: channels between the first and the last convolution.
    """

    def __init__(self, dim: int, *, scale: int, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.before = Conv2d(dim, hidden, 3, padding=1)
        self.upsample = nn.Sequential(nn.LeakyReLU(0.01))
        for factor in scale_factors(scale):
            self.upsample.append(Enlarge(factor))
            self.upsample.append(Conv2d(hidden, hidden, 3, padding=1))
            self.upsample.append(nn.LeakyReLU(0.2))
        self.high_resolution = Conv2d(hidden, hidden, 3, padding=1)
        self.activation = nn.LeakyReLU(0.2)
        self.last = Conv2d(hidden, channels, 3, padding=1)

    def forward(self, features_BHWC: Tensor, image_BHWI: Tensor) -> Tensor:
        x_BHWC = self.upsample(self.before(features_BHWC))
        return self.last(self.activation(self.high_resolution(x_BHWC)))
