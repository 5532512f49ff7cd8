"""Alignment at one pyramid level: features are moved onto the reference, then refined.

Shape suffixes: B batch, N images (B times frames), H height, W width, C channels, G offset groups.

Source: Dudhane et al., "Burstormer", CVPR 2023, Sec. 3.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.channel_transformer import ChannelTransformer
from zoo.blocks.layers import Conv2d
from zoo.ops.deformable import deformable_conv, deformable_gather


class Upsample2(nn.Module):
    """Transposed 3x3 convolution: ``(N, H, W, C) -> (N, 2H, 2W, C)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(dim, dim, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x_NHWC: Tensor) -> Tensor:
        return self.conv(x_NHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


class Refine(nn.Module):
    """Reference-based feature enrichment ("RBFE"): corrects features by comparing two inputs.

    Features and reference together are squeezed to C channels and expanded again. A convolution
    of the reconstruction error corrects the squeezed features.

    Args:
        dim: channels C.
        blocks: number of channel transformers before the comparison.
        heads: number of attention heads in those channel transformers.
    """

    def __init__(self, dim: int, *, blocks: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ChannelTransformer(dim, heads=heads) for _ in range(blocks)))
        self.squeeze = Conv2d(2 * dim, dim, 3, padding=1)
        self.expand = Conv2d(dim, 2 * dim, 3, padding=1)
        self.correct = Conv2d(2 * dim, dim, 3, padding=1)

    def features(self, x_NHWC: Tensor) -> Tensor:
        return self.blocks(x_NHWC)

    def forward(self, features_NHWC: Tensor, reference_NHWC: Tensor) -> Tensor:
        both = torch.cat([reference_NHWC, features_NHWC], dim=-1)
        squeezed_NHWC = F.gelu(self.squeeze(both))
        error = F.gelu(self.expand(squeezed_NHWC)) - both
        return squeezed_NHWC + F.gelu(self.correct(error))


class FeatureAlignment(nn.Module):
    """Aligns the features of one pyramid level to the reference's features.

    Before training, all offsets are 0 and all masks are 0.5.

    Args:
        dim: channels C.
        groups: number G of channel groups, each with its own displacements.
        kernel: kernel size of the deformable convolution. 1 moves each group as a whole and adds a
            plain 3x3 convolution.
        dilation: distance between taps in pixels.
        from_before: whether the offset features of the coarser level are an input.
        refine: number of channel transformers in the refinement, or None for no refinement.
        heads: number of attention heads in those channel transformers.
    """

    def __init__(
        self,
        dim: int,
        *,
        groups: int,
        kernel: int,
        dilation: int,
        from_before: bool,
        refine: int | None,
        heads: int,
    ) -> None:
        super().__init__()
        self.groups, self.kernel, self.dilation = groups, kernel, dilation
        taps = kernel * kernel
        self.compare = Conv2d(2 * dim, dim, 3, padding=1)
        self.join = Conv2d(2 * dim, dim, 3, padding=1) if from_before else None
        self.offset = Conv2d(dim, 3 * groups * taps, 3, padding=1)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        if kernel == 1:
            self.conv: Conv2d | None = Conv2d(dim, dim, 3, padding=1, bias=False)
            self.weight = None
        else:
            self.conv = None
            self.weight = nn.Parameter(torch.empty(dim, dim // groups, kernel, kernel))
            nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.refine = None if refine is None else Refine(dim, blocks=refine, heads=heads)

    def reference(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor | None]:
        """Refine the reference, without moving it: return the result and its features.

        Without refinement, return the input and None.
        """
        if self.refine is None:
            return x_BHWC, None
        features = self.refine.features(x_BHWC)
        return self.refine(features, features), features

    def forward(
        self,
        x_NHWC: Tensor,
        reference_NHWC: Tensor,
        features_NHWC: Tensor | None,
        before_NHWC: Tensor | None,
        flow_N2HW: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return aligned features, offset features, and the mean displacement (N, 2, H, W)."""
        hidden_NHWC = F.gelu(self.compare(torch.cat([reference_NHWC, x_NHWC], dim=-1)))
        if before_NHWC is not None:
            assert self.join is not None
            hidden_NHWC = F.gelu(self.join(torch.cat([before_NHWC, hidden_NHWC], dim=-1)))
        taps = self.groups * self.kernel**2
        offset, mask = self.offset(hidden_NHWC).permute(0, 3, 1, 2).split([2 * taps, taps], dim=1)
        mask = mask.sigmoid()
        x_NCHW = x_NHWC.permute(0, 3, 1, 2)
        if self.weight is None:
            moved = deformable_gather(x_NCHW, offset, mask, kernel=1, base_flow_N2HW=flow_N2HW)
        else:
            moved = deformable_conv(
                x_NCHW,
                offset,
                mask,
                self.weight,
                groups=self.groups,
                dilation=self.dilation,
                base_flow_N2HW=flow_N2HW,
            )
        moved_NHWC = moved.permute(0, 2, 3, 1).contiguous()
        if self.conv is not None:
            moved_NHWC = self.conv(moved_NHWC)
        if features_NHWC is not None:
            assert self.refine is not None
            moved_NHWC = self.refine(self.refine.features(moved_NHWC), features_NHWC)
        mean_N2HW = offset.float().unflatten(1, (taps, 2)).mean(1)
        if flow_N2HW is not None:
            mean_N2HW = mean_N2HW + flow_N2HW
        return moved_NHWC, hidden_NHWC, mean_N2HW
