"""Scan order window by window, in rows or in columns (MambaCSR's local scan).

Shape suffixes: S steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import RecipeError
from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions
from zoo.scans.raster import FOUR_DIRECTIONS

LARGEST = 256
"""Largest side of a window in tokens. Even the smallest image is padded to one window."""


def check_window(size: int, name: str = "size") -> None:
    """Raise a RecipeError if a window is so large that a small image takes all memory."""
    if size > LARGEST:
        raise RecipeError(f"{name} is {size}; use at most {LARGEST} tokens")


@SCANS.register("window")
@dataclass(frozen=True, kw_only=True)
class Window(ScanOrder):
    """Windows, scanned one after another (MambaCSR, Sec. 3.2).

    The grid is padded to whole windows at the bottom and on the right, and with a shift also at
    the top and on the left. The padding is part of the scan, as zero tokens: the state decays
    there, and MambaCSR's authors trained their networks this way.

    Args:
        size: side of a window in tokens, or its height and width.
        shift: height and width of the first window, from 0 to the smaller side - 1, so that blocks
            in turn cut the image at different places (Swin Transformer, Liu et al., 2021); 0 for
            whole windows.
        serpentine: whether every second row of windows is read in reverse, and every second row of
            tokens in a window, so that there are fewer jumps. In the directions of columns, every
            second column.
        directions: any of ``row`` (windows and tokens row by row), ``column`` (both column by
            column), ``row_reversed``, ``column_reversed``.
    """

    size: int | tuple[int, int]
    shift: int = 0
    serpentine: bool = False
    directions: tuple[str, ...] = FOUR_DIRECTIONS

    def __post_init__(self) -> None:
        if min(self._sides) < 1:
            raise RecipeError(f"size is {self.size}; a window needs at least 1 token per side")
        check_window(max(self._sides))
        if not 0 <= self.shift < min(self._sides):
            raise RecipeError(
                f"shift is {self.shift}; it must be from 0 to {min(self._sides) - 1}, "
                "below both sides of the window"
            )
        check_directions(self.directions, FOUR_DIRECTIONS)

    @property
    def _sides(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        tall, wide = self._sides
        y_S, x_S = self._cells((height, width), (tall, wide), device)
        right_S, below_S = self._cells((width, height), (wide, tall), device)

        def tokens(y_S: Tensor, x_S: Tensor) -> Tensor:
            inside_S = (y_S >= 0) & (y_S < height) & (x_S >= 0) & (x_S < width)
            return torch.where(inside_S, y_S * width + x_S, -1)

        paths = {"row": tokens(y_S, x_S), "column": tokens(below_S, right_S)}
        return stack_directions(paths, self.directions)

    def _cells(
        self, grid: tuple[int, int], window: tuple[int, int], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return row and column of each step, window by window and row by row."""
        (height, width), (tall, wide) = grid, window
        # Rows and columns that the first windows lack.
        above, left = (tall - self.shift) % tall, (wide - self.shift) % wide
        rows, columns = (height + above + tall - 1) // tall, (width + left + wide - 1) // wide
        # Computed for each step instead of cut from a padded grid, so that a traced graph also
        # works for grids of a single window.
        step_S = torch.arange(rows * columns * tall * wide, dtype=torch.int32, device=device)
        window_S, outer_S = step_S // (tall * wide), step_S // wide % tall
        inner_S, row_S, column_S = step_S % wide, window_S // columns, window_S % columns
        if self.serpentine:
            column_S = torch.where(row_S % 2 == 0, column_S, columns - 1 - column_S)
            inner_S = torch.where(outer_S % 2 == 0, inner_S, wide - 1 - inner_S)
        return row_S * tall + outer_S - above, column_S * wide + inner_S - left
