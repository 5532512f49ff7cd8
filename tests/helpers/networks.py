"""Networks whose outputs are known beforehand."""

from __future__ import annotations

import torch
from torch import nn

from zoo.networks import Network


class Nearest(Network):
    """Enlarges by repeating pixels: local, so that tiles must give exactly the whole."""

    def __init__(self, scale=2, channels=3):
        super().__init__()
        self.scale, self.channels = scale, channels
        self.unit = nn.Parameter(torch.ones(()))
        self.sizes = []

    def forward(self, image_BIHW):
        self.sizes.append(tuple(image_BIHW.shape[2:]))
        enlarged = image_BIHW.repeat_interleave(self.scale, 2)
        return enlarged.repeat_interleave(self.scale, 3) * self.unit
