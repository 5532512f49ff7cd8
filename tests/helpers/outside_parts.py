"""Parts from outside the package, each of a few lines: one for each contract of networks."""

from __future__ import annotations

import torch
from torch import nn

import zoo
from zoo.blocks import (
    Block,
    Conv2d,
    Downsampler,
    GuidedBlock,
    Merge,
    Mixer,
    Norm,
    Skip,
    TokenScan,
    scan_sizes,
)
from zoo.heads import Head
from zoo.networks import Extension, Network
from zoo.ops.padding import PadMode
from zoo.ops.scan import selective_scan
from zoo.registry import Capabilities
from zoo.scans import Raster


class MyRMS(Norm):
    def __init__(self, dim, *, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return x * self.weight / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()


class MyWeights(Merge):
    """One weight for each direction, which must know how many there are."""

    def __init__(self, dim, *, directions):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(directions))

    def forward(self, inputs):
        return torch.einsum("blke,k->ble", selective_scan(*inputs, reduce=False), self.weights)


class MyPlainScan(TokenScan, Mixer):
    """The scan core alone: no gate, no convolution, projections with biases."""

    def __init__(self, dim, *, scan=None, d_state: int = 4):
        super().__init__(scan_sizes(dim, expand=1, d_state=d_state), scan=scan or Raster())
        self.into, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.reset_parameters()

    def forward(self, x_BHWC):
        height, width = x_BHWC.shape[1:3]
        order = self.scan.order(height, width, x_BHWC.device)
        y = selective_scan(*self.scan_inputs(self.into(x_BHWC).flatten(1, 2), order), reduce=True)
        return self.out(y).unflatten(1, (height, width))


class MyGain(Block):
    def __init__(self, dim, *, scan=None, drop_path=0.0):
        super().__init__()
        self.gain = nn.Parameter(torch.full((dim,), 1.5))

    def forward(self, x_BHWC):
        return x_BHWC * self.gain


class MyMean(Downsampler):
    def __init__(self, dim, *, out):
        super().__init__()
        self.linear = nn.Linear(dim, out)

    def forward(self, x_BHWI):
        return self.linear(x_BHWI.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).mean((2, 4)))


class MyDifference(Skip):
    def __init__(self, dim):
        super().__init__()
        self.out = 3 * dim

    def forward(self, x_BHWC, skip_BHWC):
        return torch.cat([x_BHWC, skip_BHWC, x_BHWC - skip_BHWC], dim=-1)


class MyGray(Head):
    def __init__(self, dim, *, scale, channels):
        super().__init__()
        self.conv = Conv2d(dim, channels, 1)

    def forward(self, features_BHWC, image_BHWI):
        return self.conv(features_BHWC)


class MyGuide(GuidedBlock):
    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x_BHWC, guide_BHWC):
        return x_BHWC + self.linear(guide_BHWC)


class MyPadded(Network):
    """A network that pads as those of the package do; it needs even sides."""

    def __init__(self, *, dim: int, block: str, padding: PadMode = "replicate", pad_to: int = 1):
        super().__init__()
        self._set_sizes(scale=1, channels=3, out_channels=None)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.extension = Extension(padding, pad_to, needed=4)
        self.capabilities = Capabilities(size_multiple=self.extension.grid)

    def forward(self, image_BIHW):
        return self.extension.around(self.conv, image_BIHW)


def register_parts():
    """Register the parts of this module."""
    for kind, name, target in (
        ("norm", "my_rms", MyRMS),
        ("merge", "my_weights", MyWeights),
        ("mixer", "my_plain_scan", MyPlainScan),
        ("block", "my_gain", MyGain),
        ("downsampler", "my_mean", MyMean),
        ("skip", "my_difference", MyDifference),
        ("head", "my_gray", MyGray),
        ("guided_block", "my_guide", MyGuide),
        ("network", "my_padded", MyPadded),
    ):
        zoo.register(kind, name)(target)


def single(**changes):
    return {"network": {"type": "single_image", "dim": 16, "depths": [2], **changes}}
