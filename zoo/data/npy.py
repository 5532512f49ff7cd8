"""Reading arrays from npy and npz files, without believing what a file says about their sizes.

An npz file is a zip archive of npy files. NumPy reserves memory for the shape in an npy header
before it reads the values, so a header of a few bytes can ask for terabytes. Here, the shape must
agree with the size of the entry, and the size of the entry with the size of the file. And all
entries together may take no more memory than the largest burst: an honest archive of zeros can be a
thousand times smaller than its content.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from zoo.data.inputs import read_input
from zoo.errors import ImageError, reason_of
from zoo.limits import PIXELS_VARIABLE, max_pixels

_RATIO = 1032
"""Largest number of bytes that one byte of an entry can become (deflate)."""

_BYTES_OF_PIXEL = 20
"""Memory for a pixel of the limit: four samples of a byte, and the same in float32."""

_FACT_BYTES = 2**16
"""Largest array beside the large one."""

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Compression methods that NumPy writes."""

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
"""Readers of npy headers by version."""


def read_arrays(path: Path, large: str, most: int) -> dict[str, np.ndarray]:
    """Read arrays of an npz file.

    Args:
        path: the file.
        large: name of the array that may have any size.
        most: largest number of values of the other arrays; larger ones are left out, also those
            of more than 64 KiB.

    Returns:
        Arrays of numbers or text by name.

    Raises:
        ImageError: if the file is missing, damaged, encrypted, too large, or not an npz file; if an
            array is damaged, has Python objects, or declares another size than it has.
    """
    data = read_input(path, "npz file")
    return arrays_of(path, data, lambda name: None if name == large else most)


def arrays_of(path: Path, data: bytes, most: Callable[[str], int | None]) -> dict[str, np.ndarray]:
    """Read arrays of the bytes of an npz file; see :func:`read_arrays`.

    Args:
        path: the file, for messages.
        data: its bytes.
        most: returns the largest number of values of the array of a name, or None for any number;
            arrays with more are left out.
    """
    with (
        _told(f"npz file {str(path)!r}", "numpy.savez"),
        zipfile.ZipFile(io.BytesIO(data)) as archive,
    ):
        return dict(_arrays(archive, most))


def array_of(path: Path, data: bytes) -> np.ndarray:
    """Read the array of the bytes of an npy file.

    Args:
        path: the file, for messages.
        data: its bytes.

    Raises:
        ImageError: if it is damaged or too large, has Python objects, or declares another size than
            it has.
    """
    with _told(f"npy file {str(path)!r}", "numpy.save"):
        left = max_pixels() * _BYTES_OF_PIXEL
        found = _array(io.BytesIO(data), len(data), left, None)
        assert found is not None
        return found


@contextmanager
def _told(name: str, writer: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise ImageError(f"{name} is larger than the free memory") from error
    except Exception as error:
        # Damaged archives and headers raise a dozen kinds of errors, from zlib.error to TokenError.
        reason = reason_of(error)
        raise ImageError(
            f"{name} cannot be read: {reason}; write it again with {writer}"
        ) from error


def _arrays(
    archive: zipfile.ZipFile, most: Callable[[str], int | None]
) -> Iterator[tuple[str, np.ndarray]]:
    left = max_pixels() * _BYTES_OF_PIXEL
    for entry in archive.infolist():
        name = entry.filename.removesuffix(".npy")
        if name == entry.filename:
            continue
        if entry.compress_type not in _METHODS:
            raise ValueError(f"{name} has compression method {entry.compress_type}")
        if entry.file_size > entry.compress_size * _RATIO:
            raise ValueError(f"{name} declares {entry.file_size} bytes, but has fewer")
        with archive.open(entry) as file:
            array = _array(file, entry.file_size, left, most(name))
        if array is not None:
            left -= _memory(array.size, array.nbytes)
            yield name, array


def _memory(count: int, size: int) -> int:
    """Bytes of an array and of its copy in float32."""
    return size + 4 * count


def _array(file: IO[bytes], size: int, left: int, most: int | None) -> np.ndarray | None:
    """Read one npy file of ``size`` bytes into at most ``left`` bytes of memory.

    Returns:
        The array; None if it has more than ``most`` values.
    """
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of an npy file is unknown")
    shape, by_columns, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it has Python objects, which could run code")
    if any(length < 0 for length in shape):
        raise ValueError(f"the shape {shape} is negative")
    count = math.prod(shape)
    if count * dtype.itemsize != size - file.tell():
        raise ValueError(
            f"the shape {str(shape)[:60]} needs {count * dtype.itemsize} bytes, but there are "
            f"{size - file.tell()}"
        )
    if most is not None and (count > most or size > _FACT_BYTES):
        return None
    if _memory(count, size) > left:
        raise ValueError(
            f"{count:,} values are too many for the limit of {max_pixels():,} pixels, which "
            f"{PIXELS_VARIABLE} raises"
        )
    values = np.frombuffer(file.read(), dtype, count)  # to the end, where the checksum is compared
    return values.reshape(shape, order="F" if by_columns else "C")
