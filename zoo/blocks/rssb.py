"""The residual state-space block of MambaIR.

Shape suffixes: B batch, H height, W width, C channels, E inner channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.blocks.channel_attention import CAB
from zoo.blocks.contract import BLOCKS, Block, BranchFactory, MixerFactory
from zoo.blocks.joined import (
    drops_nothing,
    factors,
    scaled_sum,
    scaled_sum_and_norm,
    tells_its_layers,
)
from zoo.blocks.layers import DropPath
from zoo.blocks.norm import LayerNorm, NormFactory
from zoo.blocks.prepared import Ending, Gained, Prepared
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
        self.prepared = Prepared()
        self.norm = norm(dim)
        self.mixer = mixer(dim, scan=scan)
        self.drop_path = DropPath(drop_path)
        self.skip_scale = nn.Parameter(torch.ones(dim)) if skip_scale else None
        self.branch = None
        if branch is not None:
            self.branch_norm = branch_norm(dim)
            self.branch = branch(dim)
            self.branch_scale = nn.Parameter(torch.ones(dim)) if skip_scale else None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was pickled, perhaps before blocks were prepared."""
        super().__setstate__({"prepared": Prepared(), **state})

    def forward(self, x_BHWC: Tensor) -> Tensor:
        mixer = self.mixer
        if isinstance(mixer, SS2D) and mixer.is_ordinary() and drops_nothing(self.drop_path):
            found = self.prepared.through(self, x_BHWC, mixer, self.norm, self._ending)
            if found is not None:
                return self._end(found)
            y_BHWE, gate_BHWE = mixer.begin(x_BHWC, self.norm)
            leaving = mixer.leave_stages(gate_BHWE)
            stages = None if leaving is None else self._last_stages(*leaving, x_BHWC)
            kept = None if stages is None else through_rows(y_BHWE, stages)
            if kept is not None:
                return self._end(kept)
            mixed_BHWC = mixer.leave(y_BHWE, gate_BHWE)
        else:
            mixed_BHWC = self.drop_path(mixer(self.norm(x_BHWC)))
        if self.branch is None:
            return scaled_sum(x_BHWC, self.skip_scale, mixed_BHWC)
        x_BHWC, normed_BHWC = scaled_sum_and_norm(
            x_BHWC, self.skip_scale, mixed_BHWC, self.branch_norm
        )
        return scaled_sum(x_BHWC, self.branch_scale, *factors(self.branch, normed_BHWC))

    def _ending(self, gated: NormStage, product: ProductStage, x_BHWC: Tensor) -> Ending | None:
        """How the block ends, as far as the library computes it."""
        stages = self._last_stages(gated, product, x_BHWC)
        if stages is None:
            return None
        branch = self.branch
        layers = None
        if tells_its_layers(branch) and self._branch_stages():
            layers = branch.gain_layers()
        if layers is None:
            return Ending(stages)
        reduce, expand = layers
        return Ending(stages, Gained(reduce, expand, self.branch_scale))

    def _last_stages(
        self, gated: NormStage, product: ProductStage, x_BHWC: Tensor
    ) -> list[Stage] | None:
        """The mixer's last stages and those that follow, as far as one pass computes them.

        They keep the output or, before a branch, the features and what the branch gets; if all
        layers before its gain are stages, what these give.
        """
        stages: list[Stage] = [gated, product._replace(skip=x_BHWC, scale=self.skip_scale, keep=0)]
        if self.branch is None:
            return stages
        norm = norm_stage(self.branch_norm)
        if norm is None:
            return None
        stages += [norm, *(self._branch_stages() or ())]
        stages[-1] = stages[-1]._replace(keep=0)
        return stages

    def _branch_stages(self) -> list[Stage] | None:
        """The layers before the gain of the branch, if it has one and all of them are stages."""
        return stages_of(self.branch.before_gain()) if tells_its_layers(self.branch) else None

    def _end(self, kept: Sequence[Tensor]) -> Tensor:
        """The output, from what has been kept on the way to it; it may be the output itself."""
        branch = self.branch
        if len(kept) == 1 or branch is None:
            return kept[0]
        x_BHWC, last_BHWC = kept
        if tells_its_layers(branch) and self._branch_stages():
            ends = branch.gained(last_BHWC)
        else:
            ends = factors(branch, last_BHWC)
        return scaled_sum(x_BHWC, self.branch_scale, *ends)
