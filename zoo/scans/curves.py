"""Space-filling curves on a square of 2^n tokens a side, cut to the image.

Shape suffixes: H height, W width, L tokens (H * W).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions

Z_DIRECTIONS = ("row", "column", "row_reversed", "column_reversed")
HILBERT_DIRECTIONS = ("hilbert", "transposed", "hilbert_reversed", "transposed_reversed")

BITS = 16
"""Binary digits of a row or column number; sides of up to 65,536 tokens."""


@SCANS.register("z_order")
@dataclass(frozen=True, kw_only=True)
class ZOrder(ScanOrder):
    """The Z-order curve (Morton, 1966): quarters within quarters, each read like the letter Z.

    The step number has the binary digits of row and column in turn. The image is the part of a
    square of 2^n tokens a side; the tokens outside are left out.

    Args:
        directions: any of ``row`` (right first), ``column`` (down first), ``row_reversed``,
            ``column_reversed``.
    """

    directions: tuple[str, ...] = Z_DIRECTIONS

    def __post_init__(self) -> None:
        check_directions(self.directions, Z_DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        row_H1 = _spread(torch.arange(height, device=device))[:, None]
        column_1W = _spread(torch.arange(width, device=device))[None]
        paths = {
            "row": _sorted_by(2 * row_H1 + column_1W),
            "column": _sorted_by(row_H1 + 2 * column_1W),
        }
        return stack_directions(paths, self.directions)


@SCANS.register("hilbert_cropped")
@dataclass(frozen=True, kw_only=True)
class HilbertCropped(ScanOrder):
    """Hilbert's curve on the smallest square of 2^n tokens a side, cut to the image.

    Common in published code. The path jumps where it leaves the image and returns; ``hilbert``
    never jumps, at any size. On squares of 2^n tokens a side, both are the curve of Hilbert (1891).

    Args:
        directions: any of ``hilbert``, ``transposed``, ``hilbert_reversed``,
            ``transposed_reversed``.
    """

    directions: tuple[str, ...] = HILBERT_DIRECTIONS
    traceable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_directions(self.directions, HILBERT_DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        digits = (max(height, width) - 1).bit_length()
        row_H1 = torch.arange(height, device=device)[:, None]
        column_1W = torch.arange(width, device=device)[None]
        paths = {
            "hilbert": _sorted_by(_hilbert_number(column_1W, row_H1, digits)),
            "transposed": _sorted_by(_hilbert_number(row_H1, column_1W, digits)),
        }
        return stack_directions(paths, self.directions)


def _spread(number: Tensor) -> Tensor:
    """Put a zero before each binary digit."""
    digits = [((number >> digit) & 1) << (2 * digit) for digit in range(BITS)]
    return torch.stack(digits).sum(0)


def _sorted_by(number_HW: Tensor) -> Tensor:
    # Numbers are unique, so the sort need not be stable.
    return number_HW.reshape(-1).argsort().to(torch.int32)


def _hilbert_number(x: Tensor, y: Tensor, digits: int) -> Tensor:
    """Return the step of Hilbert's curve at each cell of a square of ``2**digits`` a side.

    Each pair of binary digits of x and y chooses a quarter; the rest is turned into the curve's
    first quarter.
    """
    x, y = torch.broadcast_tensors(x, y)
    number = torch.zeros_like(x)
    for digit in reversed(range(digits)):
        right, down = (x >> digit) & 1, (y >> digit) & 1
        number = number * 4 + ((3 * right) ^ down)
        side = (1 << digit) - 1
        x, y = x & side, y & side
        # Quarters in the upper half have their axes exchanged; the last one is also turned.
        turned = (right == 1) & (down == 0)
        x, y = torch.where(turned, side - x, x), torch.where(turned, side - y, y)
        x, y = torch.where(down == 0, y, x), torch.where(down == 0, x, y)
    return number
