"""Scan order window by window, in rows or in columns (MambaCSR's local scan)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import RecipeError
from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions
from zoo.scans.raster import FOUR_DIRECTIONS

LARGEST = 1024
"""Largest side of a window in tokens. Even the smallest image is padded to one window."""


def check_window(size: int) -> None:
    """Raise a RecipeError if a window is so large that a small image takes all memory."""
    if size > LARGEST:
        raise RecipeError(f"size is {size}; a window has at most {LARGEST} tokens per side")


@SCANS.register("window")
@dataclass(frozen=True, kw_only=True)
class Window(ScanOrder):
    """Square windows, scanned one after another (MambaCSR, Sec. 3.2).

    The grid is padded to whole windows at the bottom and on the right. The padding is part of the
    scan, as zero tokens: the state decays there, and the authors trained their networks this way.

    Args:
        size: side of a window in tokens.
        directions: any of ``row`` (windows and tokens row by row), ``column`` (both column by
            column), ``row_reversed``, ``column_reversed``.
    """

    size: int
    directions: tuple[str, ...] = FOUR_DIRECTIONS

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RecipeError(f"size is {self.size}; a window needs at least 1 token per side")
        check_window(self.size)
        check_directions(self.directions, FOUR_DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        size = self.size
        rows, columns = (height + size - 1) // size, (width + size - 1) // size
        # Computed for each step instead of cut from a padded grid, so that a traced graph also
        # works for grids of a single window.
        step_S = torch.arange(rows * columns * size * size, dtype=torch.int32, device=device)
        window_S, outer_S, inner_S = step_S // size**2, step_S // size % size, step_S % size

        def tokens(y_S: Tensor, x_S: Tensor) -> Tensor:
            return torch.where((y_S < height) & (x_S < width), y_S * width + x_S, -1)

        paths = {
            "row": tokens(
                window_S // columns * size + outer_S, window_S % columns * size + inner_S
            ),
            "column": tokens(window_S % rows * size + inner_S, window_S // rows * size + outer_S),
        }
        return stack_directions(paths, self.directions)
