"""Padding below and at the right, so that an image fills whole cells of a grid, and its undoing.

Shape suffixes: H height, W width in pixels; dots stand for any dimensions before them, at least
one, as in ``(B, I, H, W)`` and ``(B, T, I, H, W)``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Margin(NamedTuple):
    """Pixels that are added to an image. They may be symbols of a traced graph.

    Attributes:
        below: rows under the last one.
        right: columns behind the last one.
    """

    below: int
    right: int

    @property
    def is_empty(self) -> bool:
        """Whether it is known that nothing is added."""
        # Comparing a symbol would bind a traced graph to its value.
        if torch.compiler.is_dynamo_compiling():
            return False
        return all(isinstance(size, int) and size == 0 for size in self)


def margin_to_grid(image: Tensor, rows: int, columns: int | None = None) -> Margin:
    """The margin that brings height and width to the next multiples.

    Args:
        image: (..., H, W).
        rows: the padded height is a multiple of this.
        columns: the padded width is a multiple of this; of ``rows``, if None.
    """
    height, width = image.shape[-2:]
    columns = rows if columns is None else columns
    # Written as whole cells, so that a traced graph knows the padded size to be a multiple.
    below = (height + rows - 1) // rows * rows - height
    right = (width + columns - 1) // columns * columns - width
    return Margin(below, right)


def pad(image: Tensor, margin: Margin, mode: str = "replicate") -> Tensor:
    """Add a margin: ``(..., H, W) -> (..., H + below, W + right)``.

    Args:
        image: the images.
        margin: what to add.
        mode: as in ``F.pad``; "replicate" repeats the last row and column.
    """
    if margin.is_empty:
        return image
    # F.pad takes no more than two dimensions before height and width.
    flat = image.flatten(0, -4) if image.dim() > 4 else image
    padded = F.pad(flat, (0, margin.right, 0, margin.below), mode=mode)
    return torch.unflatten(padded, 0, image.shape[:-3]) if image.dim() > 4 else padded


def crop(image: Tensor, margin: Margin, scale: int = 1) -> Tensor:
    """Cut a margin off that was added before the image was enlarged ``scale`` times."""
    if margin.is_empty:
        return image
    # Negative padding: a slice would bind a traced graph to the sizes that were seen.
    return F.pad(image, (0, -margin.right * scale, 0, -margin.below * scale))
