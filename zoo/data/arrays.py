"""Images in files of arrays: ``.npy`` and ``.npz`` of NumPy, ``.mat`` of MATLAB.

An image is an array (H, W) or (H, W, C). Other shapes, such as (C, H, W), are never guessed.

Shape suffixes: H height and W width in pixels, C channels of any number.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data import npy
from zoo.data.inputs import read_input
from zoo.data.photo import Photo, Saving
from zoo.data.value_range import image_of, of_file
from zoo.errors import ImageError, pip_install, reason_of
from zoo.limits import PIXELS_VARIABLE, max_pixels

logger = logging.getLogger(__name__)

NPY_SIGNATURE = b"\x93NUMPY"
ZIP_SIGNATURE = b"PK\x03\x04"
MAT_SIGNATURES = (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")

IMAGE = "image"
"""Name of the array of an image in a file that can hold several."""

_MAT_NUMBERS = {"uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4,
                "single": 4, "double": 8}  # fmt: skip
"""Classes of MATLAB that are real numbers, with their bytes."""

_BYTES_OF_PIXEL = 8
"""Bytes of the largest pixel that the limit on pixels counts, as for photographs."""

_DEFLATE_RATIO = 1032


INSTALL_MAT = pip_install("mat")


def missing_mat() -> str:
    """Return what to install for MATLAB files, or "" if they can be read."""
    return "" if importlib.util.find_spec("scipy") else INSTALL_MAT


def read_npy(path: Path, data: bytes) -> Photo:
    """Read the image of an npy file."""
    return image_of(path, npy.array_of(path, data))


def read_npz(path: Path, data: bytes) -> Photo:
    """Read the image of an npz file: its array ``image``, or its only array with two dimensions."""
    arrays = npy.arrays_of(path, data, lambda name: None)
    shapes = {name: array.shape for name, array in arrays.items()}
    name = _chosen(path, shapes)
    return replace(image_of(path, arrays[name]), dropped=_others(shapes, name))


def read_mat(path: Path, data: bytes) -> Photo:
    """Read the image of a MATLAB file: its array ``image``, or its only array of numbers."""
    shapes = mat_shapes(path, data)
    name = _chosen(path, shapes)
    return replace(image_of(path, mat_array(path, data, name)), dropped=_others(shapes, name))


def _others(names: Iterable[str], chosen: str) -> tuple[str, ...]:
    """Say which arrays are not the image."""
    return tuple(f"the array {name[:40]!r}" for name in names if name != chosen)


def mat_shapes(path: Path, data: bytes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of numbers in a MATLAB file, without reading their values.

    Raises:
        ImageError: if the file is damaged, of version 7.3, or declares more than it can hold, or if
            SciPy is not installed.
    """
    found = {}
    for name, shape, kind in _scipy(path, data, "whosmat"):
        if kind not in _MAT_NUMBERS or any(length < 0 for length in shape):
            continue
        size = math.prod(shape) * _MAT_NUMBERS[kind]
        if size > len(data) * _DEFLATE_RATIO:
            raise ImageError(
                f"image file {str(path)!r} is damaged: {name[:40]!r} declares {size} bytes, more "
                "than the file can hold"
            )
        found[name] = tuple(shape)
    return found


def mat_array(path: Path, data: bytes, name: str) -> np.ndarray:
    """Read one array of a MATLAB file; its shape was checked by :func:`mat_shapes`.

    Raises:
        ImageError: as :func:`mat_shapes`.
    """
    found = _scipy(path, data, "loadmat", variable_names=[name], mat_dtype=True)
    return np.asarray(found[name])


def _scipy(path: Path, data: bytes, reader: str, **options: Any) -> Any:
    name = f"image file {str(path)!r}"
    if data.startswith(MAT_SIGNATURES[1]):
        raise ImageError(
            f"{name} is a MATLAB file of version 7.3, which is not read; in MATLAB, save it with "
            "'-v7', or write it with numpy.save"
        )
    scipy_io = _scipy_io(name)
    try:
        return getattr(scipy_io, reader)(io.BytesIO(data), **options)
    except Exception as error:  # damaged files raise a dozen kinds of errors
        reason = reason_of(error)
        raise ImageError(
            f"{name} cannot be read: {reason}; write it again with MATLAB or scipy.io.savemat"
        ) from error


