"""Alignment of a burst's frames to its first frame: the contract, and aligners without weights.

All displacements are in pixels, rows before columns. Frame t sampled at ``position +
displacement`` shows what frame 0 shows at ``position``.

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
    """The output of an aligner.

    Attributes:
        frames: features (B, T, H, W, C), aligned to frame 0.
        displacements: one tensor (B, T, 2, h, w) for each pyramid level: the mean displacement
            over taps and groups, in pixels of that level. Empty if the aligner learns nothing.
    """

    frames: Tensor
    displacements: tuple[Tensor, ...]


class Aligner(nn.Module):
    """Aligns frames: ``(frames_BTHWC, flow) -> Aligned``; built as ``aligner(dim)``.

    ``flow`` is None or a known displacement (B, T, 2, H, W); the learnt displacement is added to
    it. H and W must be multiples of ``grid``.
    """

    grid: int = 1

    def forward(self, frames_BTHWC: Tensor, flow_BT2HW: Tensor | None = None) -> Aligned:
        raise NotImplementedError


AlignerFactory: TypeAlias = Callable[..., Aligner]

ALIGNERS = Registry("aligner", Aligner, supplied=("dim",))


@ALIGNERS.register("none")
class NoAlignment(Aligner):
    """Returns the frames unchanged and ignores the flow."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, frames_BTHWC: Tensor, flow_BT2HW: Tensor | None = None) -> Aligned:
        return Aligned(frames_BTHWC, ())


@ALIGNERS.register("warp")
class Warp(Aligner):
    """Warps the frames by the given flow (bilinear sampling); has no weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, frames_BTHWC: Tensor, flow_BT2HW: Tensor | None = None) -> Aligned:
        if flow_BT2HW is None:
            raise ValueError("aligner 'warp' needs a flow; set flow_prior to registration or given")
        frames = frames_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
        moved = warp(frames, flow_BT2HW.flatten(0, 1)).permute(0, 2, 3, 1)
        moved_BTHWC = moved.unflatten(0, frames_BTHWC.shape[:2])
        return Aligned(torch.cat([frames_BTHWC[:, :1], moved_BTHWC[:, 1:]], dim=1), ())
