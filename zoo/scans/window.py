"""Window by window, in rows or in columns (MambaCSR's local scan)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import RecipeError
from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions
from zoo.scans.raster import FOUR_DIRECTIONS


@SCANS.register("window")
@dataclass(frozen=True, kw_only=True)
class Window(ScanOrder):
    """Square windows one after another, each walked whole (MambaCSR, Sec. 3.2).

    The grid is padded at the bottom and right to whole windows. The padding is part of the walk,
    as zero tokens, because the state decays there and the authors' networks were trained so.

    Args:
        size: side of a window in tokens.
        directions: any of ``row`` (windows and tokens row by row), ``column`` (both column by
            column), ``row_reversed``, ``column_reversed``.
    """

    size: int
    directions: tuple[str, ...] = FOUR_DIRECTIONS

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RecipeError(f"size is {self.size}; a window has at least 1 token a side")
        check_directions(self.directions, FOUR_DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        size = self.size
        grid_HW = torch.arange(height * width, dtype=torch.int32, device=device)
        grid_HW = grid_HW.reshape(height, width)
        padded_HW = F.pad(grid_HW, (0, -width % size, 0, -height % size), value=-1)
        # (window row, row inside, window column, column inside)
        windows = padded_HW.unflatten(1, (-1, size)).unflatten(0, (-1, size))
        paths = {
            "row": windows.permute(0, 2, 1, 3).reshape(-1),
            "column": windows.permute(2, 0, 3, 1).reshape(-1),
        }
        return stack_directions(paths, self.directions)
