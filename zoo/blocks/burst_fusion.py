"""Fusion of aligned frames into the reference: the contract, and fusion by concatenation.

Shape suffixes: B batch, T frames of the burst, S other frames (T - 1), H height, W width,
C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from zoo.blocks.layers import Conv2d
from zoo.registry import Registry


class BurstFusion(nn.Module):
    """Fuses a burst: ``(reference_BHWC, frames_BSHWC) -> (B, H, W, C)``; ``fusion(dim, burst=)``.

    ``dim`` is C. ``burst`` is the number of frames T, including the reference. ``frames`` are the
    other S = T - 1 frames.

    Attributes:
        any_length: whether the fusion accepts a number of frames other than ``burst``.
    """

    any_length: bool = False

    def forward(self, reference_BHWC: Tensor, frames_BSHWC: Tensor) -> Tensor:
        raise NotImplementedError


BurstFusionFactory: TypeAlias = Callable[..., BurstFusion]

BURST_FUSIONS = Registry("burst_fusion", BurstFusion, supplied=("dim", "burst"))


def side_by_side(frames_BSHWC: Tensor) -> Tensor:
    """Concatenate the channels of all frames: ``(B, S, H, W, C) -> (B, H, W, S*C)``."""
    return frames_BSHWC.permute(0, 2, 3, 1, 4).flatten(3)


@BURST_FUSIONS.register("concat")
class ConcatFusion(BurstFusion):
    """One 1x1 convolution over the channels of all frames, added to the reference.

    Args:
        dim: channels C.
        burst: number of frames T, including the reference.
    """

    def __init__(self, dim: int, *, burst: int) -> None:
        super().__init__()
        self.conv = Conv2d(burst * dim, dim, 1)

    def forward(self, reference_BHWC: Tensor, frames_BSHWC: Tensor) -> Tensor:
        both = torch.cat([reference_BHWC, side_by_side(frames_BSHWC)], dim=-1)
        return reference_BHWC + self.conv(both)
