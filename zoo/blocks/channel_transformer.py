"""Attention between channels: the transformer block of Restormer, on ``(B, H, W, C)``.

Shape suffixes: B batch, H height, W width, C channels, G heads, D channels of a head,
P pixels (H * W).

Source: Zamir et al., "Restormer", CVPR 2022, Sec. 3.1 and 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.contract import BLOCKS, Block
from zoo.blocks.layers import Conv2d, DropPath
from zoo.scans import ScanOrder


class ChannelSelfAttention(nn.Module):
    """Attention between channels instead of pixels ("MDTA").

    Each head computes D x D attention weights, whatever the image size.

    Args:
        dim: channels C.
        heads: number of attention heads G; must divide C.
    """

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads is {heads}; it must divide the {dim} channels")
        self.heads = heads
        self.temperature_G = nn.Parameter(torch.ones(heads))
        self.in_proj = Conv2d(dim, 3 * dim, 1, bias=False)
        self.conv = Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=False)
        self.out_proj = Conv2d(dim, dim, 1, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        _, height, width, _ = x_BHWC.shape
        mixed = self.conv(self.in_proj(x_BHWC)).flatten(1, 2)
        q_BGDP, k_BGDP, v_BGDP = (
            t.unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1) for t in mixed.chunk(3, dim=-1)
        )
        q_BGDP, k_BGDP = F.normalize(q_BGDP, dim=-1), F.normalize(k_BGDP, dim=-1)
        similarity = q_BGDP @ k_BGDP.transpose(2, 3) * self.temperature_G[:, None, None]
        out_BGDP = similarity.softmax(dim=-1) @ v_BGDP
        out_BHWC = out_BGDP.permute(0, 3, 1, 2).flatten(2).unflatten(1, (height, width))
        return self.out_proj(out_BHWC)


class GatedFeedForward(nn.Module):
    """Gated feed-forward with a depthwise convolution: ``GELU(a) * b`` ("GDFN").

    Args:
        dim: channels C.
        ratio: hidden channels as a multiple of C, rounded down to an integer.
    """

    def __init__(self, dim: int, *, ratio: float) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        if hidden < 1:
            raise ValueError(f"ratio is {ratio}; with dim {dim} this gives 0 hidden channels")
        self.in_proj = Conv2d(dim, 2 * hidden, 1, bias=False)
        self.conv = Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.out_proj = Conv2d(hidden, dim, 1, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        gate_BHWE, x_BHWE = self.conv(self.in_proj(x_BHWC)).chunk(2, dim=-1)
        return self.out_proj(F.gelu(gate_BHWE) * x_BHWE)


@BLOCKS.register("channel_transformer")
class ChannelTransformer(Block):
    """Transformer block with attention between channels and a gated feed-forward (Restormer)::

        x = x + drop_path(attention(norm(x)))
        x = x + drop_path(feed_forward(feed_forward_norm(x)))

    Args:
        dim: channels C.
        scan: ignored; the block does not scan.
        drop_path: rate at which each branch is dropped in training, in [0, 1).
        heads: number of attention heads; must divide C.
        ratio: hidden channels of the feed-forward as a multiple of C, rounded down.
    """

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        drop_path: float = 0.0,
        heads: int = 4,
        ratio: float = 2.66,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = ChannelSelfAttention(dim, heads=heads)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = GatedFeedForward(dim, ratio=ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + self.drop_path(self.attention(self.norm(x_BHWC)))
        return x_BHWC + self.drop_path(self.feed_forward(self.feed_forward_norm(x_BHWC)))
