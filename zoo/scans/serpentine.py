"""Serpentine scan order: every second row or column is read in reverse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions
from zoo.scans.raster import FOUR_DIRECTIONS


@SCANS.register("serpentine")
@dataclass(frozen=True, kw_only=True)
class Serpentine(ScanOrder):
    """Rows or columns, every second one in reverse, so each step goes to a neighbouring token.

    Args:
        directions: any of ``row``, ``column``, ``row_reversed``, ``column_reversed``.
    """

    directions: tuple[str, ...] = FOUR_DIRECTIONS

    def __post_init__(self) -> None:
        check_directions(self.directions, FOUR_DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        row_H1 = torch.arange(height, dtype=torch.int32, device=device)[:, None]
        column_1W = torch.arange(width, dtype=torch.int32, device=device)[None]
        forward_HW = row_H1 * width + column_1W
        rows_HW = torch.where(row_H1 % 2 == 0, forward_HW, forward_HW.flip(1))
        columns_HW = torch.where(column_1W % 2 == 0, forward_HW, forward_HW.flip(0))
        paths = {"row": rows_HW.reshape(-1), "column": columns_HW.t().reshape(-1)}
        return stack_directions(paths, self.directions)
