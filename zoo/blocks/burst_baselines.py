"""Burst fusions of earlier networks, for comparison; implemented from their papers.

Shape suffixes: B batch, T frames of the burst, S other frames (T - 1), H height, W width,
C channels, N images (B times pseudo-frames or pairs of frames).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.burst_fusion import BURST_FUSIONS, BurstFusion
from zoo.blocks.channel_attention import CAB
from zoo.blocks.channel_transformer import ChannelTransformer
from zoo.blocks.layers import Conv2d


@BURST_FUSIONS.register("pbff")
class PBFF(BurstFusion):
    """Pseudo-burst feature fusion: one pseudo-frame per channel (BIPNet, CVPR 2022, Sec. 3.2).

    Pseudo-frame c contains channel c of all T frames. One 3x3 convolution from T to C channels,
    shared by all pseudo-frames, is followed by residual channel attention blocks. A 1x1
    convolution joins the C pseudo-frames, and the result is added to the reference.

    Args:
        dim: channels C.
        burst: number of frames T.
        blocks: number of residual blocks on each pseudo-frame.
    """

    def __init__(self, dim: int, *, burst: int, blocks: int = 2) -> None:
        super().__init__()
        self.gather = Conv2d(burst, dim, 3, padding=1)
        self.blocks = nn.ModuleList(CAB(dim, compress=1, squeeze=8) for _ in range(blocks))
        self.join = Conv2d(dim * dim, dim, 1)

    def forward(self, reference_BHWC: Tensor, frames_BSHWC: Tensor) -> Tensor:
        batch = reference_BHWC.shape[0]
        frames_BTHWC = torch.cat([reference_BHWC[:, None], frames_BSHWC], dim=1)
        x_NHWT = frames_BTHWC.permute(0, 4, 2, 3, 1).flatten(0, 1).contiguous()
        x_NHWC = self.gather(x_NHWT)  # N = B * C
        for block in self.blocks:
            x_NHWC = x_NHWC + block(x_NHWC)
        pseudo = x_NHWC.unflatten(0, (batch, -1)).permute(0, 2, 3, 1, 4).flatten(3)
        return reference_BHWC + self.join(pseudo)


@BURST_FUSIONS.register("nrfe")
class NRFE(BurstFusion):
    """No-reference feature enrichment: neighbouring frames merge in pairs (Burstormer, Sec. 3.2).

    The other frames are pooled to seven, so that there are eight with the reference, which is
    first. Three rounds merge 8 frames to 4, to 2 and to 1; they share their weights. In a round,
    each pair passes channel transformers, is compared with its reconstruction from half the
    channels, and is merged. Any number of frames works.

    Args:
        dim: channels C.
        burst: number of frames T; ignored, because the frames are pooled.
        blocks: number of channel transformers on each pair.
    """

    any_length = True
    pooled = 8

    def __init__(self, dim: int, *, burst: int, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ChannelTransformer(2 * dim, heads=2) for _ in range(blocks)))
        self.shrink = Conv2d(2 * dim, dim, 3, padding=1)
        self.rebuild = Conv2d(dim, 2 * dim, 3, padding=1)
        self.join = Conv2d(2 * dim, dim, 1)

    def forward(self, reference_BHWC: Tensor, frames_BSHWC: Tensor) -> Tensor:
        batch, count, *_ = frames_BSHWC.shape
        flat = frames_BSHWC.permute(0, 2, 3, 4, 1).reshape(batch, -1, count)
        pooled = F.adaptive_avg_pool1d(flat, self.pooled - 1)
        others = pooled.unflatten(1, frames_BSHWC.shape[2:]).permute(0, 4, 1, 2, 3)
        frames = torch.cat([reference_BHWC[:, None], others], dim=1)
        while frames.shape[1] > 1:
            pairs = torch.cat([frames[:, 0::2], frames[:, 1::2]], dim=-1)
            x_NHWC = self.blocks(pairs.flatten(0, 1).contiguous())
            rebuilt_NHWC = self.rebuild(F.gelu(self.shrink(x_NHWC)))
            merged_NHWC = self.join(2 * x_NHWC - rebuilt_NHWC)
            frames = merged_NHWC.unflatten(0, pairs.shape[:2])
        return frames[:, 0]
