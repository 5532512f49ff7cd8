"""The residual state-space block of MambaIR.

Shape suffixes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.blocks.channel_attention import CAB
from zoo.blocks.contract import BLOCKS, Block, BranchFactory, MixerFactory
from zoo.blocks.joined import factors, scaled_sum, scaled_sum_and_norm
from zoo.blocks.layers import DropPath
from zoo.blocks.norm import LayerNorm, NormFactory
from zoo.blocks.ss2d import SS2D
from zoo.scans import ScanOrder


@BLOCKS.register("rssb")
class RSSB(Block):
    """A mixer, then a local branch, each with a norm and a scaled skip (MambaIR, Sec. 3.3)::

        x = skip_scale  * x + drop_path(mixer(norm(x)))
        x = branch_scale * x + branch(branch_norm(x))

    Args:
        dim: channels C.
        scan: the mixer's scan order.
        drop_path: rate at which the mixer is dropped in training, in [0, 1).
        mixer: builds the token mixer.
        branch: builds the local branch; None omits the second line (MambaIR, Table 1, row 2).
        norm: builds the norm before the mixer.
        branch_norm: builds the norm before the branch.
        skip_scale: whether the skips are scaled; with False, both factors are 1.
    """

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        drop_path: float = 0.0,
        mixer: MixerFactory = SS2D,
        branch: BranchFactory | None = CAB,
        norm: NormFactory = LayerNorm,
        branch_norm: NormFactory = LayerNorm,
        skip_scale: bool = True,
    ) -> None:
        super().__init__()
        self.norm = norm(dim)
        self.mixer = mixer(dim, scan=scan)
        self.drop_path = DropPath(drop_path)
        self.skip_scale = nn.Parameter(torch.ones(dim)) if skip_scale else None
        self.branch = None
        if branch is not None:
            self.branch_norm = branch_norm(dim)
            self.branch = branch(dim)
            self.branch_scale = nn.Parameter(torch.ones(dim)) if skip_scale else None

    def forward(self, x_BHWC: Tensor) -> Tensor:
        mixed_BHWC = self.drop_path(self.mixer(self.norm(x_BHWC)))
        if self.branch is None:
            return scaled_sum(x_BHWC, self.skip_scale, mixed_BHWC)
        x_BHWC, normed_BHWC = scaled_sum_and_norm(
            x_BHWC, self.skip_scale, mixed_BHWC, self.branch_norm
        )
        return scaled_sum(x_BHWC, self.branch_scale, *factors(self.branch, normed_BHWC))
