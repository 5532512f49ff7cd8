"""TIFF files that are no photographs: any number of bands, or floating point. tifffile reads them.

OpenCV, which reads photographs, takes four samples for red, green, blue and alpha, drops bands of
other files in silence, and refuses more than four.

Sources: TIFF 6.0 Sec. 8 (SamplesPerPixel, ExtraSamples) and 19 (SampleFormat); the GDAL driver of
GeoTIFF for the tag of pixels without data.

Shape suffixes: H height and W width in pixels, C bands of any number.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data import raster, tiff
from zoo.data.embedding import embedded
from zoo.data.metadata import read_metadata
from zoo.data.photo import Photo, Saving
from zoo.data.value_range import image_of, is_photographic, is_rgb, of_file
from zoo.errors import ImageError, pip_install, reason_of

_SAMPLE_FORMAT, _UNSIGNED = 339, 1
_GRAY = (0, 1)
"""Values of the tag of the meaning of samples for gray images."""

_RGB = 2
"""Its value for red, green and blue."""

_UNSPECIFIED = 0
"""Value of ExtraSamples for a band that is no alpha."""

_GDAL_NO_DATA = 42113
_GEOREFERENCE = (33550, 33922, 34264, 34735)
"""Tags of pixel size, tie points, transformation and coordinate system, of GeoTIFF 1.1 Sec. 7."""

_OF_NO_DATA = "parsing GDAL_NODATA tag"
"""What tifffile says of a mark of no data that no value of the file can equal."""

_REDUCED = 1
_RATIO = {1: 1}
"""Largest number of bytes that one byte of image data can become, by compression."""

_LARGEST_RATIO = 2**16
"""The same for all other compressions, of which LZW reaches about 1400 and zstd more."""


INSTALL = pip_install("tiff")


def missing() -> str:
    """Return what to install for TIFF files of bands, or "" if they can be read."""
    return "" if importlib.util.find_spec("tifffile") else INSTALL


def is_multiband(data: bytes) -> bool:
    """Whether a file is a TIFF that is no photograph."""
    if not data.startswith(tiff.SIGNATURES):
        return False
    found = tiff.directory(data)

    def values(tag: int) -> tuple[int, ...]:
        return tiff.values_in(data, found, tag)

    samples = next(iter(values(tiff.SAMPLES)), 1)
    extra = values(tiff.EXTRA_SAMPLES)
    unsigned = all(kind == _UNSIGNED for kind in values(_SAMPLE_FORMAT))
    deep = any(bits > 16 for bits in values(tiff.BITS))
    gray = next(iter(values(tiff.PHOTOMETRIC)), 1) in _GRAY
    bands = samples > 4 or (gray and (samples > 2 or (samples == 2 and not extra)))
    marked = _GDAL_NO_DATA in found.entries
    return bands or deep or not unsigned or marked or extra == (_UNSPECIFIED,)


def read(path: Path, data: bytes) -> Photo:
    """Read a TIFF file of bands, (H, W, C): the first page, with all its samples.

    Raises:
        ImageError: if the file is damaged, too large, has several pages or a compression that needs
            another library, or if tifffile is not installed.
    """
    name = f"image file {str(path)!r}"
    tifffile = _tifffile(name)
    try:
        with _heard() as complaints, tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = [page for page in file.pages if not page.subfiletype & _REDUCED]
            page = file.pages.first
            fault = _fault(page, len(pages), data)
            if fault is None:
                raster.check_size(
                    name, page.imagewidth, page.imagelength, tiff.bytes_of_pixel(data)
                )
                array = page.asarray()
                if faults := [said for said in complaints if _OF_NO_DATA not in said]:
                    raise ValueError(faults[0])
                array_HWC = np.moveaxis(array, 0, -1) if page.axes.startswith("S") else array
                three = array_HWC.ndim == 3 and array_HWC.shape[2] == 3
                rgb = int(page.photometric) == _RGB if three else None
                metadata = read_metadata(data)
                upright_HWC = raster.upright(np.atleast_3d(array_HWC), metadata.orientation)
                photo = image_of(path, upright_HWC, _no_data(page), rgb=rgb)
                georeferenced = any(tag in page.tags for tag in _GEOREFERENCE)
                return replace(
                    photo,
                    metadata=metadata.upright(),
                    dropped=("the georeference",) if georeferenced else (),
                )
    except ImageError:
        raise
    except MemoryError as error:
        raise raster.too_large(path) from error
    except Exception as error:  # damaged files raise a dozen kinds of errors
        reason = reason_of(error)
        fault = f"cannot be read: {reason}"
        if "imagecodecs" in reason:
            fault = (
                "has a compression that needs another library; pip install imagecodecs, or save it "
                "without compression"
            )
        raise ImageError(f"{name} {fault}") from error
    raise ImageError(f"{name} {fault}")


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Fill the list with errors and warnings that tifffile writes to its log in this thread.

    It goes on after damage, and fills the missing part with anything.
    """
    said: list[str] = []
    thread = threading.get_ident()
    handler = logging.Handler(logging.WARNING)

    def keep(record: logging.LogRecord) -> bool:
        if record.thread == thread:
            said.append(record.getMessage())
        return False

    handler.addFilter(keep)
    log = logging.getLogger("tifffile")
    log.addHandler(handler)
    log.propagate = False
    try:
        yield said
    finally:
        log.removeHandler(handler)


