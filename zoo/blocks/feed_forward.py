"""Feed-forward branches with a depthwise convolution: each token also sees its neighbours.

Shape suffixes: B batch, H height, W width, C channels, E hidden channels, G half of E.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.contract import BRANCHES, Branch
from zoo.blocks.layers import Conv2d, check_kernel


def _depthwise(channels: int, kernel: int) -> Conv2d:
    check_kernel(kernel, "kernel")
    return Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


def _hidden(dim: int, ratio: float, smallest: int) -> int:
    hidden = int(dim * ratio)
    if hidden < smallest:
        raise ValueError(
            f"ratio * dim is {ratio:g} * {dim}, which gives {hidden} hidden channels; "
            f"it needs at least {smallest}"
        )
    return hidden


@BRANCHES.register("conv_ffn")
class ConvFFN(Branch):
    """Two linear layers with a depthwise convolution between them (MambaIRv2)::

        a = gelu(fc1(x))
        out = fc2(a + gelu(conv(a)))

    Args:
        dim: channels C.
        ratio: hidden channels E as a multiple of C, rounded down to an integer.
        kernel: kernel size of the convolution in pixels, odd.
    """

    def __init__(self, dim: int, *, ratio: float = 2.0, kernel: int = 5) -> None:
        super().__init__()
        hidden = _hidden(dim, ratio, 1)
        self.fc1 = nn.Linear(dim, hidden)
        self.conv = _depthwise(hidden, kernel)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        a_BHWE = F.gelu(self.fc1(x_BHWC))
        return self.fc2(a_BHWE + F.gelu(self.conv(a_BHWE)))


@BRANCHES.register("gated_mlp")
class GatedMLP(Branch):
    """Two linear layers; half of the hidden channels gate the others (light MambaIRv2)::

        a, g = halves of gelu(fc1(x))
        out = fc2(a * conv(norm(g)))

    Args:
        dim: channels C.
        ratio: hidden channels E as a multiple of C, rounded down to an integer, which must be even.
        kernel: kernel size of the depthwise convolution in pixels, odd.
    """

    def __init__(self, dim: int, *, ratio: float = 2.0, kernel: int = 5) -> None:
        super().__init__()
        hidden = _hidden(dim, ratio, 2)
        if hidden % 2:
            raise ValueError(
                f"ratio * dim is {ratio:g} * {dim}, which gives {hidden} hidden channels; the "
                "gated MLP halves them, so the number must be even"
            )
        self.fc1 = nn.Linear(dim, hidden)
        self.norm = nn.LayerNorm(hidden // 2)
        self.conv = _depthwise(hidden // 2, kernel)
        self.fc2 = nn.Linear(hidden // 2, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        a_BHWG, gate_BHWG = F.gelu(self.fc1(x_BHWC)).chunk(2, dim=-1)
        return self.fc2(a_BHWG * self.conv(self.norm(gate_BHWG)))
