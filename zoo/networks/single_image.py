"""The single-image network, with all features at the input's resolution, as in MambaIR.

Shape suffixes: B batch, H height, W width, h, w half of H, W, C feature channels, I image channels,
s scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise, zip_longest

from torch import Tensor, nn

from zoo.blocks.cross_scale_mixer import Compat
from zoo.blocks.group import (
    BlocksOfGroups,
    GroupConv,
    ResidualGroup,
    blocks_of_groups,
    check_scans_are_taken,
    group_conv,
    scans_of_groups,
)
from zoo.blocks.guided import GuidedBlockFactory
from zoo.blocks.layers import Conv2d, init_linear
from zoo.blocks.rssb import RSSB
from zoo.heads import HeadFactory, PixelShuffleHead
from zoo.networks.coarse import Coarse, CoarseBranch
from zoo.networks.contract import NETWORKS, Network, Normalise
from zoo.networks.extension import Extension
from zoo.networks.guidance import guidance
from zoo.networks.guide import NO_GUIDES, Guide, with_sizes
from zoo.networks.size import check_depths
from zoo.ops.padding import PadMode
from zoo.registry import Capabilities
from zoo.scans import Raster, ScanOrder


@NETWORKS.register("single_image")
class SingleImage(Network):
    """Shallow convolution, residual groups with a skip around them, head (MambaIR, Sec. 3.2).

    Args:
        scale: output over input size.
        channels: image channels I: 3 for colour, 1 for gray.
        dim: feature channels C.
        depths: number of blocks in each group.
        out_channels: channels of the output image; None for those of the input.
        block: builds a block. Or a list of builders, which the blocks of a group use cyclically; or
            a list of such lists, one for each group.
        scans: scan orders; the blocks of a group use them cyclically. Or a list of such lists, one
            for each group.
        head: builds the head.
        drop_path: drop-path rate of the last block; rates rise linearly from 0 at the first block.
        conv: kind of the convolution that ends each group and the body: "1conv" or "3conv".
        patch_norm: whether to normalise the features before the first group.
        img_range: factor on the image after its mean is subtracted, from 1e-3 to 1e6.
        subtract_mean: whether the mean colour of DIV2K is subtracted from images of 3 channels, and
            added to the output.
        body_bias: whether the convolutions before the groups and after the body have biases.
        coarse: settings of a branch at half resolution, fused into the features (MambaCSR); None
            for no branch. With a branch, the network pads the image to whole windows of the fusion.
        compat: "official" reproduces the authors' outputs, including an error in their code. It
            changes only the fusion of two scales on grids that are not square
            (:mod:`zoo.scans.official`).
        padding: how the image is padded; see :func:`zoo.ops.padding.pad`.
        pad_to: the network pads the image at the bottom and on the right to multiples of this, in
            pixels, and crops the output (MambaIRv2: the side of a window). At most 256.
        guides: images that the network sees beside the one that it restores, by name.
        guided: builds a fusion of features and guides, which each group begins with; None for
            ``hfe``. A coarse branch has none of its own.
    """

    def __init__(
        self,
        *,
        scale: int = 1,
        channels: int = 3,
        out_channels: int | None = None,
        dim: int = 60,
        depths: Sequence[int] = (6, 6, 6, 6),
        block: BlocksOfGroups = RSSB,
        scans: Sequence[ScanOrder] | Sequence[Sequence[ScanOrder]] = (Raster(),),
        head: HeadFactory = PixelShuffleHead,
        drop_path: float = 0.1,
        conv: GroupConv = "1conv",
        patch_norm: bool = True,
        img_range: float = 1.0,
        subtract_mean: bool = True,
        body_bias: bool = True,
        coarse: Coarse | None = None,
        compat: Compat | None = None,
        padding: PadMode = "replicate",
        pad_to: int = 1,
        guides: Mapping[str, Guide] = NO_GUIDES,
        guided: GuidedBlockFactory | None = None,
    ) -> None:
        super().__init__()
        self._set_sizes(scale=scale, channels=channels, out_channels=out_channels, guides=guides)
        if dim < 1:
            raise ValueError(f"dim is {dim}; it must be at least 1")
        if not 1e-3 <= img_range <= 1e6:
            raise ValueError(f"img_range is {img_range:g}; it must be from 0.001 to 1e6")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path is {drop_path:g}; it must be at least 0 and below 1")
        if not depths or min(depths) < 1:
            raise ValueError(
                f"depths is {list(depths)}; give at least one group with at least one block"
            )
        check_depths(depths)
        normal = partial(Normalise, img_range=img_range, subtract_mean=subtract_mean)
        self.normalise = normal(channels)
        same = self.out_channels == channels
        self.denormalise = self.normalise if same else normal(self.out_channels)
        self.shallow = Conv2d(channels, dim, 3, padding=1, bias=body_bias)
        self.patch_norm = nn.LayerNorm(dim) if patch_norm else nn.Identity()
        rates = [drop_path * index / max(sum(depths) - 1, 1) for index in range(sum(depths))]
        drop_paths = [rates[start:stop] for start, stop in pairwise(accumulate(depths, initial=0))]
        schedules = scans_of_groups(scans, len(depths))
        beside = () if coarse is None else coarse.depths
        most = [max(both) for both in zip_longest(depths, beside[: len(depths)], fillvalue=0)]
        blocks = blocks_of_groups(block, most)
        groups = [
            ResidualGroup(dim, block=kinds, scans=schedule, drop_paths=group, conv=conv)
            for kinds, schedule, group in zip(blocks, schedules, drop_paths, strict=True)
        ]
        self.groups = nn.ModuleList(groups)
        check_scans_are_taken(scans, [group.blocks for group in groups])
        self.guidance = guidance(guides, [dim] * len(depths), guided)
        self.coarse = None
        if coarse is not None:
            self.coarse = CoarseBranch(
                dim,
                settings=coarse,
                blocks=blocks,
                conv=conv,
                patch_norm=patch_norm,
                drop_paths=drop_paths,
                compat=compat,
            )
        needed = 1 if self.coarse is None else self.coarse.size_multiple
        self.extension = Extension(padding, pad_to, needed=needed)
        self.capabilities = Capabilities(size_multiple=self.extension.grid)
        self.norm = nn.LayerNorm(dim)
        self.after_body = group_conv(dim, conv, bias=body_bias)
        self.head = head(dim, scale=scale, channels=self.out_channels)
        self.apply(init_linear)

    def forward(self, image_BIHW: Tensor, *guides: Tensor) -> Tensor:
        self.check_image(image_BIHW, *guides)
        sized = with_sizes(self.guides, guides)
        return self.extension.around(self._restore, image_BIHW, self.scale, guides=sized)

    def _restore(self, image_BIHW: Tensor, *guides: Tensor) -> Tensor:
        image_BHWI = self.normalise(image_BIHW.permute(0, 2, 3, 1).contiguous())
        shallow_BHWC = self.shallow(image_BHWI)
        x_BHWC = self.patch_norm(shallow_BHWC)
        if self.coarse is not None:
            coarse_BhwC = self.coarse.start(shallow_BHWC)
        if self.guidance is not None:
            guide_BHWC = self.guidance.start(guides)
        for index, group in enumerate(self.groups):
            if self.guidance is not None:
                x_BHWC, guide_BHWC = self.guidance.fuse(index, x_BHWC, guide_BHWC)
            x_BHWC = group(x_BHWC)
            if self.coarse is not None and index < len(self.coarse):
                x_BHWC, coarse_BhwC = self.coarse.step(index, x_BHWC, coarse_BhwC)
        x_BHWC = self.after_body(self.norm(x_BHWC)) + shallow_BHWC
        output_BHWI = self.denormalise.undo(self.head(x_BHWC, image_BHWI))
        return output_BHWI.permute(0, 3, 1, 2).contiguous()
