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
from typing import Any, TypeAlias

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

SLACK = 1e-3
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
    try:
        low, high = map(float, value_range)
    except (TypeError, ValueError):
        low = high = 0.0
    if not (-_LARGEST < low < high < _LARGEST):
        raise RecipeError(
            f"range is {shown(value_range)}; it must be the value that is black and the "
            "larger value that is white, such as [0, 10000]"
        )
    return low, high


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
        values_HWC = photo.color_HWC * np.float64(_WHITE[photo.bit_depth])
        color_HWC = scaled(path, values_HWC, value_range, photo.no_data_HWC)
        return replace(photo, color_HWC=color_HWC, value_range=value_range)
    if photo.bit_depth == 32:
        low, high = float(photo.color_HWC.min()), float(photo.color_HWC.max())
        if low < -SLACK or high > 1 + SLACK:
            raise ImageError(
                f"image file {str(path)!r} has values from {low:g} to {high:g}; state which values "
                "are black and white, with data.range='[LOW, HIGH]', zoo restore --range LOW HIGH "
                "or, in Python, value_range=(LOW, HIGH)"
            )
    return photo


def scaled(
    path: Path, values: np.ndarray, value_range: ValueRange, no_data: np.ndarray | None = None
) -> np.ndarray:
    """Convert values to [0, 1], float32. Those outside the range are clipped; many, with a warning.

    Args:
        path: the file, for the warning.
        values: values of any shape.
        value_range: the values that become 0 and 1.
        no_data: where values mean nothing.
    """
    low, high = value_range
    found: np.ndarray = ((values - np.float64(low)) / (high - low)).astype(np.float32)
    outside = (found < 0) | (found > 1)
    if no_data is not None:
        outside &= ~no_data
    if (share := float(outside.mean())) > _MANY:
        logger.warning("%s: %.0f %% of the values are outside %s", path, 100 * share, value_range)
    return found.clip(0, 1)


