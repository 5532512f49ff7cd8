"""How a network of groups sees guides: a fusion before the blocks of each group.

Shape suffixes: B batch, H height, W width of the features, C channels of a group, I channels of a
guide, J those of all guides once their pixels are moved to channels, s scale of a guide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.blocks.guided import GuidedBlockFactory, HighFrequencyBlock
from zoo.blocks.layers import Conv2d
from zoo.blocks.levels import DownsamplerFactory
from zoo.networks.guide import Guide


class Guidance(nn.Module):
    """Features of the guides, and the fusion of each group with them::

        guide = join(concat(guides, pixels of larger ones moved to channels))
        x = fusions[i](x, guide)                                      at the start of group i
        guide = downs[i](guide)                                       between levels of a U-Net

    Args:
        guides: the guides, by name.
        widths: channels C of the groups.
        guided: builds a fusion.
        down: builds a downsampler between two levels; None if all groups have the same size.
    """

    def __init__(
        self,
        guides: Mapping[str, Guide],
        widths: Sequence[int],
        *,
        guided: GuidedBlockFactory,
        down: DownsamplerFactory | None = None,
    ) -> None:
        super().__init__()
        self.scales = tuple(guide.scale for guide in guides.values())
        channels = sum(guide.channels * guide.scale**2 for guide in guides.values())
        self.join = Conv2d(channels, widths[0], 3, padding=1)
        levels = range(0 if down is None else len(widths) - 1)
        self.downs = nn.ModuleList(down(widths[i], out=widths[i + 1]) for i in levels if down)
        self.fusions = nn.ModuleList(guided(width) for width in widths)

    def start(self, guides: Sequence[Tensor]) -> Tensor:
        """Return the features (B, H, W, C) of guides (B, I, s*H, s*W) for the first group."""
        moved = [
            rearrange(guide, "b i (h p) (w q) -> b h w (i p q)", p=scale, q=scale)
            for guide, scale in zip(guides, self.scales, strict=True)
        ]
        x_BHWJ = torch.cat(moved, dim=-1).contiguous()
        return self.join(x_BHWJ)

    def fuse(self, index: int, x_BHWC: Tensor, guide_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of a group fused with those of the guides, and these for the next."""
        fused_BHWC = self.fusions[index](x_BHWC, guide_BHWC)
        if index < len(self.downs):
            guide_BHWC = self.downs[index](guide_BHWC)
        return fused_BHWC, guide_BHWC


def guidance(
    guides: Mapping[str, Guide],
    widths: Sequence[int],
    guided: GuidedBlockFactory | None,
    down: DownsamplerFactory | None = None,
) -> Guidance | None:
    """Build the guidance of a network from its options; None if it takes no guides.

    Args:
        guides: the guides, by name.
        widths: channels C of the groups.
        guided: builds a fusion; None for :class:`HighFrequencyBlock`.
        down: builds a downsampler between two levels; None if all groups have the same size.

    Raises:
        ValueError: if there is a fusion, but nothing to fuse.
    """
    if guides:
        return Guidance(guides, widths, guided=guided or HighFrequencyBlock, down=down)
    if guided is not None:
        raise ValueError(
            "guided has no effect without guides; name them, as in "
            "guides: {pan: {channels: 1, scale: 4}}, or leave guided out"
        )
    return None


__all__ = ["Guidance", "guidance"]
