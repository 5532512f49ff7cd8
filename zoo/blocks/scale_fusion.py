"""Fusion of coarse features into fine ones: the contract, and MambaCSR's fusion.

Shape suffixes: B batch, H height, W width of the fine grid, h, w of the coarse grid (half of H, W),
C channels, E inner channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.channel_attention import MLP
from zoo.blocks.cross_scale_mixer import Compat, CrossScaleMixer
from zoo.blocks.joined import first_outputs
from zoo.blocks.layers import Conv2d
from zoo.blocks.scan_core import scan_sizes
from zoo.registry import Registry
from zoo.scans import CrossScale, ScanOrder

ALIGNED = CrossScale(size=16)
"""The scan order of the published network."""


class ScaleFusion(nn.Module):
    """Fuses coarse features into fine ones, ``(fine_BHWC, coarse_BhwC) -> (B, H, W, C)``.

    Built as ``fusion(dim, compat=)``. ``dim`` is C; the coarse grid is half the size of the fine
    grid.

    Attributes:
        size_multiple: height and width of the fine grid must be multiples of this.
    """

    size_multiple: int = 2

    def forward(self, fine_BHWC: Tensor, coarse_BhwC: Tensor) -> Tensor:
        raise NotImplementedError


ScaleFusionFactory: TypeAlias = Callable[..., ScaleFusion]

SCALE_FUSIONS = Registry("scale_fusion", ScaleFusion, supplied=("dim", "compat"))


@SCALE_FUSIONS.register("cross_scale")
class CrossScaleFusion(ScaleFusion):
    """Selective scan over coarse and fine tokens; returns the fine ones (MambaCSR, Sec. 3.4)::

        x = skip_scale * x + mixer(norm(x), coarse)
        x = mlp_scale * x + mlp(mlp_norm(x))

    Each scale has its own input projection and depthwise convolution. Both share the scan's
    parameters. The coarse features are not normalised.

    Args:
        dim: channels C.
        compat: "official" maps the column-first directions back as the authors' code does, which
            is wrong unless the grid of windows is square (:mod:`zoo.scans.official`).
        scan: the scan order over both grids.
        expand: inner channels E as a multiple of C, rounded down to an integer.
        d_state: number of states N of each inner channel.
        d_conv: kernel size of the depthwise convolutions in pixels, odd.
        mlp_ratio: hidden channels of the MLP as a multiple of C, rounded down to an integer.
    """

    def __init__(
        self,
        dim: int,
        *,
        compat: Compat | None = None,
        scan: ScanOrder = ALIGNED,
        expand: float = 2.0,
        d_state: int = 16,
        d_conv: int = 3,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if not isinstance(scan, CrossScale):
            raise ValueError(
                f"scan {type(scan).__name__} scans one grid; "
                "a fusion of two scales needs the scan order cross_scale"
            )
        self.scan = scan
        self.size_multiple = scan.size
        self.norm = nn.LayerNorm(dim)
        sizes = scan_sizes(dim, expand=expand, d_state=d_state)
        self.mixer = CrossScaleMixer(dim, sizes=sizes, scan=scan, d_conv=d_conv, compat=compat)
        inner = sizes.inner
        # The authors' projection also computes a gate for the coarse tokens, which is never used:
        # the second half of these rows never learns. We keep it, so that weights convert to their
        # format and back unchanged.
        self.coarse_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.coarse_conv = Conv2d(inner, inner, d_conv, padding=d_conv // 2, groups=inner)
        self.skip_scale = nn.Parameter(torch.ones(dim))
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, ratio=mlp_ratio)
        self.mlp_scale = nn.Parameter(torch.ones(dim))

    def forward(self, fine_BHWC: Tensor, coarse_BhwC: Tensor) -> Tensor:
        inner = self.coarse_conv.in_channels
        coarse_BhwE = first_outputs(self.coarse_proj, coarse_BhwC, inner)
        coarse_BhwE = F.silu(self.coarse_conv(coarse_BhwE))
        mixed_BHWC = self.mixer(self.norm(fine_BHWC), coarse_BhwE)
        x_BHWC = fine_BHWC * self.skip_scale + mixed_BHWC
        return x_BHWC * self.mlp_scale + self.mlp(self.mlp_norm(x_BHWC))
