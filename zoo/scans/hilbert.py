"""Scan order along a Hilbert curve, for any rectangle.

Shape suffixes: K directions, S steps, H height, W width, N cells of a piece. The last axis of a
piece holds two coordinates: along its length and across its breadth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions

DIRECTIONS = ("hilbert", "transposed", "hilbert_reversed", "transposed_reversed")


@SCANS.register("hilbert")
@dataclass(frozen=True, kw_only=True)
class Hilbert(ScanOrder):
    """Generalised Hilbert curve: tokens that are near on the path are near in the image.

    Works for any rectangle. Every step goes to one of the four neighbours. Both paths start at the
    top left. ``hilbert`` ends at the top right; it ends at the bottom right if the width is 1, or
    if the width is odd and the height is even, because no path to the top right exists then.
    ``transposed`` is the same path with the axes exchanged. On squares of 2^n tokens a side, both
    are the curve of Hilbert (1891).

    Args:
        directions: any of ``hilbert``, ``transposed``, ``hilbert_reversed``,
            ``transposed_reversed``.
    """

    directions: tuple[str, ...] = DIRECTIONS
    traceable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_directions(self.directions, DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        x_S, y_S = _curve(width, height).unbind(1)
        down_S, right_S = _curve(height, width).unbind(1)
        paths = {"hilbert": y_S * width + x_S, "transposed": down_S * width + right_S}
        return stack_directions(paths, self.directions).to(device)


def _curve(length: int, breadth: int) -> Tensor:
    """Compute a path through all cells of a rectangle: ``path_N2``, int32, starting at (0, 0).

    Each cell is a neighbour of the one before. Colour the cells like a chessboard: steps alternate
    between the colours, so a path can end at the near corner (length - 1, 0) only if the length is
    even or the breadth is odd. Otherwise it ends at the far corner. All cuts are at even distances,
    so that the same case applies to the pieces.
    """

    @cache
    def to_near_corner(a: int, b: int) -> Tensor:
        if a == 1 or b == 1:
            return _line(a, b)
        if 2 * a > 3 * b:
            cut = _even_half(a)
            return torch.cat([to_near_corner(cut, b), _moved(to_near_corner(a - cut, b), cut, 0)])
        # Away from the first side, along it, and back, like the letter U.
        depth = _even_half(b) if b > 2 else 1
        away_N2 = to_near_corner(depth, a // 2).flip(1)
        along_N2 = to_near_corner(a, b - depth)
        back_N2 = to_near_corner(depth, a - a // 2).flip(1)
        turned_N2 = torch.tensor([a - 1, depth - 1], dtype=torch.int32) - back_N2
        return torch.cat([away_N2, _moved(along_N2, 0, depth), turned_N2])

    def to_far_corner(a: int, b: int) -> Tensor:
        if a == 1:
            return _line(a, b)
        if a > b:
            cut = _even_half(a)
            return torch.cat([to_near_corner(cut, b), _moved(to_far_corner(a - cut, b), cut, 0)])
        cut = _even_half(b)
        rest_N2 = to_near_corner(b - cut, a).flip(1)
        mirrored_N2 = rest_N2 * torch.tensor([-1, 1], dtype=torch.int32)
        return torch.cat([to_far_corner(a, cut), _moved(mirrored_N2, a - 1, cut)])

    near = length % 2 == 0 or breadth % 2 == 1
    return to_near_corner(length, breadth) if near else to_far_corner(length, breadth)


def _line(length: int, breadth: int) -> Tensor:
    steps_N = torch.arange(length * breadth, dtype=torch.int32)
    rest_N = torch.zeros_like(steps_N)
    return torch.stack([steps_N, rest_N] if breadth == 1 else [rest_N, steps_N], dim=1)


def _moved(path_N2: Tensor, along: int, across: int) -> Tensor:
    return path_N2 + torch.tensor([along, across], dtype=torch.int32)


def _even_half(length: int) -> int:
    """Return the even number nearest to half of ``length`` > 2; of two equally near, the larger."""
    return length // 2 + length // 2 % 2
