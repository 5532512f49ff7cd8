"""Scan order in a spiral from the border of the image to its centre.

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

DIRECTIONS = ("clockwise", "anticlockwise", "clockwise_reversed", "anticlockwise_reversed")


@SCANS.register("spiral")
@dataclass(frozen=True, kw_only=True)
class Spiral(ScanOrder):
    """Rings from the border to the centre, so that each step goes to a neighbour.

    ``clockwise`` starts at the top left and goes right first. ``anticlockwise`` goes down first.
    The reversed directions go from the centre to the border.

    Args:
        directions: any of ``clockwise``, ``anticlockwise``, ``clockwise_reversed``,
            ``anticlockwise_reversed``.
    """

    directions: tuple[str, ...] = DIRECTIONS

    def __post_init__(self) -> None:
        check_directions(self.directions, DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        paths = {
            "clockwise": path_through(_steps(height, width, device)),
            "anticlockwise": path_through(_steps(width, height, device).t()),
        }
        return stack_directions(paths, self.directions)


def _steps(height: int, width: int, device: torch.device) -> Tensor:
    """Return the step at which the clockwise path reads each token, (H, W)."""
    row_H1 = torch.arange(height, device=device)[:, None]
    column_1W = torch.arange(width, device=device)[None]
    # The ring of a token is its distance from the nearest border.
    ring_HW = torch.minimum(
        torch.minimum(row_H1, height - 1 - row_H1),
        torch.minimum(column_1W, width - 1 - column_1W),
    )
    rows_HW, columns_HW = height - 2 * ring_HW, width - 2 * ring_HW
    down_HW, right_HW = row_H1 - ring_HW, column_1W - ring_HW
    bottom_HW = columns_HW + rows_HW - 2 + (columns_HW - 1 - right_HW)
    left_HW = 2 * (columns_HW - 1) + 2 * (rows_HW - 1) - down_HW
    in_ring_HW = torch.where(down_HW == rows_HW - 1, bottom_HW, left_HW)
    in_ring_HW = torch.where(right_HW == columns_HW - 1, columns_HW - 1 + down_HW, in_ring_HW)
    in_ring_HW = torch.where(down_HW == 0, right_HW, in_ring_HW)
    return height * width - rows_HW * columns_HW + in_ring_HW
