"""Values of images that are no photographs: which of them are 0 and 1, and where there are none.

In memory every image is about [0, 1]. Levels of 8 or 16 bits have an obvious range. Floating-point
values have none: unless they are in [0, 1] already, the range must be stated, in ``data.range`` of
a recipe or ``zoo restore --range``.

Shape suffixes: H height and W width in pixels, C channels of any number.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from zoo.data.photo import Photo
from zoo.data.pixels import bleed_colors, quantise
from zoo.errors import ImageError, RecipeError, shown
from zoo.recipe import Recipe

logger = logging.getLogger(__name__)

ValueRange: TypeAlias = tuple[float, float]
"""The values of a file that are 0 and 1 in memory."""

_LARGEST = 1e30
"""Largest value in a range; the square of a difference must fit float64."""

_SLACK = 1e-3
"""Values of an unstated range may be outside [0, 1] by so much, as filters leave them."""

_MANY = 0.01
"""Share of values outside the range from which a warning says so."""

_WHITE = {8: 255.0, 16: 65535.0, 32: 1.0}
"""The value of a file that is 1 if no range is stated, by bits per sample."""


def check_range(value_range: ValueRange | None) -> ValueRange | None:
    """Check a stated range, and return it.

    Raises:
        RecipeError: if it is not two finite numbers, the first below the second.
    """
    if value_range is None:
        return None
    low, high = value_range
    if not (-_LARGEST < low < high < _LARGEST):
        raise RecipeError(
            f"range is {shown(list(value_range))}; it must be the value that is black and the "
            "larger value that is white, such as [0, 10000]"
        )
    return float(low), float(high)


def range_of(recipe: Recipe | None) -> ValueRange | None:
    """Return the range of values that a network was trained with; None if none was stated.

    Raises:
        RecipeError: if the recipe states something else.
    """
    data = recipe.train.get("data") if recipe is not None and recipe.train else None
    stated = data.get("range") if isinstance(data, Mapping) else None
    if stated is None:
        return None
    numbers = isinstance(stated, (list, tuple)) and len(stated) == 2
    if not numbers or not all(isinstance(value, (int, float)) for value in stated):
        raise RecipeError(f"train.data.range is {shown(stated)}; it must be two numbers")
    return check_range((stated[0], stated[1]))


def is_photographic(channels: int, value_range: ValueRange | None) -> bool:
    """Whether images are gray or RGB photographs, which the field measures in 8 bits."""
    return channels in (1, 3) and value_range is None


def in_range(path: Path, photo: Photo, value_range: ValueRange | None) -> Photo:
    """Convert the values of a file to about [0, 1]. Values outside a stated range are clipped.

    Args:
        path: the file, for messages.
        photo: an image as it was read: levels divided by the largest one, or floating-point values
            as they are.
        value_range: the values that are 0 and 1; None for 0 and the largest level, or for
            floating-point values that are in [0, 1].

    Raises:
        ImageError: if the range of floating-point values is not stated and not [0, 1].
    """
    if value_range is not None:
        low, high = value_range
        color_HWC = photo.color_HWC * np.float64(_WHITE[photo.bit_depth])
        color_HWC = ((color_HWC - low) / (high - low)).astype(np.float32)
        outside = float(((color_HWC < 0) | (color_HWC > 1)).mean())
        if outside > _MANY:
            logger.warning(
                "%s: %.2g %% of the values are outside %s", path, 100 * outside, value_range
            )
        return replace(photo, color_HWC=color_HWC.clip(0, 1), value_range=value_range)
    if photo.bit_depth == 32:
        low, high = float(photo.color_HWC.min()), float(photo.color_HWC.max())
        if low < -_SLACK or high > 1 + _SLACK:
            raise ImageError(
                f"image file {str(path)!r} has values from {low:g} to {high:g}; state which values "
                "are black and white, with data.range='[LOW, HIGH]' or zoo restore --range LOW HIGH"
            )
    return photo


def of_file(path: Path, photo: Photo) -> np.ndarray:
    """Convert an image back to the values of a file, (H, W, C) uint8, uint16 or float32.

    Values are clipped to the range. Pixels without data get the file's value for them.

    Raises:
        ImageError: if a value is not finite.
    """
    check_finite(path, photo.color_HWC)
    values_HWC = of_levels(photo)
    if photo.bit_depth == 32:
        values_HWC = values_HWC.astype(np.float32)
    else:
        values_HWC = quantise(values_HWC, photo.bit_depth)
    if photo.no_data_HW is not None:
        values_HWC[photo.no_data_HW] = math.nan if photo.no_data is None else photo.no_data
    return values_HWC


def of_levels(photo: Photo) -> np.ndarray:
    """Undo a stated range: (H, W, C), where 1 is the largest level again.

    Floating-point values are those of the file.
    """
    if photo.value_range is None:
        return photo.color_HWC.clip(0, 1)
    low, high = photo.value_range
    levels_HWC: np.ndarray = photo.color_HWC.clip(0, 1) * np.float64(high - low) + low
    return levels_HWC / _WHITE[photo.bit_depth]


def check_finite(path: Path, values: np.ndarray) -> None:
    """Check values before they are written.

    Raises:
        ImageError: if one is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ImageError(
            f"cannot write {str(path)!r}: the image has NaN or infinite values; "
            "the network that made it has diverged or overflowed"
        )


