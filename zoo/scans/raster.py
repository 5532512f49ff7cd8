"""Scan order row by row and column by column over the whole image (MambaIR)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions

FOUR_DIRECTIONS = ("row", "column", "row_reversed", "column_reversed")
"""Directions in the order in which MambaIR stores their weights."""


@SCANS.register("raster")
@dataclass(frozen=True, kw_only=True)
class Raster(ScanOrder):
    """Rows, columns, and both in reverse: the four-way scan of MambaIR (Sec. 3.4).

    Args:
        directions: any of ``row``, ``column``, ``row_reversed``, ``column_reversed``.
    """

    directions: tuple[str, ...] = FOUR_DIRECTIONS

    def __post_init__(self) -> None:
        check_directions(self.directions, FOUR_DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        grid_HW = torch.arange(height * width, dtype=torch.int32, device=device)
        grid_HW = grid_HW.reshape(height, width)
        paths = {"row": grid_HW.reshape(-1), "column": grid_HW.t().reshape(-1)}
        return stack_directions(paths, self.directions)