def _scipy_io(name: str) -> Any:
    try:
        from scipy import io as scipy_io
    except ImportError as error:
        raise ImageError(
            f"{name} needs SciPy, which cannot be imported ({error}); {INSTALL_MAT}"
        ) from error
    return scipy_io


def blocks_of(path: Path) -> np.ndarray:
    """Read the images of a MATLAB file of blocks, such as SIDD's: (N, H, W, C), in their dtype.

    SIDD's file has the shape (40, 32, 256, 256, 3): 32 blocks of each of 40 photos.

    Raises:
        ImageError: if the file cannot be read, or has no single array of at least four dimensions.
    """
    return named_blocks(path)[1]


def named_blocks(path: Path) -> tuple[str, np.ndarray]:
    """Read the images of a MATLAB file of blocks, and the name of their variable.

    Raises:
        ImageError: as :func:`blocks_of`.
    """
    stamp = path.stat().st_mtime_ns if path.exists() else 0
    return _named_blocks(path, stamp)


@functools.lru_cache(maxsize=2)  # the noisy and the clean blocks, which are read many times
def _named_blocks(path: Path, stamp: int) -> tuple[str, np.ndarray]:
    data = read_input(path, "image file")
    shapes = {name: shape for name, shape in mat_shapes(path, data).items() if len(shape) > 3}
    if len(shapes) != 1:
        raise ImageError(
            f"image file {str(path)!r} has {len(shapes)} arrays of blocks{_listed(shapes)}; it "
            "needs one, of the shape (photos, blocks, H, W, C) or (N, H, W, C)"
        )
    name = _chosen(path, shapes)
    array = mat_array(path, data, name)
    return name, array.reshape(-1, *array.shape[-3:])


def _chosen(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name of the array that is the image."""
    if IMAGE in shapes:
        found = IMAGE
    else:
        candidates = [name for name, shape in shapes.items() if len(shape) >= 2]
        if len(candidates) != 1:
            raise ImageError(
                f"image file {str(path)!r} has {len(candidates)} arrays that may be the image"
                f"{_listed(candidates)}; name one of them {IMAGE!r}"
            )
        [found] = candidates
    values = math.prod(shapes[found])
    if values > max_pixels() * _BYTES_OF_PIXEL:
        raise ImageError(
            f"image file {str(path)!r} has {values:,} values in {found[:40]!r}, and the limit is "
            f"{max_pixels() * _BYTES_OF_PIXEL:,}; make it smaller, or raise {PIXELS_VARIABLE}"
        )
    return found


def _listed(names: Iterable[str]) -> str:
    shown = ", ".join(sorted(names)[:4])
    return f" ({shown[:80]})" if shown else ""


def _flat(path: Path, photo: Photo) -> np.ndarray:
    """Values of a file, (H, W) for one channel, otherwise (H, W, C); NaN where there is no data."""
    if photo.alpha_HW is not None:
        logger.warning("%s: alpha is dropped, because arrays have none", path)
    if photo.no_data_HWC is not None and photo.bit_depth != 32:
        logger.warning("%s: integers of %s cannot mark pixels without data", path, path.suffix)
    # A mark has a meaning beside its tag in a TIFF file only.
    values_HWC = of_file(path, replace(photo, no_data=None) if photo.bit_depth == 32 else photo)
    return values_HWC[..., 0] if values_HWC.shape[2] == 1 else values_HWC


def encode_npy(path: Path, photo: Photo, saving: Saving) -> bytes:
    """Encode an image as an npy file, with the dtype of the file that it was read from."""
    held = io.BytesIO()
    np.save(held, _flat(path, photo))
    return held.getvalue()


def encode_npz(path: Path, photo: Photo, saving: Saving) -> bytes:
    """Encode an image as the array ``image`` of an npz file."""
    held = io.BytesIO()
    np.savez_compressed(held, image=_flat(path, photo))
    return held.getvalue()


def encode_mat(path: Path, photo: Photo, saving: Saving) -> bytes:
    """Encode an image as the array ``image`` of a MATLAB file."""
    return mat_bytes(path, {IMAGE: _flat(path, photo)})


def mat_bytes(path: Path, values: Mapping[str, Any]) -> bytes:
    """Return the content of a MATLAB file.

    Args:
        path: the file, for error messages.
        values: its variables: arrays, texts and numbers; an array of objects becomes a cell.

    Raises:
        ImageError: if SciPy is missing.
    """
    held = io.BytesIO()
    _scipy_io(repr(str(path))).savemat(held, dict(values), do_compression=True)
    return held.getvalue()
