"""Reading RAW photos (DNG) as Bayer planes, with rawpy.

Shape suffixes: H height, W width of the mosaic in pixels; 4 the planes R, Gr, Gb, B.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.inputs import read_input
from zoo.errors import ImageError, pip_install
from zoo.limits import PIXELS_VARIABLE, max_pixels

SUFFIX = ".dng"

_CELL = ("RG", "GB")
"""Colours of the first two rows and columns of a mosaic that gives the planes R, Gr, Gb, B."""

_AS_PNG = "develop it and give PNG or TIFF files as RGB frames"


class RawFrame(NamedTuple):
    """One RAW photo.

    Attributes:
        planes_4HW: float32 (4, H/2, W/2): R, Gr, Gb, B, linear; 0 is black and 1 is white.
        facts: gains and colour matrix, if the file has them; see
            :meth:`zoo.data.burst.camera.Camera.from_data`.
        flips: how the picture becomes upright; see :func:`upright`.
    """

    planes_4HW: Tensor
    facts: dict[str, Any]
    flips: int


def upright(image_IHW: Tensor, flips: int) -> Tensor:
    """Turn a picture upright.

    Args:
        image_IHW: the picture.
        flips: the sum of 1 to mirror left and right, 2 to mirror top and bottom, and 4 to swap rows
            and columns afterwards, as in LibRaw.
    """
    sides = [side for bit, side in ((1, -1), (2, -2)) if flips & bit]
    turned = image_IHW.flip(sides) if sides else image_IHW
    return turned.mT if flips & 4 else turned


def read_dng(path: Path) -> RawFrame:
    """Read a DNG file with a Bayer mosaic, as phones and HDR+ store their bursts.

    The black level of each of the four colours is subtracted, and the result divided by the white
    level above it. If the mosaic does not start with red, its first row or column is left out, so
    that every phase gives the same planes.

    Raises:
        ImageError: if the file is missing, damaged, too large or no Bayer mosaic, or rawpy is not
            installed.
    """
    name = f"RAW file {str(path)!r}"
    data = read_input(path, "RAW file")
    with _opened(name, data) as raw:
        sizes = raw.sizes
        if sizes.raw_height * sizes.raw_width > 4 * max_pixels():
            raise ImageError(
                f"{name} has {sizes.raw_width}x{sizes.raw_height} pixels, and the limit for its "
                f"planes is {max_pixels():,} pixels; crop it, or raise {PIXELS_VARIABLE}"
            )
        mosaic_HW = _mosaic(name, raw)
        top, left = _red(name, raw)
        planes = [
            _plane(name, raw, mosaic_HW, top + row, left + column)
            for row in (0, 1)
            for column in (0, 1)
        ]
        # A side of an odd number of pixels has one more line of its first colour.
        height, width = (min(plane.shape[side] for plane in planes) for side in (0, 1))
        stacked = np.stack([plane[:height, :width] for plane in planes])
        return RawFrame(torch.from_numpy(stacked), _camera(raw), int(sizes.flip))


@contextmanager
def _opened(name: str, data: bytes) -> Iterator[Any]:
    try:
        import rawpy
    except ImportError as error:
        raise ImageError(
            f"{name} needs rawpy, which cannot be imported ({error}); {pip_install('raw')}"
        ) from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            yield raw
    except rawpy.LibRawError as error:
        said = str(error.args[0] if error.args else error).strip("b'")[:80]
        raise ImageError(
            f"{name} cannot be read: {said}; open it in a viewer, and copy it again if it is "
            "damaged"
        ) from error


def _mosaic(name: str, raw: Any) -> np.ndarray:
    """The mosaic inside the margins, (H, W) uint16."""
    mosaic = raw.raw_image_visible if raw.raw_type.name == "Flat" else None
    if mosaic is None or mosaic.ndim != 2 or min(mosaic.shape) < 4:
        raise ImageError(f"{name} has no Bayer mosaic, its colours are complete; {_AS_PNG}")
    return mosaic


def _red(name: str, raw: Any) -> tuple[int, int]:
    """Row and column of the first red pixel inside the margins, each 0 or 1."""
    for top in (0, 1):
        for left in (0, 1):
            if all(
                _letter(raw, top + row, left + column) == _CELL[row][column]
                for row in (0, 1)
                for column in (0, 1)
            ):
                return top, left
    raise ImageError(f"{name} has a mosaic that is no Bayer pattern; {_AS_PNG}")


def _index(raw: Any, row: int, column: int) -> int:
    """Number of the colour of a pixel, counted from the margins."""
    return int(raw.raw_color(raw.sizes.top_margin + row, raw.sizes.left_margin + column))


def _letter(raw: Any, row: int, column: int) -> str:
    index = _index(raw, row, column)
    return raw.color_desc.decode("ascii", "replace")[index : index + 1]


def _plane(name: str, raw: Any, mosaic_HW: np.ndarray, row: int, column: int) -> np.ndarray:
    index = _index(raw, row, column)
    black, white = raw.black_level_per_channel[index], raw.white_level
    if not 0 <= black < white:
        raise ImageError(
            f"{name} has a black level of {black} and a white level of {white}; white must be above"
        )
    plane = mosaic_HW[row::2, column::2].astype(np.float32)
    plane -= np.float32(black)
    plane /= np.float32(white - black)
    return plane


def _camera(raw: Any) -> dict[str, Any]:
    """Gains and colour matrix; nothing if the file lacks them."""
    red, green, blue = list(raw.camera_whitebalance)[:3]
    to_rgb = np.asarray(raw.color_matrix, np.float64)[:, :3]
    if not min(red, green, blue) > 0 or not np.linalg.cond(to_rgb) < np.inf:
        return {}
    return {
        "rgb2cam": np.linalg.inv(to_rgb).tolist(),
        "rgb_gain": 1.0,
        "red_gain": float(red / green),
        "blue_gain": float(blue / green),
    }
