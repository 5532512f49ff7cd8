"""Channel attention and the local branches built on it (MambaIR's CAB and its ablations).

Shape suffixes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from zoo.blocks.contract import BRANCHES, Branch, GainedBranch
from zoo.blocks.joined import Methods, in_a_row, is_plain
from zoo.blocks.layers import Conv2d, at_least_one
from zoo.ops import passes


class ChannelAttention(nn.Module):
    """Scales each channel by a gate computed from the image's mean (RCAN, Sec. 3.3).

    Args:
        dim: channels C.
        squeeze: the gate's hidden layer has C / squeeze channels, rounded down.
    """

    def __init__(self, dim: int, *, squeeze: int = 30) -> None:
        super().__init__()
        hidden = at_least_one(dim, squeeze, "squeeze of the channel attention")
        self.reduce = Conv2d(dim, hidden, 1)
        self.expand = Conv2d(hidden, dim, 1)

    def gain(self, x_BHWC: Tensor) -> Tensor:
        """The gate (B, 1, 1, C)."""
        matrices = self.matrices()
        gain_B11C = None if matrices is None else passes.channel_gain(x_BHWC, *matrices)
        if gain_B11C is not None:
            return gain_B11C
        return self._gain_of(x_BHWC.mean((1, 2), keepdim=True))

    def gained(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """The features, and their gate (B, 1, 1, C)."""
        both = passes.with_mean(x_BHWC)
        if both is None:
            return x_BHWC, self.gain(x_BHWC)
        x_BHWC, mean_B11C = both
        return x_BHWC, self._gain_of(mean_B11C)

    def _gain_of(self, mean_B11C: Tensor) -> Tensor:
        return self.expand(self.reduce(mean_B11C).relu()).sigmoid()

    def matrices(self) -> tuple[passes.Layer, passes.Layer] | None:
        """Both layers as matrices, if they are ordinary ones without hooks."""
        layers = self.reduce, self.expand
        if not all(type(each) is Conv2d and is_plain(each) for each in layers):
            return None
        first, last = (passes.Layer(each.weight.flatten(1), each.bias) for each in layers)
        return first, last

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC * self.gain(x_BHWC)


_METHODS = Methods(ChannelAttention, "gain", "gained", "matrices", "_gain_of")


class _Sequence(GainedBranch):
    """Layers one after another; the last is a channel attention."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def factors(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.gained(in_a_row(self.before_gain(), x_BHWC))

    def before_gain(self) -> Sequence[nn.Module]:
        return list(self.layers)[:-1]

    def gained(self, features_BHWC: Tensor) -> tuple[Tensor, Tensor | None]:
        attention = self.layers[-1]
        if isinstance(attention, ChannelAttention) and _METHODS.are_those_of(attention):
            return attention.gained(features_BHWC)
        return attention(features_BHWC), None

    def gain_layers(self) -> tuple[passes.Layer, passes.Layer] | None:
        attention = self.layers[-1]
        if type(self).gained is not _Sequence.gained:
            return None
        if isinstance(attention, ChannelAttention) and _METHODS.are_those_of(attention):
            return attention.matrices()
        return None


@BRANCHES.register("cab")
class CAB(_Sequence):
    """Channel attention block: a convolutional bottleneck, then channel attention (Sec. 3.3).

    Args:
        dim: channels C.
        compress: the bottleneck has C / compress channels: 3 in MambaIR, 24 in MambaCSR.
        squeeze: C is divided by this inside channel attention: 30 in MambaIR, 24 in MambaCSR.
    """

    def __init__(self, dim: int, *, compress: int = 3, squeeze: int = 30) -> None:
        hidden = at_least_one(dim, compress, "compress of the channel attention block")
        super().__init__(
            Conv2d(dim, hidden, 3, padding=1),
            nn.GELU(),
            Conv2d(hidden, dim, 3, padding=1),
            ChannelAttention(dim, squeeze=squeeze),
        )


@BRANCHES.register("cab_light")
class LightCAB(_Sequence):
    """Channel attention block of the light MambaIR since October 2024: 1x1 and depthwise.

    Args:
        dim: channels C.
        compress: the bottleneck has C / compress channels.
        squeeze: C is divided by this inside channel attention.
    """

    def __init__(self, dim: int, *, compress: int = 2, squeeze: int = 30) -> None:
        hidden = at_least_one(dim, compress, "compress of the light channel attention block")
        super().__init__(
            Conv2d(dim, hidden, 1),
            Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            Conv2d(hidden, dim, 1),
            Conv2d(dim, dim, 3, padding=2, dilation=2, groups=dim),
            ChannelAttention(dim, squeeze=squeeze),
        )


@BRANCHES.register("cab_depthwise")
class DepthwiseCAB(_Sequence):
    """Channel attention block of the first light MambaIR (February 2024): one depthwise layer.

    Args:
        dim: channels C.
        squeeze: C is divided by this inside channel attention.
    """

    def __init__(self, dim: int, *, squeeze: int = 30) -> None:
        super().__init__(
            Conv2d(dim, dim, 3, padding=1, groups=dim),
            ChannelAttention(dim, squeeze=squeeze),
        )


@BRANCHES.register("channel_attention")
class ChannelAttentionBranch(_Sequence):
    """Channel attention alone: MambaIR's ablation without the convolution (Table 1, row 1).

    Args:
        dim: channels C.
        squeeze: C is divided by this inside channel attention.
    """

    def __init__(self, dim: int, *, squeeze: int = 30) -> None:
        super().__init__(ChannelAttention(dim, squeeze=squeeze))


@BRANCHES.register("mlp")
class MLP(Branch):
    """Two linear layers with GELU between, as in a transformer (an ablation of MambaIR).

    Args:
        dim: channels C.
        ratio: hidden channels as a multiple of C, rounded down to an integer.
    """

    def __init__(self, dim: int, *, ratio: float = 2.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, int(dim * ratio))
        self.fc2 = nn.Linear(int(dim * ratio), dim)
        self.activation = nn.GELU()

    def layers(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """What the features go through, one layer after another."""
        return self.fc1, self.activation, self.fc2

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x_BHWC)))
