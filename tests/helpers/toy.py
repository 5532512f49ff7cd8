"""A network so small that twenty training steps take a fraction of a second."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

import zoo
from zoo.blocks import Block
from zoo.blocks.layers import DropPath
from zoo.networks import Network


class ToyBlock(Block):
    """One layer in a residual branch; it counts how often it is computed."""

    computed = 0

    def __init__(self, dim, drop_path):
        super().__init__()
        self.layer = nn.Linear(dim, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BHWC):
        self.computed += 1
        return x_BHWC + self.drop_path(self.layer(x_BHWC).tanh())


class Toy(Network):
    """Two layers, a block between them, buffers that training changes, and numbers drawn from
    NumPy and Python where ``noisy``."""

    def __init__(
        self,
        *,
        scale: int = 1,
        channels: int = 3,
        dim: int = 4,
        drop_path: float = 0.0,
        noisy: bool = False,
    ):
        super().__init__()
        self.scale, self.channels, self.noisy = scale, channels, noisy
        self.enter = nn.Conv2d(channels, dim, 3, padding=1)
        self.block = ToyBlock(dim, drop_path)
        self.leave = nn.Conv2d(dim, channels, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("latest", torch.zeros(()))

    def forward(self, image_BIHW):
        x_BHWC = self.enter(image_BIHW).permute(0, 2, 3, 1)
        x_BIHW = self.leave(self.block(x_BHWC).permute(0, 3, 1, 2))
        if self.training:
            self.seen += len(image_BIHW)
            self.latest.copy_(image_BIHW.float().mean())
            if self.noisy:
                x_BIHW = x_BIHW * (1 + 0.1 * np.random.randn() + 0.1 * random.random())
        return x_BIHW.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


def register_toy():
    """Make it the network "toy" until the test ends."""
    zoo.register("network", "toy")(Toy)
