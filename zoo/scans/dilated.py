"""Scan order over interleaved grids of distant tokens.

Shape suffixes: H height, W width, in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import RecipeError
from zoo.scans.base import (
    SCANS,
    ScanOrder,
    check_directions,
    path_through,
    stack_directions,
)
from zoo.scans.raster import FOUR_DIRECTIONS
from zoo.scans.window import check_window


@SCANS.register("dilated")
@dataclass(frozen=True, kw_only=True)
class Dilated(ScanOrder):
    """Every ``step``-th token of every ``step``-th row, then the tokens between them.

    The image is split into ``step * step`` grids by the remainders of row and column. The grids
    are read one after another, each row by row, so that a path covers the whole image early, as
    with a dilated convolution (compare the atrous scan of EfficientVMamba, Pei et al., 2024).

    Args:
        step: distance between the tokens of a grid.
        directions: any of ``row`` (grids and tokens row by row), ``column`` (both column by
            column), ``row_reversed``, ``column_reversed``.
    """

    step: int = 2
    directions: tuple[str, ...] = FOUR_DIRECTIONS

    def __post_init__(self) -> None:
        if self.step < 1:
            raise RecipeError(f"step is {self.step}; it must be at least 1")
        check_window(self.step, "step")
        check_directions(self.directions, FOUR_DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        paths = {
            "row": path_through(self._steps(height, width, device)),
            "column": path_through(self._steps(width, height, device).t()),
        }
        return stack_directions(paths, self.directions)

    def _steps(self, height: int, width: int, device: torch.device) -> Tensor:
        """Return the step at which the path by rows reads each token, (H, W)."""
        row_H1 = torch.arange(height, device=device)[:, None]
        column_1W = torch.arange(width, device=device)[None]
        rows_before_H1, rows_H1 = self._shares(row_H1 % self.step, height)
        columns_before_1W, columns_1W = self._shares(column_1W % self.step, width)
        return (
            rows_before_H1 * width
            + rows_H1 * columns_before_1W
            + row_H1 // self.step * columns_1W
            + column_1W // self.step
        )

    def _shares(self, phase: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return how many of ``side`` lines have a smaller remainder, and how many have this."""
        whole, rest = side // self.step, side % self.step
        return phase * whole + phase.clamp(max=rest), whole + (phase < rest).long()