def unscaled(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Undo :func:`scaled`: values of any shape, float64."""
    low, high = value_range
    found: np.ndarray = values.clip(0, 1) * np.float64(high - low) + low
    return found


def of_file(path: Path, photo: Photo) -> np.ndarray:
    """Convert an image back to the values of a file, (H, W, C) uint8, uint16 or float32.

    Values are clipped to the range. Where there is no data, the file's value for it is written. A
    value that equals it elsewhere becomes the next one, or it would be taken for no data.

    Raises:
        ImageError: if a value is not finite.
    """
    check_finite(path, photo.color_HWC)
    values_HWC = of_levels(photo)
    if photo.bit_depth == 32:
        if photo.value_range is None:
            values_HWC = values_HWC.clip(0, 1)
        values_HWC = values_HWC.astype(np.float32)
    else:
        values_HWC = quantise(values_HWC, photo.bit_depth)
    if photo.no_data_HWC is None:
        return values_HWC
    if photo.no_data is None:
        values_HWC[photo.no_data_HWC] = math.nan
        return values_HWC
    mark = values_HWC.dtype.type(photo.no_data)
    same_HWC = _marked(values_HWC, mark, together=is_rgb(photo)) & ~photo.no_data_HWC
    values_HWC[same_HWC] = _beside(mark)
    values_HWC[photo.no_data_HWC] = mark
    return values_HWC


def is_rgb(photo: Photo) -> bool:
    """Whether an image is red, green and blue, not bands: the file says so, or it has no range."""
    if photo.color_HWC.shape[2] != 3:
        return False
    return photo.value_range is None if photo.rgb is None else photo.rgb


def _marked(values_HWC: np.ndarray, mark: Any, *, together: bool) -> np.ndarray:
    """Where values equal the mark; of colours, where all channels of a pixel do."""
    marked_HWC: np.ndarray = values_HWC == mark
    if together:
        marked_HWC = np.broadcast_to(marked_HWC.all(axis=2, keepdims=True), marked_HWC.shape)
    return marked_HWC


def _beside(mark: Any) -> Any:
    """The value beside a mark: the next one towards 0, or above 0."""
    if isinstance(mark, np.floating):
        return np.nextafter(mark, mark.dtype.type(0 if mark else 1))
    return mark - 1 if mark else mark + 1


def of_levels(photo: Photo) -> np.ndarray:
    """Undo a stated range: (H, W, C), where 1 is the largest level again.

    Floating-point values are those of the file. Without a range, values are not clipped: encoders
    clip when they quantise.
    """
    if photo.value_range is None:
        return photo.color_HWC
    return unscaled(photo.color_HWC, photo.value_range) / _WHITE[photo.bit_depth]


def check_finite(path: Path, values: np.ndarray) -> None:
    """Check values before they are written or returned.

    Raises:
        ImageError: if one is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ImageError(
            f"{path}: the result has NaN or infinite values; the network has diverged, its weights "
            "hold NaN, or it has overflowed in fp16 (largest number 65504): use fp32 or bf16"
        )


def image_of(
    path: Path, array: np.ndarray, no_data: float | None = None, *, rgb: bool | None = None
) -> Photo:
    """Convert an array of a file to an image; :func:`in_range` comes next.

    Where a value is NaN, infinite or ``no_data``, its band has no data. It gets the nearest value
    that the band has, so that a network does not spread it. A band without any data becomes 0.

    Args:
        path: the file, for messages.
        array: (H, W) or (H, W, C) real numbers. uint8 and uint16 keep their depth; all others
            become float32.
        no_data: a finite value that means that there is no data, beside NaN. A value that the
            array cannot hold has no effect.
        rgb: whether three channels are red, green and blue. Such a pixel has no data where all
            three are ``no_data``: 0 is a usual mark, and a usual value of one channel.

    Raises:
        ImageError: if the shape or dtype is another, or there is no data at all.
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
    mark = None if no_data is None else _as_value(no_data, array.dtype)
    if mark is not None:
        empty_HWC |= _marked(array_HWC, mark, together=bool(rgb))
    if bit_depth != 32:
        color_HWC /= np.float32(_WHITE[bit_depth])
    if not empty_HWC.any():
        return Photo(np.ascontiguousarray(color_HWC), bit_depth=bit_depth, rgb=rgb)
    if empty_HWC.all():
        raise ImageError(f"{name} has no pixel with data; check the file")
    held = no_data is not None and _as_value(no_data, np.dtype(np.float32)) is not None
    return Photo(
        _filled(color_HWC, empty_HWC),
        bit_depth=bit_depth,
        no_data_HWC=empty_HWC,
        no_data=no_data if held else None,  # float64 is written as float32
        rgb=rgb,
    )


def _as_value(no_data: float, dtype: np.dtype) -> Any:
    """A mark as a value of a type; None if the type does not have it."""
    with np.errstate(over="ignore"):
        if dtype.kind == "f":
            value = dtype.type(no_data)
            return value if np.isfinite(value) else None
    limits = np.iinfo(dtype)
    whole = no_data == math.floor(no_data) and limits.min <= no_data <= limits.max
    return dtype.type(int(no_data)) if whole else None


def _filled(color_HWC: np.ndarray, empty_HWC: np.ndarray) -> np.ndarray:
    """Give each value of a band where it has no data the nearest value that it has, or 0."""
    if (empty_HWC == empty_HWC[..., :1]).all():
        return bleed_colors(color_HWC, np.where(empty_HWC[..., 0], 0.0, 1.0))
    filled_HWC = np.where(empty_HWC, np.float32(0), color_HWC)
    for band in range(color_HWC.shape[2]):
        alone = np.s_[..., band : band + 1]
        seen_HW = np.where(empty_HWC[..., band], 0.0, 1.0)
        filled_HWC[alone] = bleed_colors(filled_HWC[alone], seen_HW)
    return filled_HWC


def refuse_no_data(path: str | Path, photo: Photo) -> None:
    """Check that all pixels have data, as training and scores need.

    Raises:
        ImageError: if some have none; the message says how many.
    """
    if photo.no_data_HWC is not None:
        raise ImageError(f"image file {str(path)!r} {said_of_no_data(photo)}; cut them off first")


def said_of_no_data(photo: Photo) -> str:
    """Say how many pixels have no data, as in "has 12 pixels without data (0.1 %)"."""
    assert photo.no_data_HWC is not None
    any_HW = photo.no_data_HWC.any(axis=2)
    count = int(any_HW.sum())
    percent = 100 * count / any_HW.size
    share = f"{percent:.0f}" if percent > 10 else f"{percent:.2g}"
    some = "" if photo.no_data_HWC[any_HW].all() else "; other bands have data there"
    return f"has {count} pixels without data ({share} %: NaN, infinite or marked in the file{some})"
