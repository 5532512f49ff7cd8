"""HEIC and AVIF files, the photos of phones, which Pillow and pillow-heif read: extra ``[heif]``.

Both are read only: PNG and TIFF keep more, and JPEG and WebP are shown everywhere.

Sources: ISO/IEC 14496-12 Sec. 4.3 (brands), the AV1 image file format Sec. 2.2.
"""

from __future__ import annotations

import importlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.metadata import Metadata, checked
from zoo.data.photo import Photo
from zoo.data.raster import check_size, damaged, several_frames, too_large, upright
from zoo.errors import ImageError, pip_install

log = logging.getLogger(__name__)

_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}

_DEEP_AVIF = 0x40
"""Bit of the third byte of the property ``av1C``: samples have 10 or 12 bits."""


def is_avif(data: bytes) -> bool:
    """Whether the bytes start like an AVIF file."""
    return not _brands(data).isdisjoint(_AVIF)


def is_heic(data: bytes) -> bool:
    """Whether the bytes start like a HEIC file, and not like an AVIF file."""
    brands = _brands(data)
    return brands.isdisjoint(_AVIF) and not brands.isdisjoint(_HEIC)


def _brands(data: bytes) -> set[bytes]:
    """Brands in the first box of a file: the major one, and those it is compatible with."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}


def missing_heic() -> str:
    """Return what to install for HEIC files, or "" if they can be read."""
    return "" if _module("pillow_heif") else INSTALL


def missing_avif() -> str:
    """Return what to install for AVIF files, or "" if they can be read."""
    plugin = _module("PIL.AvifImagePlugin")
    return "" if plugin is not None and plugin.SUPPORTED else INSTALL


INSTALL = pip_install("heif")
"""What to run so that HEIC and AVIF files can be read."""


def _module(name: str) -> Any:
    """Import a module, or return None if it is not installed or its library does not load."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def read_heic(path: Path, data: bytes) -> Photo:
    """Decode a HEIC file; see :func:`zoo.data.read_photo`. Colours of 10 bits are kept.

    Raises:
        ImageError: if pillow-heif is not installed, or the file is damaged, too large, or holds
            several pictures.
    """
    return _decoded(path, lambda: _heic(path, data, most=1))[0]


def read_all_heic(path: Path, data: bytes) -> list[Photo]:
    """Decode every picture of a HEIC file; see :func:`read_heic`."""
    return _decoded(path, lambda: _heic(path, data))


def _heic(path: Path, data: bytes, most: int | None = None) -> list[Photo]:
    _check_installed(path, missing_heic())
    found = _module("pillow_heif").open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    _check(path, found.size, len(found), most)
    return [_photo_of_heic(picture) for picture in found]


def _photo_of_heic(found: Any) -> Photo:
    metadata = _metadata(found.info)  # the library has turned the picture already
    samples_HWC = np.atleast_3d(np.asarray(found))
    if samples_HWC.dtype == np.uint8:
        return _photo(samples_HWC, 255, 8, metadata)
    # Samples of 10 bits are the upper ones of 16.
    bits = found.info["bit_depth"]
    return _photo(samples_HWC, (2**bits - 1) << (16 - bits), 16, metadata)


def read_avif(path: Path, data: bytes) -> Photo:
    """Decode an AVIF file; see :func:`zoo.data.read_photo`. Its colours are read as 8 bits.

    Raises:
        ImageError: if Pillow is not installed or too old, or the file is damaged, too large, or an
            animation.
    """
    return _decoded(path, lambda: _avif(path, data, most=1))[0]


def read_all_avif(path: Path, data: bytes) -> list[Photo]:
    """Decode every frame of an AVIF file; see :func:`read_avif`."""
    return _decoded(path, lambda: _avif(path, data))


def _avif(path: Path, data: bytes, most: int | None = None) -> list[Photo]:
    _check_installed(path, missing_avif())
    found = _module("PIL.AvifImagePlugin").AvifImageFile(io.BytesIO(data))
    _check(path, found.size, found.n_frames, most)
    metadata = _metadata(found.info)
    at = data.find(b"av1C")
    if at >= 0 and data[at + 6 : at + 7] and data[at + 6] & _DEEP_AVIF:
        log.warning("%s: its colours of more than 8 bits are read as 8 bits", path)
    photos = []
    for number in range(found.n_frames):
        found.seek(number)
        samples_HWC = upright(np.atleast_3d(np.asarray(found)), metadata.orientation)
        photos.append(_photo(samples_HWC, 255, 8, metadata))
    return photos


def _check_installed(path: Path, missing: str) -> None:
    if missing:
        raise ImageError(
            f"image file {str(path)!r} is a HEIC or AVIF photo, and the library that reads it is "
            f"not installed: {missing}"
        )


def _check(path: Path, size: tuple[int, int], frames: int, most: int | None) -> None:
    if most is not None and frames > most:
        raise several_frames(path, frames)
    check_size(f"image file {str(path)!r}", size[0], size[1] * frames)


def _decoded(path: Path, decode: Callable[[], list[Photo]]) -> list[Photo]:
    try:
        return decode()
    except ImageError:
        raise
    except MemoryError as error:
        raise too_large(path) from error
    except Exception as error:  # the libraries raise errors of many kinds
        raise damaged(path, str(error)) from error


def _metadata(info: dict[str, Any]) -> Metadata:
    profile, exif, xmp = (info.get(key) or None for key in ("icc_profile", "exif", "xmp"))
    return checked(Metadata(profile, exif, xmp))


def _photo(samples_HWC: np.ndarray, top: int, bits: int, metadata: Metadata) -> Photo:
    values_HWC = samples_HWC / np.float32(top)
    colours = values_HWC.shape[2] - (values_HWC.shape[2] in (2, 4))
    alpha_HW = values_HWC[..., colours].copy() if colours < values_HWC.shape[2] else None
    color_HWC = np.ascontiguousarray(values_HWC[..., :colours])
    return Photo(color_HWC, alpha_HW, bits, metadata.upright())
