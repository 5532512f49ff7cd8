"""Blocks that see a second set of features, and Wave-Mamba's block for high frequencies.

Shape suffixes: B batch, H height, W width, C channels, L tokens (H * W).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from zoo.blocks.channel_transformer import attend_channels
from zoo.blocks.layers import Conv2d
from zoo.blocks.norm import LayerNorm, NormFactory
from zoo.ops.precision import without_autocast
from zoo.registry import Registry


class GuidedBlock(nn.Module):
    """Computes features with a guide, ``(x_BHWC, guide_BHWC) -> (B, H, W, C)``; ``block(dim)``.

    ``dim`` is C, the number of channels of both.
    """

    def forward(self, x_BHWC: Tensor, guide_BHWC: Tensor) -> Tensor:
        raise NotImplementedError


GuidedBlockFactory: TypeAlias = Callable[..., GuidedBlock]

GUIDED_BLOCKS = Registry("guided_block", GuidedBlock, supplied=("dim",))


def nearest_channels(x_BLC: Tensor, guide_BLC: Tensor) -> Tensor:
    """Return, for each channel of x, the number of the guide's channel that is nearest, (B, C).

    The distance is Euclidean, over all tokens, and computed in float32 at least: sums over an image
    leave the range of float16.
    """
    dtype = torch.promote_types(x_BLC.dtype, torch.float32)
    x_BLC, guide_BLC = x_BLC.to(dtype), guide_BLC.to(dtype)
    with without_autocast(x_BLC.device):
        products_BCC = x_BLC.transpose(1, 2) @ guide_BLC
        # The squared distance less that of x itself, which is the same for all of the guide.
        return (guide_BLC.square().sum(1)[:, None] - 2 * products_BCC).argmin(-1)


class ChannelMatch(nn.Module):
    """Adds to each channel the nearest channel of the guide (Wave-Mamba, Sec. 3.4)::

        v = concat(x, for each channel of x: the guide's nearest channel)
        out = k4(k3(v) * sigmoid(k2(v)))

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.k2 = Conv2d(2 * dim, 2 * dim, 1)
        self.k3 = Conv2d(2 * dim, 2 * dim, 3, padding=1, bias=False)
        self.k4 = Conv2d(2 * dim, dim, 3, padding=1, bias=False)

    def forward(self, x_BHWC: Tensor, guide_BHWC: Tensor) -> Tensor:
        channels = x_BHWC.shape[-1]
        with torch.no_grad():
            nearest_BC = nearest_channels(x_BHWC.flatten(1, 2), guide_BHWC.flatten(1, 2))
            numbers_C = torch.arange(channels, device=x_BHWC.device)
            chosen_BCC = (nearest_BC[:, None] == numbers_C[:, None]).to(guide_BHWC.dtype)
        # A product with zeros and ones, because gathering needs an index for every token.
        matched_BHWC = (guide_BHWC.flatten(1, 2) @ chosen_BCC).unflatten(1, x_BHWC.shape[1:3])
        both = torch.cat([x_BHWC, matched_BHWC], dim=-1)
        return self.k4(self.k3(both) * self.k2(both).sigmoid())


@GUIDED_BLOCKS.register("hfe")
class HighFrequencyBlock(GuidedBlock):
    """Restores high frequencies with the help of the low ones (Wave-Mamba, Sec. 3.4, "HFEBlock")::

        g = guide_norm(guide)
        x = x + out(attention of channels: match(q, g), k, v of norm(x))
        x = x + ffn_out(ffn_match(ffn_in(ffn_norm(x)), g))

    Args:
        dim: channels C.
        norm: builds the three norms.
    """

    def __init__(self, dim: int, *, norm: NormFactory = LayerNorm) -> None:
        super().__init__()
        self.guide_norm, self.norm, self.ffn_norm = norm(dim), norm(dim), norm(dim)
        self.temperature = nn.Parameter(torch.ones(1, 1, 1))
        self.qkv = Conv2d(dim, 3 * dim, 1)
        self.qkv_conv = Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim)
        self.match = ChannelMatch(dim)
        self.out = Conv2d(dim, dim, 1)
        self.ffn_in = nn.Sequential(Conv2d(dim, dim, 1), Conv2d(dim, dim, 3, padding=1, groups=dim))
        self.ffn_match = ChannelMatch(dim)
        self.ffn_out = nn.Sequential(
            Conv2d(dim, dim, 3, padding=1, groups=dim), nn.GELU(), Conv2d(dim, dim, 1)
        )

    def forward(self, x_BHWC: Tensor, guide_BHWC: Tensor) -> Tensor:
        guide_BHWC = self.guide_norm(guide_BHWC)
        x_BHWC = x_BHWC + self.attention(self.norm(x_BHWC), guide_BHWC)
        hidden_BHWC = self.ffn_match(self.ffn_in(self.ffn_norm(x_BHWC)), guide_BHWC)
        return x_BHWC + self.ffn_out(hidden_BHWC)

    def attention(self, x_BHWC: Tensor, guide_BHWC: Tensor) -> Tensor:
        """Return the attention between channels, with queries matched to the guide."""
        q_BHWC, k_BHWC, v_BHWC = self.qkv_conv(self.qkv(x_BHWC)).chunk(3, dim=-1)
        q_BHWC = self.match(q_BHWC, guide_BHWC)
        return self.out(attend_channels(q_BHWC, k_BHWC, v_BHWC, self.temperature.flatten()))
