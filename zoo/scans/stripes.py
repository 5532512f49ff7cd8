"""Scan order in nested S-shaped stripes (MaIR).

Shape suffixes: L steps of a path.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import RecipeError
from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions
from zoo.scans.window import check_window

DIRECTIONS = ("stripe", "stripe_turned", "transposed", "transposed_turned")
"""Directions in the order in which MaIR stores their weights."""

KNOWN = (*DIRECTIONS, *(f"{name}_reversed" for name in DIRECTIONS))


@SCANS.register("stripes")
@dataclass(frozen=True, kw_only=True)
class Stripes(ScanOrder):
    """Vertical stripes from left to right, each read row by row in serpentine (MaIR, Sec. 3.3).

    Stripes are read downwards and upwards in turn, so that a path hardly ever jumps. With a
    shift, the first stripe is narrower, so that blocks in turn cut the image at different columns.

    ``stripe_turned`` is the path of the image turned by 180 degrees: step t reads the token
    L - 1 - t' where ``stripe`` reads t'. It starts at the bottom right and is another path than
    ``stripe_reversed``. ``transposed`` has rows and columns exchanged.

    A grid narrower than the shift, and wider than 1, is read row by row without turns, as in the
    authors' code.

    Source: XLearning-SCU/2025-CVPR-MaIR.

    Args:
        width: width of a stripe in tokens.
        shift: width of the first stripe, from 0 to width - 1; 0 for a whole stripe.
        directions: any of ``stripe``, ``stripe_turned``, ``transposed``, ``transposed_turned``,
            and each with ``_reversed``.
    """

    width: int = 4
    shift: int = 0
    directions: tuple[str, ...] = DIRECTIONS

    def __post_init__(self) -> None:
        if self.width < 1:
            raise RecipeError(f"width is {self.width}; a stripe is at least 1 token wide")
        check_window(self.width, "width")
        if not 0 <= self.shift < self.width:
            raise RecipeError(
                f"shift is {self.shift}; it must be from 0 to {self.width - 1}, below the width"
            )
        check_directions(self.directions, KNOWN)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        row_L, column_L = self._cells(height, width, device)
        stripe_L = row_L * width + column_L
        column_L, row_L = self._cells(width, height, device)
        transposed_L = row_L * width + column_L
        last = height * width - 1
        paths = {
            "stripe": stripe_L,
            "stripe_turned": last - stripe_L,
            "transposed": transposed_L,
            "transposed_turned": last - transposed_L,
        }
        return stack_directions(paths, self.directions)

    def _cells(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the row and the column of each step over a grid of this size."""
        step_L = torch.arange(height * width, dtype=torch.int32, device=device)
        missing = (self.width - self.shift) % self.width  # columns that the first stripe lacks
        stripe_L = (step_L + missing * height) // (self.width * height)
        start_L = (stripe_L * self.width - missing).clamp(min=0)
        end_L = ((stripe_L + 1) * self.width - missing).clamp(max=width)
        breadth_L, in_stripe_L = end_L - start_L, step_L - start_L * height
        down_L, right_L = in_stripe_L // breadth_L, in_stripe_L % breadth_L
        # The authors turn the odd rows of a grid narrower than the shift twice.
        narrow_L = (stripe_L == 0) & (breadth_L < self.shift)
        backward_L = (down_L % 2 == 1) & ~narrow_L
        column_L = torch.where(backward_L, end_L - 1 - right_L, start_L + right_L)
        row_L = torch.where(stripe_L % 2 == 0, down_L, height - 1 - down_L)
        return row_L, column_L
