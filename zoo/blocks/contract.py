"""The contracts of blocks and of the parts inside them.

From the first convolution to the head, features are ``(B, H, W, C)`` and contiguous.

Shape suffixes: B batch, H height, W width, C channels of a block, E channels inside a mixer,
L tokens (H * W, row-major), K directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor, nn

from zoo.ops.passes import Layer
from zoo.ops.scan.contract import ScanInputs
from zoo.registry import Registry


class Block(nn.Module):
    """Computes features: ``(B, H, W, C) -> (B, H, W, C)``; ``block(dim, scan=, drop_path=)``.

    ``dim`` is C, ``scan`` is the block's scan order, and ``drop_path`` is the rate at which its
    residual branch is dropped in training.

    Attributes:
        takes_scan: whether the block, or a part in it, reads tokens along ``scan``. A block that
            never does says so, and a recipe that gives it a scan order is refused.
    """

    takes_scan: bool = True

    def forward(self, x_BHWC: Tensor) -> Tensor:
        raise NotImplementedError


class Mixer(nn.Module):
    """Mixes tokens along a scan order, ``(B, H, W, C) -> (B, H, W, C)``; ``mixer(dim, scan=)``.

    Attributes:
        takes_scan: whether the mixer reads tokens along ``scan``. One that never does says so, and
            a recipe that gives it a scan order is refused.
    """

    takes_scan: bool = True

    def forward(self, x_BHWC: Tensor) -> Tensor:
        raise NotImplementedError


class Placed(nn.Module):
    """A part that depends on the place of its block in the group, such as a shifted window."""

    def place(self, index: int) -> None:
        """Learn the block's place among those of its kind in the group, counted from 0.

        The group calls it once, after building. Blocks of the same part and options are of a kind.
        """
        raise NotImplementedError


class Merge(nn.Module):
    """Runs the scan and merges its directions, ``inputs -> (B, L, E)``.

    Built as ``merge(dim, directions=)``: ``dim`` is E and ``directions`` is K.
    """

    def forward(self, inputs: ScanInputs) -> Tensor:
        raise NotImplementedError


class Branch(nn.Module):
    """Computes local features, ``(B, H, W, C) -> (B, H, W, C)``; built as ``branch(dim)``."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        raise NotImplementedError


class GainedBranch(Branch):
    """A branch whose last step multiplies each channel of an image by a gain."""

    def factors(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (B, H, W, C) and their gain (B, 1, 1, C), or None if they have it already.

        The product of both is what the branch returns.
        """
        raise NotImplementedError

    def before_gain(self) -> Sequence[nn.Module]:
        """The layers that compute the features from which :meth:`gained` starts.

        None by default. With some, ``factors(x)`` must be ``gained`` of what they compute from x.
        """
        return ()

    def gained(self, features_BHWC: Tensor) -> tuple[Tensor, Tensor | None]:
        """What :meth:`factors` returns, from the features of these layers."""
        raise NotImplementedError

    def gain_layers(self) -> tuple[Layer, Layer] | None:
        """The layers with which :meth:`gained` computes nothing but the gain, or None.

        See :func:`zoo.ops.passes.channel_gain`.
        """
        return None

    def forward(self, x_BHWC: Tensor) -> Tensor:
        features_BHWC, gain_B11C = self.factors(x_BHWC)
        return features_BHWC if gain_B11C is None else features_BHWC * gain_B11C


BlockFactory: TypeAlias = Callable[..., Block]
MixerFactory: TypeAlias = Callable[..., Mixer]
MergeFactory: TypeAlias = Callable[..., Merge]
BranchFactory: TypeAlias = Callable[..., Branch]

BLOCKS = Registry("block", Block, supplied=("dim", "scan", "drop_path"))
MIXERS = Registry("mixer", Mixer, supplied=("dim", "scan"))
MERGES = Registry("merge", Merge, supplied=("dim", "directions"))
BRANCHES = Registry("branch", Branch, supplied=("dim",))

__all__ = [
    "BLOCKS",
    "BRANCHES",
    "MERGES",
    "MIXERS",
    "Block",
    "BlockFactory",
    "Branch",
    "BranchFactory",
    "GainedBranch",
    "Merge",
    "MergeFactory",
    "Mixer",
    "MixerFactory",
    "Placed",
]
