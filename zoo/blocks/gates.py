"""Gated feed-forward branches: one half of the hidden channels is multiplied by the other.

Shape suffixes: B batch, H height, W width, C channels, E hidden channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from zoo.blocks.contract import BRANCHES, Branch
from zoo.blocks.layers import Conv2d


def _hidden(dim: int, ratio: float) -> int:
    hidden = int(dim * ratio)
    if hidden < 1:
        raise ValueError(f"ratio is {ratio}; with dim {dim} this gives 0 hidden channels")
    return hidden


@BRANCHES.register("gdfn")
class GatedFeedForward(Branch):
    """Gated feed-forward with a depthwise convolution, "GDFN" (Restormer, Sec. 3.2)::

        a, b = halves of conv(in_proj(x))
        out = out_proj(gelu(a) * b)

    Args:
        dim: channels C.
        ratio: hidden channels E of each half as a multiple of C, rounded down to an integer.
        bias: whether the three layers have biases.
    """

    def __init__(self, dim: int, *, ratio: float = 2.66, bias: bool = False) -> None:
        super().__init__()
        hidden = _hidden(dim, ratio)
        self.in_proj = Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.conv = Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.out_proj = Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        gate_BHWE, x_BHWE = self.conv(self.in_proj(x_BHWC)).chunk(2, dim=-1)
        return self.out_proj(F.gelu(gate_BHWE) * x_BHWE)


@BRANCHES.register("simple_gate")
class SimpleGate(Branch):
    """Two 1x1 convolutions with a product of halves between them (NAFNet; EAMamba, Sec. 3.1)::

        a, b = halves of in_proj(x)
        out = out_proj(a * b)

    Args:
        dim: channels C.
        ratio: channels of both halves together as a multiple of C; the number must be even.
        bias: whether the two layers have biases.
    """

    def __init__(self, dim: int, *, ratio: float = 2.0, bias: bool = False) -> None:
        super().__init__()
        both = _hidden(dim, ratio)
        if both % 2:
            raise ValueError(
                f"ratio * dim is {ratio:g} * {dim}, which gives {both} channels; the gate halves "
                "them, so the number must be even"
            )
        self.in_proj = Conv2d(dim, both, 1, bias=bias)
        self.out_proj = Conv2d(both // 2, dim, 1, bias=bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        a_BHWE, b_BHWE = self.in_proj(x_BHWC).chunk(2, dim=-1)
        return self.out_proj(a_BHWE * b_BHWE)
