"""The coarse branch of a network: groups at half resolution and their fusion into the fine path.

Shape suffixes: B batch, H height, W width in pixels, h, w half of H, W, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from zoo.blocks.cross_scale_mixer import Compat
from zoo.blocks.group import (
    Blocks,
    GroupConv,
    ResidualGroup,
    Schedule,
    check_scans_are_taken,
    scans_of_groups,
)
from zoo.blocks.scale_fusion import CrossScaleFusion, ScaleFusionFactory
from zoo.networks.size import check_depths
from zoo.scans import Raster, ScanOrder


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """Settings of the coarse branch.

    Attributes:
        depths: number of blocks in each coarse group. Coarse group i is fused into the fine
            features after fine group i. Any further fine groups have no coarse group.
        scans: scan orders of the coarse groups: one list for all groups, or a list of such lists,
            one for each group.
        fusion: builds a fusion.
    """

    depths: tuple[int, ...]
    scans: Sequence[ScanOrder] | Sequence[Sequence[ScanOrder]] = (Raster(),)
    fusion: ScaleFusionFactory = CrossScaleFusion


class CoarseBranch(nn.Module):
    """Coarse groups in parallel to the first fine groups (MambaCSR, Sec. 3.1 and 3.4).

    Args:
        dim: channels C.
        settings: settings of the branch.
        blocks: the kinds of block of each fine group, used by the coarse group beside it.
        conv: kind of the convolution that ends a group, "1conv" or "3conv".
        patch_norm: whether to normalise the features before the first group.
        drop_paths: for each fine group, the drop-path rates of its blocks. The coarse group beside
            it uses the same rates; if it has more blocks, the further ones use the last rate.
        compat: passed to the fusions: "official" reproduces the errors in the authors' code.

    Attributes:
        size_multiple: height and width of the fine grid must be multiples of this, in pixels.

    Raises:
        ValueError: if there are more coarse than fine groups, or a group has no blocks.
    """

    def __init__(
        self,
        dim: int,
        *,
        settings: Coarse,
        blocks: Sequence[Blocks],
        conv: GroupConv,
        patch_norm: bool,
        drop_paths: Sequence[Sequence[float]],
        compat: Compat | None,
    ) -> None:
        super().__init__()
        depths = settings.depths
        if not depths or min(depths) < 1:
            raise ValueError(
                f"coarse.depths is {list(depths)}; give at least one group with at least one block"
            )
        check_depths(depths, "coarse.depths")
        if len(depths) > len(drop_paths):
            raise ValueError(
                f"coarse.depths has {len(depths)} groups, but the network has only "
                f"{len(drop_paths)}; each coarse group needs a fine group"
            )
        schedules: list[Schedule] = scans_of_groups(settings.scans, len(depths), "coarse.scans")
        self.norm = nn.LayerNorm(dim) if patch_norm else nn.Identity()
        groups = [
            ResidualGroup(
                dim,
                block=block,
                scans=scans,
                drop_paths=[rates[min(index, len(rates) - 1)] for index in range(depth)],
                conv=conv,
            )
            for depth, block, scans, rates in zip(
                depths, blocks, schedules, drop_paths, strict=False
            )
        ]
        self.groups = nn.ModuleList(groups)
        check_scans_are_taken(settings.scans, [group.blocks for group in groups], "coarse.scans")
        fusions = [settings.fusion(dim, compat=compat) for _ in depths]
        self.fusions = nn.ModuleList(fusions)
        self.size_multiple = math.lcm(*(fusion.size_multiple for fusion in fusions))

    def __len__(self) -> int:
        return len(self.groups)

    def start(self, shallow_BHWC: Tensor) -> Tensor:
        """Compute the first coarse features: 2x2 means of the shallow features, (B, h, w, C)."""
        pairs_BhHwWC = shallow_BHWC.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        return self.norm(pairs_BhHwWC.mean((2, 4)))

    def step(self, index: int, fine_BHWC: Tensor, coarse_BhwC: Tensor) -> tuple[Tensor, Tensor]:
        """Run coarse group ``index`` and fuse it; return the new fine and coarse features."""
        coarse_BhwC = self.groups[index](coarse_BhwC)
        return self.fusions[index](fine_BHWC, coarse_BhwC), coarse_BhwC
