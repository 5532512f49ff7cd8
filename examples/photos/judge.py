"""Whether an image is a photograph that a restoration network can learn from.

Shape suffixes: H height, W width, C colour channels; b blocks of 8 x 8 pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SIDE = 400
"""Smallest side, in pixels, of an image that is considered."""

FLAT = 0.6
"""Largest share of blocks without any texture. Drawings and gradients have more; photographs with
much sky have up to 0.5."""

_BLOCK = 8
_SMOOTH = 2.0
"""A block is flat if no pixel differs from the mean of its neighbours by more, in levels of 255."""

_ALIKE = 6
"""Two images are the same photo if at most so many of the 64 bits of their prints differ."""


def flatness(gray_HW: np.ndarray) -> float:
    """The share of 8 x 8 blocks that hold neither edges nor noise, of an image of about 720 rows.

    Args:
        gray_HW: brightness, 0 to 255. Larger images are first reduced by whole factors, so that
            the noise of the camera and of the JPEG file does not count.
    """
    small_HW = _reduced(gray_HW.astype(np.float32), max(1, round(min(gray_HW.shape) / 720)))
    centre = small_HW[1:-1, 1:-1]
    around = small_HW[:-2, 1:-1] + small_HW[2:, 1:-1] + small_HW[1:-1, :-2] + small_HW[1:-1, 2:]
    detail_HW = np.abs(around - 4 * centre)
    rows, columns = (side // _BLOCK for side in detail_HW.shape)
    blocks = detail_HW[: rows * _BLOCK, : columns * _BLOCK]
    most_bb = blocks.reshape(rows, _BLOCK, columns, _BLOCK).max(axis=(1, 3))
    return float((most_bb <= _SMOOTH).mean())


def fault(color_HWC: np.ndarray) -> str:
    """Why an image is left out; empty if it may be a photograph.

    Args:
        color_HWC: in [0, 1], C = 1 or 3.
    """
    height, width = color_HWC.shape[:2]
    if min(height, width) < SIDE:
        return f"{width} x {height} pixels are too few"
    share = flatness(255 * color_HWC.mean(axis=2))
    return f"a drawing: {share:.0%} of it is flat" if share > FLAT else ""


def fingerprint(color_HWC: np.ndarray) -> int:
    """64 bits: whether brightness rises from each of 8 x 8 cells to the one on its right.

    Copies of a photo in another size or quality have nearly the same bits.
    """
    gray_HW = color_HWC.mean(axis=2)
    rows = np.array_split(gray_HW, 8, axis=0)
    cells = np.array([[part.mean() for part in np.array_split(row, 9, axis=1)] for row in rows])
    bits = (cells[:, 1:] > cells[:, :-1]).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def same_as(print_: int, others: Iterable[tuple[str, int]]) -> str:
    """The name of a photo with nearly the same fingerprint; empty if there is none."""
    for name, other in others:
        if (print_ ^ other).bit_count() <= _ALIKE:
            return name
    return ""


def _reduced(image_HW: np.ndarray, factor: int) -> np.ndarray:
    height, width = (side // factor * factor for side in image_HW.shape)
    cells = image_HW[:height, :width].reshape(height // factor, factor, width // factor, factor)
    return np.asarray(cells.mean(axis=(1, 3)))
