"""The head of burst networks: x2 upsamplers, each followed by GELU, then a convolution.

Shape suffixes: B batch, H height, W width, C feature channels, I image channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.layers import Conv2d
from zoo.heads.contract import HEADS, Head
from zoo.heads.upsamplers import AdaUp, UpsamplerFactory


@HEADS.register("doubling")
class DoublingHead(Head):
    """Upsamples by 2 until the scale is reached, then a 3x3 convolution (QMambaBSR, Sec. 3.4).

    Args:
        dim: feature channels C.
        scale: output over input size, a power of two; 1 for the convolution alone.
        channels: image channels I.
        up: builds an upsampler by 2.
    """

    def __init__(
        self, dim: int, *, scale: int, channels: int, up: UpsamplerFactory = AdaUp
    ) -> None:
        super().__init__()
        if scale < 1 or scale & (scale - 1):
            raise ValueError(f"scale is {scale}; the doubling head needs a power of two")
        self.ups = nn.ModuleList(up(dim, out=dim) for _ in range(scale.bit_length() - 1))
        self.last = Conv2d(dim, channels, 3, padding=1)

    def forward(self, features_BHWC: Tensor, image_BHWI: Tensor) -> Tensor:
        for up in self.ups:
            features_BHWC = F.gelu(up(features_BHWC))
        return self.last(features_BHWC)
