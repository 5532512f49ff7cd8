"""A U-Net of levels of blocks: the skeleton of MambaIR's network for real-image denoising.

Shape suffixes: B batch, H height, W width, C feature channels of a level, I image channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from zoo.blocks.group import (
    Blocks,
    BlocksOfGroups,
    Schedule,
    blocks_of_groups,
    build_blocks,
    check_scans_are_taken,
    scans_of_groups,
)
from zoo.blocks.guided import GuidedBlockFactory
from zoo.blocks.layers import Conv2d
from zoo.blocks.levels import (
    ConcatConvSkip,
    ConcatSkip,
    DownsamplerFactory,
    Skip,
    SkipFactory,
    UnshuffleDown,
)
from zoo.blocks.rssb import RSSB
from zoo.heads import ConvHead, ConvShuffleUp, Enlarge, HeadFactory, UpsamplerFactory
from zoo.networks.contract import NETWORKS, Network
from zoo.networks.extension import Extension
from zoo.networks.guidance import guidance
from zoo.networks.guide import NO_GUIDES, Guide, with_sizes
from zoo.networks.size import check_depths, check_levels
from zoo.ops.padding import PadMode
from zoo.registry import Capabilities
from zoo.scans import Raster, ScanOrder


class Level(nn.Sequential):
    """The blocks of one level, in a row."""


@NETWORKS.register("unet", capabilities=Capabilities(size_multiple=8))
class UNet(Network):
    """Encoder, decoder with skips, refinement, and a skip from the input (MambaIR, real denoising).

    There are as many levels as depths, from one up. The network pads the image at the bottom and on
    the right to multiples of 2^(levels - 1), and crops the output.

    Args:
        scale: output over input size; the head must reach it.
        channels: image channels I.
        out_channels: channels of the output image; None for those of the input.
        dim: feature channels of the first level; each level below doubles them. Or a list, one for
            each level.
        depths: number of blocks in each encoder level, from the top, and in the lowest level.
        decoder_depths: number of blocks in each decoder level, from the top; None for as many as
            in the encoder.
        refinement: number of blocks after the decoder; they are those of the first level.
        block: builds a block. Or a list of builders, which the blocks of a level use cyclically; or
            a list of such lists, one for each level.
        scans: scan orders; the blocks of a level use them cyclically. Or a list of such lists, one
            for each level.
        drop_path: drop-path rate of every block.
        down: builds a downsampler between two levels.
        up: builds an upsampler between two levels.
        skip: builds the skip of a decoder level, except that of the top.
        top_skip: builds the skip of the top decoder level.
        head: builds the head.
        residual: whether the input image, enlarged by repeating pixels, is added to the output.
        padding: how the image is padded; see :func:`zoo.ops.padding.pad`.
        pad_to: the image is padded to multiples of this, too, in pixels, at most 256.
        guides: images that the network sees beside the one that it restores, by name.
        guided: builds a fusion of features and guides, which each level of the encoder and the
            lowest one begin with; None for ``hfe``. ``down`` shrinks the features of the guides.
    """

    def __init__(
        self,
        *,
        scale: int = 1,
        channels: int = 3,
        out_channels: int | None = None,
        dim: int | Sequence[int] = 48,
        depths: Sequence[int] = (4, 6, 6, 8),
        decoder_depths: Sequence[int] | None = None,
        refinement: int = 4,
        block: BlocksOfGroups = RSSB,
        scans: Sequence[ScanOrder] | Sequence[Sequence[ScanOrder]] = (Raster(),),
        drop_path: float = 0.0,
        down: DownsamplerFactory = UnshuffleDown,
        up: UpsamplerFactory = ConvShuffleUp,
        skip: SkipFactory = ConcatConvSkip,
        top_skip: SkipFactory = ConcatSkip,
        head: HeadFactory = ConvHead,
        residual: bool = True,
        padding: PadMode = "replicate",
        pad_to: int = 1,
        guides: Mapping[str, Guide] = NO_GUIDES,
        guided: GuidedBlockFactory | None = None,
    ) -> None:
        super().__init__()
        self._set_sizes(scale=scale, channels=channels, out_channels=out_channels, guides=guides)
        if residual and self.out_channels != channels:
            raise ValueError(
                f"channels is {channels} and out_channels is {self.out_channels}, so the input "
                "cannot be added to the output; set residual to false"
            )
        decoder_depths = depths[:-1] if decoder_depths is None else decoder_depths
        _check_depths(depths, decoder_depths, refinement)
        widths = _widths(dim, len(depths))
        uses = [max(both) for both in zip(depths, (*decoder_depths, 0), strict=True)]
        kinds = blocks_of_groups(block, [max(uses[0], refinement), *uses[1:]])
        schedules = scans_of_groups(scans, len(depths))

        built: list[list[nn.Module]] = [[] for _ in depths]

        def level(index: int, width: int, depth: int) -> Level:
            made = _level(width, depth, kinds[index], schedules[index], drop_path)
            built[index].extend(made)
            return made

        lowest = len(depths) - 1
        self.shallow = Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(level(i, widths[i], depths[i]) for i in range(lowest))
        self.downs = nn.ModuleList(down(widths[i], out=widths[i + 1]) for i in range(lowest))
        self.latent = level(lowest, widths[lowest], depths[lowest])
        # From the lowest level up. A skip may widen the features of its level.
        self.ups, self.reduces, self.decoders = (nn.ModuleList() for _ in range(3))
        width = widths[lowest]
        for index in reversed(range(lowest)):
            self.ups.append(up(width, out=widths[index]))
            joined = (skip if index else top_skip)(widths[index])
            width = _out(joined)
            self.reduces.append(joined)
            self.decoders.append(level(index, width, decoder_depths[index]))
        self.refinement = level(0, width, refinement)
        check_scans_are_taken(scans, built)
        self.guidance = guidance(guides, widths, guided, down)
        self.output = head(width, scale=scale, channels=self.out_channels)
        self.residual = residual
        self.enlarge = Enlarge(scale) if residual else None
        self.extension = Extension(padding, pad_to, needed=2**lowest)
        self.capabilities = Capabilities(size_multiple=self.extension.grid)

    def forward(self, image_BIHW: Tensor, *guides: Tensor) -> Tensor:
        self.check_image(image_BIHW, *guides)
        sized = with_sizes(self.guides, guides)
        output = self.extension.around(self._restore, image_BIHW, self.scale, guides=sized)
        return output.contiguous()

    def _restore(self, image_BIHW: Tensor, *guides: Tensor) -> Tensor:
        image_BHWI = image_BIHW.permute(0, 2, 3, 1).contiguous()
        x_BHWC = self.shallow(image_BHWI)
        if self.guidance is not None:
            guide_BHWC = self.guidance.start(guides)
        skips = []
        for index, (encoder, down) in enumerate(zip(self.encoders, self.downs, strict=True)):
            if self.guidance is not None:
                x_BHWC, guide_BHWC = self.guidance.fuse(index, x_BHWC, guide_BHWC)
            x_BHWC = encoder(x_BHWC)
            skips.append(x_BHWC)
            x_BHWC = down(x_BHWC)
        if self.guidance is not None:
            x_BHWC, _ = self.guidance.fuse(len(self.encoders), x_BHWC, guide_BHWC)
        x_BHWC = self.latent(x_BHWC)
        for up, join, decoder in zip(self.ups, self.reduces, self.decoders, strict=True):
            x_BHWC = decoder(join(up(x_BHWC), skips.pop()))
        output_BHWI = self.output(self.refinement(x_BHWC), image_BHWI)
        if self.enlarge is not None:
            output_BHWI = output_BHWI + self.enlarge(image_BHWI)
        return output_BHWI.permute(0, 3, 1, 2)


def _level(width: int, depth: int, blocks: Blocks, scans: Schedule, drop_path: float) -> Level:
    rates = [drop_path] * depth
    return Level(*build_blocks(width, block=blocks, scans=scans, drop_paths=rates))


def _out(joined: Skip) -> int:
    if not isinstance(getattr(joined, "out", None), int):
        raise ValueError(
            f"{type(joined).__name__} has no attribute 'out'; a skip sets it in its constructor to "
            "the number of channels that it returns"
        )
    return joined.out


def _check_depths(depths: Sequence[int], decoder_depths: Sequence[int], refinement: int) -> None:
    if not depths or min(depths) < 1 or refinement < 0:
        raise ValueError(
            f"depths is {list(depths)} and refinement is {refinement}; give each level at least "
            "one block, and a refinement of at least 0"
        )
    check_levels(depths)
    check_depths([*depths, refinement])
    check_depths(decoder_depths, "decoder_depths")
    if len(decoder_depths) != len(depths) - 1 or any(n < 1 for n in decoder_depths):
        raise ValueError(
            f"decoder_depths is {list(decoder_depths)}; give one number of at least 1 for each of "
            f"the {len(depths) - 1} levels above the lowest"
        )


def _widths(dim: int | Sequence[int], levels: int) -> list[int]:
    widths = [dim * 2**level for level in range(levels)] if isinstance(dim, int) else list(dim)
    if len(widths) != levels or min(widths) < 1:
        raise ValueError(
            f"dim is {dim if isinstance(dim, int) else list(dim)}; give a number of at least 1, or "
            f"one for each of the {levels} levels"
        )
    return widths
