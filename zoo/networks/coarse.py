"""The coarse branch of a network: groups at half resolution and their fusion into the fine path.

Shape suffixes: B batch, H height, W width in pixels, h, w half of them, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from zoo.blocks.contract import BlockFactory
from zoo.blocks.cross_scale_mixer import Compat
from zoo.blocks.group import GroupConv, ResidualGroup, Schedule, scans_of_groups
from zoo.blocks.scale_fusion import CrossScaleFusion, ScaleFusionFactory
from zoo.scans import Raster, ScanOrder


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """Settings of the coarse branch.

    Attributes:
        depths: blocks in each coarse group. The first coarse group is fused into the fine features
            after the first fine group, and so on; fine groups beyond them stand alone.
        scans: scan orders of the coarse groups, as for the network.
        fusion: makes a fusion.
    """

    depths: tuple[int, ...]
    scans: Sequence[ScanOrder] | Sequence[Sequence[ScanOrder]] = (Raster(),)
    fusion: ScaleFusionFactory = CrossScaleFusion


class CoarseBranch(nn.Module):
    """Coarse features, one step beside each of the first fine groups (MambaCSR, Sec. 3.1 and 3.4).

    Args:
        dim: channels C.
        settings: what to build.
        block: makes a block of a coarse group.
        conv: the convolution that ends a group.
        patch_norm: normalise the features before the first group.
        drop_paths: for each fine group, the rates of its blocks; a coarse group takes over those of
            the fine group beside it, and the last one where it is deeper.
        compat: handed to the fusions.

    Attributes:
        size_multiple: height and width of the fine grid must be multiples of this, in pixels.

    Raises:
        ValueError: for more coarse groups than fine ones, or an empty group.
    """

    def __init__(
        self,
        dim: int,
        *,
        settings: Coarse,
        block: BlockFactory,
        conv: GroupConv,
        patch_norm: bool,
        drop_paths: Sequence[Sequence[float]],
        compat: Compat | None,
    ) -> None:
        super().__init__()
        depths = settings.depths
        if not depths or min(depths) < 1:
            raise ValueError(
                f"coarse.depths is {list(depths)}; name at least one group of one block"
            )
        if len(depths) > len(drop_paths):
            raise ValueError(
                f"coarse.depths names {len(depths)} groups, but the network has "
                f"{len(drop_paths)}; each coarse group stands beside a fine one"
            )
        schedules: list[Schedule] = scans_of_groups(settings.scans, len(depths), "coarse.scans")
        self.norm = nn.LayerNorm(dim) if patch_norm else nn.Identity()
        self.groups = nn.ModuleList(
            ResidualGroup(
                dim,
                block=block,
                scans=scans,
                drop_paths=[rates[min(index, len(rates) - 1)] for index in range(depth)],
                conv=conv,
            )
            for depth, scans, rates in zip(depths, schedules, drop_paths, strict=False)
        )
        fusions = [settings.fusion(dim, compat=compat) for _ in depths]
        self.fusions = nn.ModuleList(fusions)
        self.size_multiple = math.lcm(*(fusion.size_multiple for fusion in fusions))

    def __len__(self) -> int:
        return len(self.groups)

    def start(self, shallow_BHWC: Tensor) -> Tensor:
        """The first coarse features: means of 2x2 shallow ones, ``(B, h, w, C)``."""
        pairs_BhHwWC = shallow_BHWC.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        return self.norm(pairs_BhHwWC.mean((2, 4)))

    def step(self, index: int, fine_BHWC: Tensor, coarse_BhwC: Tensor) -> tuple[Tensor, Tensor]:
        """Run a coarse group and fuse it: the new fine and coarse features."""
        coarse_BhwC = self.groups[index](coarse_BhwC)
        return self.fusions[index](fine_BHWC, coarse_BhwC), coarse_BhwC
