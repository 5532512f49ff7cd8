"""The image formats: how each is recognised, read and written.

A file is recognised by its first bytes, whatever its name is. A folder is searched by extensions,
and the extension of an output chooses the format that is written.

To add a format, write a module with a function that reads it, and add a row to ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zoo.data import containers, raster, tiff
from zoo.data.photo import Photo
from zoo.errors import ImageError


@dataclass(frozen=True, kw_only=True)
class Format:
    """An image format.

    Attributes:
        name: the name for people.
        extensions: file name extensions in lower case; the first is the usual one.
        recognises: whether a file with these bytes is of the format. Formats are asked in the order
            of the table, so a special case comes before the general one.
        read: decodes a file; takes the path, for messages, and the bytes. It checks the size
            against :func:`zoo.limits.max_pixels` before it reserves memory.
        encode: encodes a photo; takes the path, for messages, and the photo. None if the format is
            only read.
    """

    name: str
    extensions: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    read: Callable[[Path, bytes], Photo]
    encode: Callable[[Path, Photo], bytes] | None = None


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(signatures)


def _raster(
    name: str,
    extensions: tuple[str, ...],
    recognises: Callable[[bytes], bool],
    *,
    alpha: bool = False,
    deep: bool = False,
) -> Format:
    return Format(
        name=name,
        extensions=extensions,
        recognises=recognises,
        read=raster.read,
        encode=partial(raster.encode, alpha=alpha, deep=deep),
    )


FORMATS = (
    _raster("PNG", (".png",), _starts(containers.PNG_SIGNATURE), alpha=True, deep=True),
    _raster("JPEG", (".jpg", ".jpeg"), _starts(containers.JPEG_SIGNATURE)),
    _raster("WebP", (".webp",), containers.is_webp, alpha=True),
    _raster("TIFF", (".tif", ".tiff"), _starts(*tiff.SIGNATURES), alpha=True, deep=True),
    _raster("BMP", (".bmp",), _starts(containers.BMP_SIGNATURE)),
)
"""All formats, in the order in which they are tried."""

EXTENSIONS = tuple(sorted(extension for each in FORMATS for extension in each.extensions))
"""File name extensions, in lower case, that are read."""

WRITE_EXTENSIONS = tuple(
    sorted(extension for each in FORMATS if each.encode for extension in each.extensions)
)
"""File name extensions, in lower case, that are written."""


def format_of(path: Path, data: bytes) -> Format:
    """Return the format of a file.

    Args:
        path: the file, for the error message.
        data: its bytes.

    Raises:
        ImageError: if no format recognises the bytes.
    """
    for found in FORMATS:
        if found.recognises(data):
            return found
    raise ImageError(
        f"image file {str(path)!r} cannot be decoded: its content is none of "
        f"{', '.join(EXTENSIONS)}; open it in a viewer and save it as PNG"
    )


def encoder_for(path: Path) -> Callable[[Path, Photo], bytes]:
    """Return the function that encodes photos in the format of a path's extension.

    Raises:
        ImageError: if there is none.
    """
    extension = path.suffix.lower()
    for found in FORMATS:
        if extension in found.extensions and found.encode is not None:
            return found.encode
    raise ImageError(
        f"cannot write {str(path)!r}: its extension is none of {', '.join(WRITE_EXTENSIONS)}"
    )
