"""A network on wavelet bands: the skeleton of Wave-Mamba.

Shape suffixes: B batch, H height, W width of the image, h, w of a level, C feature channels,
I image channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.blocks.group import (
    Blocks,
    blocks_of_groups,
    build_blocks,
    check_scans_are_taken,
)
from zoo.blocks.guided import GuidedBlockFactory, HighFrequencyBlock
from zoo.blocks.layers import Conv2d
from zoo.blocks.rssb import RSSB
from zoo.networks.contract import NETWORKS, Network
from zoo.networks.extension import Extension
from zoo.networks.size import check_depths, check_levels
from zoo.ops.haar import Bands, haar, inverse_haar
from zoo.ops.padding import PadMode
from zoo.registry import Capabilities
from zoo.scans import Raster, ScanOrder


class BandSelect(nn.Module):
    """Weighted sum of three bands, by weights for each channel ("SKFF", MIRNet)::

        z = reduce(mean over pixels of the bands' sum)
        weights = softmax over the bands of fcs(z)

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(dim // 8, 4)
        self.reduce = nn.Sequential(Conv2d(dim, hidden, 1, bias=False), nn.PReLU())
        self.fcs = nn.ModuleList(Conv2d(hidden, dim, 1, bias=False) for _ in range(3))

    def forward(self, bands: Sequence[Tensor]) -> Tensor:
        together = torch.stack(list(bands))
        hidden = self.reduce(together.sum(0).mean((1, 2), keepdim=True))
        weights = torch.stack([fc(hidden) for fc in self.fcs]).softmax(0)
        return (together * weights).sum(0)


class BandLevel(nn.Module):
    """The blocks of one level: those of the low band, and those of the high bands.

    Args:
        low: blocks of the low band.
        high: blocks of the high bands; their guide is the low band.
    """

    def __init__(self, low: nn.ModuleList, high: nn.ModuleList) -> None:
        super().__init__()
        self.low, self.high = low, high

    def restore(self, low_BhwC: Tensor, high_BhwC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored low band and the restored high bands."""
        for block in self.low:
            low_BhwC = block(low_BhwC)
        for guided in self.high:
            high_BhwC = guided(high_BhwC, low_BhwC)
        return low_BhwC, high_BhwC


class DownLevel(BandLevel):
    """Splits features into bands and restores them; the image joins the low band.

    Args:
        dim: channels C.
        low: blocks of the low band.
        high: blocks of the high bands.
        image: channels of the image, once its pixels are moved to channels.
    """

    def __init__(self, dim: int, low: nn.ModuleList, high: nn.ModuleList, *, image: int) -> None:
        super().__init__(low, high)
        self.image = Conv2d(image, dim, 1)
        self.join = Conv2d(2 * dim, dim, 3, padding=1)
        self.select = BandSelect(dim)

    def forward(self, x_BHWC: Tensor, image_BhwI: Tensor) -> tuple[Tensor, Tensor]:
        bands = haar(x_BHWC)
        low_BhwC = self.join(torch.cat([bands.low, self.image(image_BhwI)], dim=-1))
        return self.restore(low_BhwC, self.select(bands[1:]))


class UpLevel(BandLevel):
    """Restores bands and joins them.

    Args:
        dim: channels C.
        low: blocks of the low band.
        high: blocks of the high bands.
    """

    def __init__(self, dim: int, low: nn.ModuleList, high: nn.ModuleList) -> None:
        super().__init__(low, high)
        self.spread = Conv2d(dim, 3 * dim, 3, padding=1)

    def forward(self, low_BhwC: Tensor, high_BhwC: Tensor) -> Tensor:
        low_BhwC, high_BhwC = self.restore(low_BhwC, high_BhwC)
        return inverse_haar(Bands(low_BhwC, *self.spread(high_BhwC).chunk(3, dim=-1)))


@NETWORKS.register("wavelet", capabilities=Capabilities(size_multiple=8))
class Wavelet(Network):
    """Levels of Haar bands: blocks restore the low band, guided blocks the high ones (Wave-Mamba).

    Going down, each level splits its low band again, and the image joins in at each level. Going
    up, the same number of blocks restores both parts before they are joined. The result is added to
    the image.

    The network pads the image at the bottom and on the right to multiples of 2^levels, and crops
    the output. Its scans, means and matches see the whole image, so another padding gives another
    image.

    Args:
        channels: image channels I.
        dim: feature channels C, the same in all levels.
        depths: number of blocks of the low band in each level, from the top.
        high_depths: number of guided blocks of the high bands in each level.
        block: builds a block of the low band. Or a list of builders, used cyclically.
        guided: builds a block of the high bands.
        scans: scan orders; the blocks of a level use them cyclically.
        drop_path: drop-path rate of every block of the low band.
        padding: how the image is padded; see :func:`zoo.ops.padding.pad`.
        pad_to: the image is padded to multiples of this, too, in pixels, at most 256.
        extra_grid: whether a side that is already a multiple is padded by as much once more, as in
            the authors' inference, which pads to multiples of 128.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        dim: int = 32,
        depths: Sequence[int] = (1, 2, 4),
        high_depths: Sequence[int] = (1, 1, 2),
        block: Blocks = RSSB,
        guided: GuidedBlockFactory = HighFrequencyBlock,
        scans: Sequence[ScanOrder] = (Raster(),),
        drop_path: float = 0.0,
        padding: PadMode = "reflect",
        pad_to: int = 1,
        extra_grid: bool = False,
    ) -> None:
        super().__init__()
        self._set_sizes(scale=1, channels=channels, out_channels=None)
        if dim < 1:
            raise ValueError(f"dim is {dim}; it must be at least 1")
        if not depths or len(depths) != len(high_depths) or min(*depths, *high_depths) < 1:
            raise ValueError(
                f"depths is {list(depths)} and high_depths is {list(high_depths)}; give both one "
                "number of at least 1 for each level"
            )
        check_levels(depths)
        check_depths([*depths, *high_depths])

        kinds = blocks_of_groups(block, depths)

        def parts(level: int) -> tuple[nn.ModuleList, nn.ModuleList]:
            rates = [drop_path] * depths[level]
            low = build_blocks(dim, block=kinds[level], scans=scans, drop_paths=rates)
            return low, nn.ModuleList(guided(dim) for _ in range(high_depths[level]))

        levels = range(len(depths))
        self.shallow = Conv2d(channels, dim, 3, padding=1)
        self.downs = nn.ModuleList(
            DownLevel(dim, *parts(level), image=channels * 4 ** (level + 1)) for level in levels
        )
        self.ups = nn.ModuleList(UpLevel(dim, *parts(level)) for level in reversed(levels))
        check_scans_are_taken(scans, [level.low for level in (*self.downs, *self.ups)])
        self.last = Conv2d(dim, channels, 3, padding=1)
        self.extension = Extension(padding, pad_to, needed=2 ** len(depths), extra=extra_grid)
        self.capabilities = Capabilities(size_multiple=self.extension.grid)

    def forward(self, image_BIHW: Tensor) -> Tensor:
        self.check_image(image_BIHW)
        return self.extension.around(self._restore, image_BIHW).contiguous()

    def _restore(self, image_BIHW: Tensor) -> Tensor:
        image_BHWI = image_BIHW.permute(0, 2, 3, 1).contiguous()
        low = self.shallow(image_BHWI)
        highs = []
        for level, down in enumerate(self.downs):
            side = 2 ** (level + 1)
            image_BhwI = rearrange(
                image_BHWI, "b (h i) (w j) c -> b h w (c i j)", i=side, j=side
            ).contiguous()
            low, high = down(low, image_BhwI)
            highs.append(high)
        for up in self.ups:
            low = up(low, highs.pop())
        return (self.last(low) + image_BHWI).permute(0, 3, 1, 2)
