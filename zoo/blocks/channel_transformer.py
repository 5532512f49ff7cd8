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
from zoo.blocks.gates import GatedFeedForward
from zoo.blocks.layers import Conv2d, DropPath
from zoo.scans import ScanOrder


def attend_channels(
    q_BHWC: Tensor, k_BHWC: Tensor, v_BHWC: Tensor, temperature_G: Tensor
) -> Tensor:
    """Compute attention between the channels of each head, (B, H, W, C).

    Queries and keys are scaled to length 1 over the pixels.

    Args:
        q_BHWC: queries.
        k_BHWC: keys.
        v_BHWC: values.
        temperature_G: factor on the similarities of each of G heads; G divides C.
    """
    _, height, width, _ = q_BHWC.shape
    q_BGDP, k_BGDP, v_BGDP = (
        t.flatten(1, 2).unflatten(2, (len(temperature_G), -1)).permute(0, 2, 3, 1)
        for t in (q_BHWC, k_BHWC, v_BHWC)
    )
    q_BGDP, k_BGDP = F.normalize(q_BGDP, dim=-1), F.normalize(k_BGDP, dim=-1)
    similarity = q_BGDP @ k_BGDP.transpose(2, 3) * temperature_G[:, None, None]
    out_BGDP = similarity.softmax(dim=-1) @ v_BGDP
    return out_BGDP.permute(0, 3, 1, 2).flatten(2).unflatten(1, (height, width))


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
        q_BHWC, k_BHWC, v_BHWC = self.conv(self.in_proj(x_BHWC)).chunk(3, dim=-1)
        return self.out_proj(attend_channels(q_BHWC, k_BHWC, v_BHWC, self.temperature_G))


@BLOCKS.register("channel_transformer")
class ChannelTransformer(Block):
    """Transformer block with attention between channels and a gated feed-forward (Restormer)::

        x = x + drop_path(attention(norm(x)))
        x = x + drop_path(feed_forward(feed_forward_norm(x)))

    Args:
        dim: channels C.
        scan: not used; the block does not scan.
        drop_path: rate at which each branch is dropped in training, in [0, 1).
        heads: number of attention heads; must divide C.
        ratio: hidden channels of the feed-forward as a multiple of C, rounded down.
    """

    takes_scan = False

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
