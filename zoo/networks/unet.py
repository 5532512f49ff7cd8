"""A U-Net with four levels of blocks: MambaIR's network for real-image denoising.

Shape suffixes: B batch, H height, W width, C feature channels of a level, I image channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.blocks.contract import BlockFactory
from zoo.blocks.group import build_blocks
from zoo.blocks.layers import Conv2d
from zoo.blocks.rssb import RSSB
from zoo.heads import PixelShuffle
from zoo.networks.contract import NETWORKS, Network
from zoo.networks.size import check_depths
from zoo.ops.padding import crop, margin_to_grid, pad
from zoo.registry import Capabilities
from zoo.scans import Raster, ScanOrder

GRID = 8
"""The network pads images to multiples of this, in pixels, because it halves the size 3 times."""


class Level(nn.Sequential):
    """The blocks of one level, in a row."""


class Down(nn.Module):
    """Halves the size and doubles the channels: convolution to C/2, then pixel unshuffle."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = Conv2d(dim, dim // 2, 3, padding=1, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        # The channel order is (c, row, column): the inverse of pixel shuffle.
        return rearrange(
            self.conv(x_BHWC), "b (h i) (w j) c -> b h w (c i j)", i=2, j=2
        ).contiguous()


class Up(nn.Module):
    """Doubles the size and halves the channels: convolution to 2C, then pixel shuffle."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = Conv2d(dim, 2 * dim, 3, padding=1, bias=False)
        self.shuffle = PixelShuffle(2)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.shuffle(self.conv(x_BHWC)).contiguous()


@NETWORKS.register("unet", capabilities=Capabilities(size_multiple=GRID))
class UNet(Network):
    """Encoder, decoder with skips, refinement, and a skip from the input (MambaIR, real denoising).

    The network pads the image to multiples of 8 by repeating its last row and column, and crops
    the output.

    Args:
        channels: image channels I.
        dim: feature channels of the first level, even; each level below doubles them.
        depths: number of blocks in the three encoder levels and in the lowest level. The decoder
            levels have as many blocks as the encoder levels.
        refinement: number of blocks after the decoder.
        block: builds a block.
        scans: scan orders; the blocks of a level use them cyclically.
        drop_path: drop-path rate of every block.
    """

    scale = 1

    def __init__(
        self,
        *,
        channels: int = 3,
        dim: int = 48,
        depths: Sequence[int] = (4, 6, 6, 8),
        refinement: int = 4,
        block: BlockFactory = RSSB,
        scans: Sequence[ScanOrder] = (Raster(),),
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if len(depths) != 4 or min(depths) < 1 or refinement < 0:
            raise ValueError(
                f"depths is {list(depths)} and refinement is {refinement}; give four levels of at "
                "least one block each, and a refinement of at least 0"
            )
        check_depths([*depths, refinement])
        if channels < 1:
            raise ValueError(f"channels is {channels}; it must be at least 1")
        if dim < 2 or dim % 2:
            raise ValueError(f"dim is {dim}; it must be even, because a level halves it")
        self.channels = channels

        def level(width: int, depth: int) -> Level:
            rates = [drop_path] * depth
            return Level(*build_blocks(width, block=block, scans=scans, drop_paths=rates))

        widths = [dim, 2 * dim, 4 * dim, 8 * dim]
        self.shallow = Conv2d(channels, dim, 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(
            level(width, depth) for width, depth in zip(widths[:3], depths[:3], strict=True)
        )
        self.downs = nn.ModuleList(Down(width) for width in widths[:3])
        self.latent = level(widths[3], depths[3])
        # From the lowest level up. The top decoder does not reduce the channels after its skip.
        self.ups = nn.ModuleList(Up(width) for width in reversed(widths[1:]))
        self.reduces = nn.ModuleList(
            [
                Conv2d(2 * widths[2], widths[2], 1, bias=False),
                Conv2d(2 * widths[1], widths[1], 1, bias=False),
                nn.Identity(),
            ]
        )
        self.decoders = nn.ModuleList(
            [
                level(widths[2], depths[2]),
                level(widths[1], depths[1]),
                level(2 * dim, depths[0]),
            ]
        )
        self.refinement = level(2 * dim, refinement)
        self.output = Conv2d(2 * dim, channels, 3, padding=1, bias=False)

    def forward(self, image_BIHW: Tensor) -> Tensor:
        self.check_image(image_BIHW)
        margin = margin_to_grid(image_BIHW, GRID)
        image_BHWI = pad(image_BIHW, margin).permute(0, 2, 3, 1).contiguous()
        output_BIHW = self._restore(image_BHWI).permute(0, 3, 1, 2)
        return crop(output_BIHW, margin).contiguous()

    def _restore(self, image_BHWI: Tensor) -> Tensor:
        x_BHWC = self.shallow(image_BHWI)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x_BHWC = encoder(x_BHWC)
            skips.append(x_BHWC)
            x_BHWC = down(x_BHWC)
        x_BHWC = self.latent(x_BHWC)
        for up, reduce, decoder in zip(self.ups, self.reduces, self.decoders, strict=True):
            x_BHWC = reduce(torch.cat([up(x_BHWC), skips.pop()], dim=-1))
            x_BHWC = decoder(x_BHWC)
        return self.output(self.refinement(x_BHWC)) + image_BHWI
