"""The residual local Mamba block of MambaCSR.

Shape suffixes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.blocks.channel_attention import CAB, MLP
from zoo.blocks.contract import BLOCKS, Block, BranchFactory, MixerFactory
from zoo.blocks.joined import drops_nothing, factors, is_plain, scaled_sum
from zoo.blocks.layers import DropPath
from zoo.blocks.row_stages import stages_of
from zoo.blocks.ss2d import SS2D
from zoo.ops.passes import ProductStage, through_rows
from zoo.scans import ScanOrder


@BLOCKS.register("rlmb")
class RLMB(Block):
    """A mixer and a small local branch in parallel, then an MLP (MambaCSR, Sec. 3.5, Eq. 10)::

        n = norm(x)
        x = skip_scale * x + drop_path(mixer(n)) + branch_factor * branch(n)
        x = mlp_scale * x + drop_path(mlp(mlp_norm(x)))

    The published network uses the ``gated`` merge in the mixer and divides the branch's channels by
    24; its recipes set both. The factor on the branch is in the authors' code, not in the paper.

    Args:
        dim: channels C.
        scan: the mixer's scan order.
        drop_path: rate at which the mixer and the MLP are dropped in training, in [0, 1).
        mixer: builds the token mixer.
        branch: builds the local branch; None leaves it out (MambaCSR, Table 4).
        branch_factor: constant factor on the branch, from -1000 to 1000.
        mlp_ratio: hidden channels of the MLP as a multiple of C, rounded down to an integer.
    """

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        drop_path: float = 0.0,
        mixer: MixerFactory = SS2D,
        branch: BranchFactory | None = CAB,
        branch_factor: float = 0.01,
        mlp_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        if not abs(branch_factor) <= 1000:
            raise ValueError(f"branch_factor is {branch_factor:g}; it must be from -1000 to 1000")
        self.norm = nn.LayerNorm(dim)
        self.mixer = mixer(dim, scan=scan)
        self.branch = None if branch is None else branch(dim)
        self.branch_factor = branch_factor
        self.drop_path = DropPath(drop_path)
        self.skip_scale = nn.Parameter(torch.ones(dim))
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, ratio=mlp_ratio)
        self.mlp_scale = nn.Parameter(torch.ones(dim))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        normed_BHWC = self.norm(x_BHWC)
        mixed_BHWC = self.drop_path(self.mixer(normed_BHWC))
        x_BHWC = scaled_sum(x_BHWC, self.skip_scale, mixed_BHWC)
        if self.branch is not None:
            features_BHWC, gain_B11C = factors(self.branch, normed_BHWC)
            if gain_B11C is None:
                x_BHWC = x_BHWC + self.branch_factor * features_BHWC
            else:
                x_BHWC = scaled_sum(x_BHWC, None, features_BHWC, self.branch_factor * gain_B11C)
        return self._through_mlp(x_BHWC)

    def _through_mlp(self, x_BHWC: Tensor) -> Tensor:
        """The second line of the block, in one pass over rows where that runs."""
        if drops_nothing(self.drop_path) and type(self.mlp) is MLP and is_plain(self.mlp):
            stages = stages_of([self.mlp_norm, *self.mlp.layers()])
            last = None if stages is None else stages[-1]
            if stages is not None and isinstance(last, ProductStage):
                stages[-1] = last._replace(skip=x_BHWC, scale=self.mlp_scale, keep=0)
                found = through_rows(x_BHWC, stages)
                if found is not None:
                    return found[0]
        changed_BHWC = self.drop_path(self.mlp(self.mlp_norm(x_BHWC)))
        return scaled_sum(x_BHWC, self.mlp_scale, changed_BHWC)