def image_of(path: Path, array: np.ndarray, no_data: float | None = None) -> Photo:
    """Convert an array of a file to an image; :func:`in_range` comes next.

    Pixels where a channel is NaN, infinite or ``no_data`` have no data. They get the values of the
    nearest pixel that has data, so that a network does not spread them.

    Args:
        path: the file, for messages.
        array: (H, W) or (H, W, C) real numbers. uint8 and uint16 keep their depth; all others
            become float32.
        no_data: a finite value that means that there is no data, beside NaN.

    Raises:
        ImageError: if the shape or dtype is another, or no pixel has data.
    """
    name = f"image file {str(path)!r}"
    if array.ndim not in (2, 3) or 0 in array.shape:
        shape = "x".join(map(str, array.shape)) or "a single number"
        raise ImageError(f"{name} has the shape {shape[:60]}; an image is (H, W) or (H, W, C)")
    if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
        raise ImageError(
            f"{name} has values of type {array.dtype}; they must be real numbers, such as float32 "
            "or uint16"
        )
    array_HWC = np.atleast_3d(array)
    bit_depth = {"uint8": 8, "uint16": 16}.get(array.dtype.name, 32)
    with np.errstate(over="ignore"):
        color_HWC = array_HWC.astype(np.float32)
    empty_HWC = ~np.isfinite(color_HWC)
    if no_data is not None:
        empty_HWC |= array_HWC == no_data
    empty_HW = np.asarray(empty_HWC.any(axis=2))
    if bit_depth != 32:
        color_HWC /= np.float32(_WHITE[bit_depth])
    if not empty_HW.any():
        return Photo(np.ascontiguousarray(color_HWC), bit_depth=bit_depth)
    if empty_HW.all():
        raise ImageError(f"{name} has no pixel with data in all channels; check the file")
    return Photo(
        bleed_colors(color_HWC, np.where(empty_HW, 0.0, 1.0)),
        bit_depth=bit_depth,
        no_data_HW=empty_HW,
        no_data=no_data,
    )


def refuse_no_data(path: str | Path, photo: Photo) -> None:
    """Check that all pixels have data, as training and scores need.

    Raises:
        ImageError: if some have none; the message says how many.
    """
    if photo.no_data_HW is not None:
        raise ImageError(f"image file {str(path)!r} {said_of_no_data(photo)}; cut them off first")


def said_of_no_data(photo: Photo) -> str:
    """Say how many pixels have no data, as in "has 12 pixels without data (0.1 %)"."""
    assert photo.no_data_HW is not None
    count = int(photo.no_data_HW.sum())
    share = 100 * count / photo.no_data_HW.size
    return f"has {count} pixels without data ({share:.2g} %: NaN, infinite or marked in the file)"
