"""The Haar wavelet transform: an image as four bands of half its size, and back.

Shape suffixes: B batch, H height, W width, C channels; h, w half of H, W.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Bands(NamedTuple):
    """The four bands (B, h, w, C) of an image.

    Attributes:
        low: half the sum of each 2x2 cell.
        columns: difference between the right and the left column of the cell, halved ("HL").
        rows: difference between the lower and the upper row, halved ("LH").
        diagonal: difference between the two diagonals, halved ("HH").
    """

    low: Tensor
    columns: Tensor
    rows: Tensor
    diagonal: Tensor


def haar(x_BHWC: Tensor) -> Bands:
    """Compute the bands of an image with even H and W; the transform is orthonormal."""
    cells = x_BHWC.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    upper, lower = cells.unbind(2)
    (a, c), (b, d) = upper.unbind(3), lower.unbind(3)
    return Bands(
        low=(a + b + c + d) / 2,
        columns=(c + d - a - b) / 2,
        rows=(b + d - a - c) / 2,
        diagonal=(a + d - b - c) / 2,
    )


def inverse_haar(bands: Bands) -> Tensor:
    """Compute the image (B, H, W, C) of its bands."""
    low, columns, rows, diagonal = bands
    upper = torch.stack([low - columns - rows + diagonal, low + columns - rows - diagonal], dim=3)
    lower = torch.stack([low - columns + rows - diagonal, low + columns + rows + diagonal], dim=3)
    return (torch.stack([upper, lower], dim=2) / 2).flatten(3, 4).flatten(1, 2)
