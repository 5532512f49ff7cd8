"""The head for denoising and JPEG artifact removal: it adds a correction to the input.

Shape suffixes: B batch, H height, W width, C feature channels, I image channels.
"""

from __future__ import annotations

from torch import Tensor

from zoo.blocks.layers import Conv2d
from zoo.heads.contract import HEADS, Head, check_keeps_size


@HEADS.register("residual")
class ResidualHead(Head):
    """Adds the output of one convolution to the input image; scale 1 only.

    Args:
        dim: feature channels C.
        scale: must be 1.
        channels: image channels I.
    """

    def __init__(self, dim: int, *, scale: int, channels: int) -> None:
        super().__init__()
        check_keeps_size("residual", scale)
        self.conv = Conv2d(dim, channels, 3, padding=1)

    def forward(self, features_BHWC: Tensor, image_BHWI: Tensor) -> Tensor:
        return image_BHWI + self.conv(features_BHWC)
