"""Padding an image at the bottom and right to a multiple of a grid, and cropping it back.

Shape suffixes: H height, W width in pixels; "..." is one or more leading dimensions, as in
``(B, I, H, W)`` and ``(B, T, I, H, W)``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

PadMode: TypeAlias = Literal["replicate", "reflect", "mirror"]
"""What a margin holds: the last row and column again, or the image mirrored at or behind them."""


class Margin(NamedTuple):
    """Number of pixels added to an image. The numbers may be symbols of a traced graph.

    Attributes:
        below: rows added below the last one.
        right: columns added to the right of the last one.
    """

    below: int
    right: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing is added. False while tracing, where it cannot be known."""
        # Comparing a symbol would fix its value in the traced graph.
        if torch.compiler.is_dynamo_compiling():
            return False
        return all(isinstance(size, int) and size == 0 for size in self)


def margin_to_grid(image: Tensor, rows: int, columns: int | None = None) -> Margin:
    """Compute the margin that pads height and width to the next multiples.

    Args:
        image: (..., H, W).
        rows: the padded height is a multiple of this.
        columns: the padded width is a multiple of this. None means ``rows``.
    """
    height, width = image.shape[-2:]
    columns = rows if columns is None else columns
    # In this form, the tracer can prove that the padded size is a multiple.
    below = (height + rows - 1) // rows * rows - height
    right = (width + columns - 1) // columns * columns - width
    return Margin(below, right)


def pad(image: Tensor, margin: Margin, mode: PadMode = "replicate") -> Tensor:
    """Add a margin: ``(..., H, W) -> (..., H + below, W + right)``.

    Args:
        image: (..., H, W).
        margin: number of rows and columns to add.
        mode: "replicate" repeats the last row and column. "reflect" mirrors the image at them
            without repeating them, "mirror" repeats them; both do so more than once where the
            margin is larger than the image.
    """
    if margin.is_empty:
        return image
    if mode != "replicate":
        index = reflected if mode == "reflect" else mirrored
        height, width = image.shape[-2:]
        rows = index(torch.arange(height + margin.below, device=image.device), height)
        columns = index(torch.arange(width + margin.right, device=image.device), width)
        return image.index_select(-2, rows).index_select(-1, columns)
    # F.pad takes at most two dimensions before height and width.
    flat = image.flatten(0, -4) if image.dim() > 4 else image
    padded = F.pad(flat, (0, margin.right, 0, margin.below), mode=mode)
    return torch.unflatten(padded, 0, image.shape[:-3]) if image.dim() > 4 else padded


def reflected(position: Tensor, size: int) -> Tensor:
    """Return the place in 0 .. size-1 that a position beyond the border reflects.

    The last place is not repeated: after it comes the last but one.
    """
    # The path there and back has 2 * size - 2 positions. That of a side of 1 is 1 position long.
    there = position % torch.sym_max(2 * size - 2, 1)
    return torch.minimum(there, 2 * size - 2 - there).clamp(min=0)


def mirrored(position: Tensor, size: int) -> Tensor:
    """Return the place in 0 .. size-1 that a position beyond the border mirrors.

    The last place is repeated, as if the mirror stood behind it.
    """
    there = position % (2 * size)
    return torch.minimum(there, 2 * size - 1 - there)


def crop(image: Tensor, margin: Margin, scale: int = 1) -> Tensor:
    """Remove a margin that was added before the image was enlarged ``scale`` times."""
    if margin.is_empty:
        return image
    # Negative padding, because a slice would fix the example's sizes in a traced graph.
    return F.pad(image, (0, -margin.right * scale, 0, -margin.below * scale))
