"""Parts of a user's own, outside the package: a block and a scan order."""

from dataclasses import dataclass

import torch
from torch import nn

import zoo
from zoo.blocks import SS2D, Block
from zoo.scans import ScanOrder


@zoo.register("block", "my_plain")
class Plain(Block):
    """A mixer and a skip, nothing else."""

    def __init__(self, dim, *, scan=None, drop_path=0.0, expand: float = 1.5):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mixer = SS2D(dim, scan=scan, expand=expand)

    def forward(self, x_BHWC):
        return x_BHWC + self.mixer(self.norm(x_BHWC))


@zoo.register("scan", "my_odd_even")
@dataclass(frozen=True, kw_only=True)
class OddEven(ScanOrder):
    """Every second token, then the others."""

    directions: tuple[str, ...] = ("even_first",)

    def build(self, height, width, device):
        tokens = torch.arange(height * width, dtype=torch.int32, device=device)
        return torch.cat([tokens[::2], tokens[1::2]])[None]
