"""Scan orders along the diagonals of the image, all in one direction or in a zigzag.

Shape suffixes: H height, W width, in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.scans.base import (
    SCANS,
    ScanOrder,
    check_directions,
    path_through,
    stack_directions,
)

DIRECTIONS = ("diagonal", "antidiagonal", "diagonal_reversed", "antidiagonal_reversed")


def _triangle(side: Tensor) -> Tensor:
    """Return how many cells are nearer to a corner than ``side`` steps, without limits."""
    return side.clamp(min=0) * (side.clamp(min=0) + 1) // 2


def _steps(height: int, width: int, device: torch.device, *, zigzag: bool) -> Tensor:
    """Return the step at which the path of diagonals reads each token, (H, W)."""
    row_H1 = torch.arange(height, device=device)[:, None]
    column_1W = torch.arange(width, device=device)[None]
    line_HW = row_H1 + column_1W
    # All cells of nearer diagonals, less those below and beside the grid.
    before_HW = (
        _triangle(line_HW)
        - _triangle(line_HW - height)
        - _triangle(line_HW - width)
        + _triangle(line_HW - height - width)
    )
    from_top_HW = row_H1 - (line_HW - (width - 1)).clamp(min=0)
    if not zigzag:
        return before_HW + from_top_HW
    from_bottom_HW = line_HW.clamp(max=height - 1) - row_H1
    return before_HW + torch.where(line_HW % 2 == 1, from_top_HW, from_bottom_HW)


def _paths(steps_HW: Tensor) -> dict[str, Tensor]:
    """Return the path of these steps, and the same path on the mirrored image."""
    return {
        "diagonal": path_through(steps_HW),
        "antidiagonal": path_through(steps_HW.flip(1)),
    }


@SCANS.register("diagonal")
@dataclass(frozen=True, kw_only=True)
class Diagonal(ScanOrder):
    """Diagonals one after another, from one corner to the opposite corner.

    ``diagonal`` starts at the top left and reads the tokens of each diagonal (row + column is
    constant) from its upper end. ``antidiagonal`` is the mirror image and starts at the top right.

    Args:
        directions: any of ``diagonal``, ``antidiagonal``, ``diagonal_reversed``,
            ``antidiagonal_reversed``.
    """

    directions: tuple[str, ...] = DIRECTIONS

    def __post_init__(self) -> None:
        check_directions(self.directions, DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        steps_HW = _steps(height, width, device, zigzag=False)
        return stack_directions(_paths(steps_HW), self.directions)


@SCANS.register("zigzag")
@dataclass(frozen=True, kw_only=True)
class Zigzag(ScanOrder):
    """Diagonals in alternating direction, so that each step goes to a neighbour.

    ``diagonal`` is the order of the coefficients in JPEG (ITU-T T.81, Fig. A.6): it starts at the
    top left and goes right first. ``antidiagonal`` is the mirror image.

    Args:
        directions: any of ``diagonal``, ``antidiagonal``, ``diagonal_reversed``,
            ``antidiagonal_reversed``.
    """

    directions: tuple[str, ...] = DIRECTIONS

    def __post_init__(self) -> None:
        check_directions(self.directions, DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        steps_HW = _steps(height, width, device, zigzag=True)
        return stack_directions(_paths(steps_HW), self.directions)
