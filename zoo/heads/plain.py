"""The head of a U-Net: one convolution.

Shape suffixes: B batch, H height, W width, C feature channels, I image channels.
"""

from __future__ import annotations

from torch import Tensor

from zoo.blocks.layers import Conv2d
from zoo.heads.contract import HEADS, Head, check_keeps_size


@HEADS.register("conv")
class ConvHead(Conv2d, Head):
    """A 3x3 convolution without bias; scale 1 only.

    Args:
        dim: feature channels C.
        scale: must be 1.
        channels: image channels I.
    """

    # The part is the convolution itself, so its weight has the name of earlier versions.
    def __init__(self, dim: int, *, scale: int, channels: int) -> None:
        check_keeps_size("conv", scale)
        super().__init__(dim, channels, 3, padding=1, bias=False)

    def forward(self, features_BHWC: Tensor, image_BHWI: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(features_BHWC)
