"""Scan order along the diagonals of the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions

DIRECTIONS = ("diagonal", "antidiagonal", "diagonal_reversed", "antidiagonal_reversed")


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
        row_H1 = torch.arange(height, device=device)[:, None]
        column_1W = torch.arange(width, device=device)[None]

        def sorted_by(line_HW: Tensor) -> Tensor:
            # Rows increase along a line. Keys are unique, so the sort need not be stable.
            return (line_HW * height + row_H1).reshape(-1).argsort().to(torch.int32)

        paths = {
            "diagonal": sorted_by(row_H1 + column_1W),
            "antidiagonal": sorted_by(row_H1 + (width - 1 - column_1W)),
        }
        return stack_directions(paths, self.directions)
