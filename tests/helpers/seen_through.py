"""Networks whose receptive fields are known beforehand.

Shape suffixes: B batch, I image channels, H height, W width, C channels.
"""

from __future__ import annotations

import torch
from torch import nn

from zoo.blocks import SS2D
from zoo.networks import Network
from zoo.scans import ScanOrder


class ThreeByThree(Network):
    """One convolution of 3 x 3; with a scale, each pixel is repeated afterwards."""

    def __init__(self, scale: int = 1, channels: int = 3) -> None:
        super().__init__()
        self.scale, self.channels = scale, channels
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, image_BIHW):
        y_BIHW = self.layer(image_BIHW)
        return y_BIHW.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


class Scanning(Network):
    """One mixer that scans, and nothing else that sees more than a pixel."""

    def __init__(self, scan: ScanOrder, *, d_state: int = 3, dim: int = 6, **options) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.scale, self.channels = 1, 3
        self.enter = nn.Linear(3, dim)
        self.mixer = SS2D(dim, scan=scan, d_conv=1, d_state=d_state, **options)
        self.leave = nn.Linear(dim, 3)

    def forward(self, image_BIHW):
        x_BHWC = self.enter(image_BIHW.permute(0, 2, 3, 1).contiguous())
        return self.leave(self.mixer(x_BHWC)).permute(0, 3, 1, 2)
