"""The residual state-space block of MambaIR.

Shape suffixes: B batch, H height, W width, C channels, E inner channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.blocks.channel_attention import CAB
from zoo.blocks.contract import BLOCKS, Block, BranchFactory, MixerFactory
from zoo.blocks.joined import factors, has_factors, is_plain, scaled_sum, scaled_sum_and_norm
from zoo.blocks.layers import DropPath
from zoo.blocks.norm import LayerNorm, NormFactory
from zoo.blocks.row_stages import norm_stage, stages_of
from zoo.blocks.ss2d import SS2D
from zoo.ops.passes import NormStage, ProductStage, Stage, through_rows
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
        mixer, drops = self.mixer, self.drop_path
        drops_nothing = type(drops) is DropPath and is_plain(drops) and not drops.is_active()
        if isinstance(mixer, SS2D) and mixer.is_ordinary() and drops_nothing:
            y_BHWE, gate_BHWE = mixer.begin(x_BHWC, self.norm)
            leaving = mixer.leave_stages(gate_BHWE)
            left_BHWC = None if leaving is None else self._leave(x_BHWC, y_BHWE, *leaving)
            if left_BHWC is not None:
                return left_BHWC
            mixed_BHWC = mixer.leave(y_BHWE, gate_BHWE)
        else:
            mixed_BHWC = drops(mixer(self.norm(x_BHWC)))
        if self.branch is None:
            return scaled_sum(x_BHWC, self.skip_scale, mixed_BHWC)
        x_BHWC, normed_BHWC = scaled_sum_and_norm(
            x_BHWC, self.skip_scale, mixed_BHWC, self.branch_norm
        )
        return scaled_sum(x_BHWC, self.branch_scale, *factors(self.branch, normed_BHWC))

    def _leave(
        self, x_BHWC: Tensor, y_BHWE: Tensor, gated: NormStage, product: ProductStage
    ) -> Tensor | None:
        """The output, from scanned tokens and the mixer's last stages, where one pass does it."""
        stages: list[Stage] = [gated, product._replace(skip=x_BHWC, scale=self.skip_scale, keep=0)]
        if self.branch is None:
            found = through_rows(y_BHWE, stages)
            return None if found is None else found[0]
        norm = norm_stage(self.branch_norm)
        if norm is None:
            return None
        branch, layers = self.branch, None
        if has_factors(branch):
            layers = stages_of(branch.before_gain())
        stages += [norm, *(layers or ())]
        stages[-1] = stages[-1]._replace(keep=0)
        found = through_rows(y_BHWE, stages)
        if found is None:
            return None
        x_BHWC, last_BHWC = found
        if layers and has_factors(branch):
            ends = branch.gained(last_BHWC)
        else:
            ends = factors(branch, last_BHWC)
        return scaled_sum(x_BHWC, self.branch_scale, *ends)