def _fault(page: Any, pages: int, data: bytes) -> str | None:
    """What is wrong with a file, before memory is reserved for its values."""
    if pages > 1:
        return (
            f"has {pages} pages; store bands as the samples of one page, or as an array (H, W, C) "
            "in an .npy file"
        )
    if page.imagedepth != 1 or page.axes not in ("YX", "YXS", "SYX"):
        return f"is no image of bands: its axes are {page.axes[:20]}; save it as .npy"
    if any(
        place + length > len(data) or not length
        for place, length in zip(page.dataoffsets, page.databytecounts, strict=True)
    ):
        return "is damaged or cut short; copy it again"
    held = sum(page.databytecounts) * _RATIO.get(int(page.compression), _LARGEST_RATIO)
    if page.nbytes > held or tiff.is_damaged(data):
        return "is damaged: it declares more values than it holds"
    return None


def _no_data(page: Any) -> float | None:
    """The value that marks pixels without data, if the file names one."""
    tag = page.tags.get(_GDAL_NO_DATA)
    try:
        marked = math.nan if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None
    return marked if math.isfinite(marked) else None


def encode(path: Path, photo: Photo, saving: Saving) -> bytes:
    """Encode an image as TIFF: a photograph as such, everything else as bands.

    Bands are not compressed. They keep the dtype of their file, the mark of pixels without data,
    and metadata as photographs do.

    Raises:
        ImageError: if a value is not finite, or tifffile is not installed.
    """
    channels = photo.color_HWC.shape[2]
    photographic = is_photographic(channels, photo.value_range)
    bands = photo.bit_depth == 32 or photo.no_data_HWC is not None or photo.rgb is False
    if photographic and not bands:
        return raster.encode(path, photo, saving, alpha=True, deep=True)
    values_HWC = of_file(path, photo)
    if photo.alpha_HW is not None:
        raise ImageError(f"cannot write {str(path)!r}: bands have no alpha channel")
    held = io.BytesIO()
    extra = []
    if photo.no_data_HWC is not None:
        mark = "nan" if photo.no_data is None else f"{photo.no_data:.17g}"
        extra.append((_GDAL_NO_DATA, 2, len(mark) + 1, mark, False))
    _tifffile(repr(str(path))).imwrite(
        held,
        values_HWC[..., 0] if channels == 1 else values_HWC,
        photometric="rgb" if is_rgb(photo) else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        metadata=None,
        software=False,
        extratags=extra,
    )
    encoded = held.getvalue()
    if not saving.metadata:
        return encoded
    height, width, _ = values_HWC.shape
    return embedded(path, encoded, photo.metadata, (height, width, channels))


def _tifffile(name: str) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ImageError(
            f"{name} has several bands or floating-point values, which needs tifffile, and it "
            f"cannot be imported ({error}); {INSTALL}, or use .npy"
        ) from error
    return tifffile
