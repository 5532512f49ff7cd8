"""Alignment of the frames of a burst to its first one: the contract, and what learns nothing.

Every displacement is in pixels, rows then columns: sampling frame t at ``position + displacement``
shows what frame 0 shows at ``position``.

Shape suffixes: B batch, T frames, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from zoo.ops.deformable import warp
from zoo.registry import Registry


class Aligned(NamedTuple):
    """What an aligner returns.

    Attributes:
        frames: (B, T, H, W, C), aligned to frame 0.
        displacements: for each level of a pyramid the mean displacement over taps and groups,
            (B, T, 2, h, w), in pixels of that level; empty where nothing was learnt.
    """

    frames: Tensor
    displacements: tuple[Tensor, ...]


class Aligner(nn.Module):
    """``(frames_BTHWC, flow) -> Aligned``; built as ``aligner(dim)``.

    ``flow`` is None or (B, T, 2, H, W): a displacement known beforehand, on which the learnt one is
    added. H and W are multiples of ``grid``.
    """

    grid: int = 1

    def forward(self, frames_BTHWC: Tensor, flow_BT2HW: Tensor | None = None) -> Aligned:
        raise NotImplementedError


AlignerFactory: TypeAlias = Callable[..., Aligner]

ALIGNERS = Registry("aligner", Aligner, supplied=("dim",))


@ALIGNERS.register("none")
class NoAlignment(Aligner):
    """Leaves the frames as they are; a flow is ignored."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, frames_BTHWC: Tensor, flow_BT2HW: Tensor | None = None) -> Aligned:
        return Aligned(frames_BTHWC, ())


@ALIGNERS.register("warp")
class Warp(Aligner):
    """Samples the frames where the given flow says; nothing is learnt."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, frames_BTHWC: Tensor, flow_BT2HW: Tensor | None = None) -> Aligned:
        if flow_BT2HW is None:
            raise ValueError("aligner 'warp' needs a flow; set flow_prior to registration or given")
        frames = frames_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
        moved = warp(frames, flow_BT2HW.flatten(0, 1)).permute(0, 2, 3, 1)
        moved_BTHWC = moved.unflatten(0, frames_BTHWC.shape[:2])
        return Aligned(torch.cat([frames_BTHWC[:, :1], moved_BTHWC[:, 1:]], dim=1), ())
