"""The image formats: how each is recognised, read and written.

A file is recognised by its first bytes, whatever its name is. A folder is searched by extensions,
and the extension of an output chooses the format that is written.

To add a format, write a module with a function that reads it, and add a row to ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from zoo.data import arrays, containers, heif, multiband, raster, tiff
from zoo.data.photo import Photo, Saving
from zoo.errors import ImageError

Encode: TypeAlias = Callable[[Path, Photo, Saving], bytes]


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
        read_all: decodes every frame or page of a file, like ``read``. None if there is always one.
        encode: encodes a photo; takes the path, for messages, the photo, and how it is written.
            None if the format is only read.
        missing: returns what to install before files can be read, or "" if they can be.
        lossy: whether files can lose colours, so that they have a quality.
        lossless: whether files can keep all colours.
        photographs: whether files hold photographs, not arrays of any meaning.
        bands: whether files hold any number of channels, and mark where there is no data.
        marks_levels: whether they mark it among integers, too, which have no NaN.
    """

    name: str
    extensions: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    read: Callable[[Path, bytes], Photo]
    read_all: Callable[[Path, bytes], list[Photo]] | None = None
    encode: Encode | None = None
    missing: Callable[[], str] = str
    lossy: bool = False
    lossless: bool = True
    photographs: bool = True
    bands: bool = False
    marks_levels: bool = False

    def marks(self, photo: Photo) -> bool:
        """Whether a file tells where a photo has no data."""
        return self.marks_levels or (self.bands and photo.bit_depth == 32)


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(signatures)


def _raster(
    name: str,
    extensions: tuple[str, ...],
    recognises: Callable[[bytes], bool],
    *,
    alpha: bool = False,
    deep: bool = False,
    lossy: bool = False,
    lossless: bool = True,
) -> Format:
    return Format(
        name=name,
        extensions=extensions,
        recognises=recognises,
        read=raster.read,
        read_all=raster.read_all,
        encode=partial(raster.encode, alpha=alpha, deep=deep),
        missing=partial(raster.missing, extensions[0]),
        lossy=lossy,
        lossless=lossless,
    )


def _array(
    extension: str,
    signature: bytes | tuple[bytes, ...],
    read: Callable[[Path, bytes], Photo],
    encode: Encode,
    missing: Callable[[], str] = str,
) -> Format:
    return Format(
        name=f"arrays ({extension})",
        extensions=(extension,),
        recognises=lambda data: data.startswith(signature),
        read=read,
        encode=encode,
        missing=missing,
        photographs=False,
        bands=True,
    )


FORMATS = (
    _raster("PNG", (".png",), _starts(containers.PNG_SIGNATURE), alpha=True, deep=True),
    _raster(
        "JPEG", (".jpg", ".jpeg"), _starts(containers.JPEG_SIGNATURE), lossy=True, lossless=False
    ),
    _raster("WebP", (".webp",), containers.is_webp, alpha=True, lossy=True),
    Format(
        name="TIFF of bands",
        extensions=(".tif", ".tiff"),
        recognises=multiband.is_multiband,
        read=multiband.read,
        encode=multiband.encode,
        missing=multiband.missing,
        bands=True,
        marks_levels=True,
    ),
    _raster("TIFF", (".tif", ".tiff"), _starts(*tiff.SIGNATURES), alpha=True, deep=True),
    _raster("BMP", (".bmp",), _starts(containers.BMP_SIGNATURE)),
    Format(
        name="GIF",
        extensions=(".gif",),
        recognises=_starts(*containers.GIF_SIGNATURES),
        read=raster.read,
        read_all=raster.read_all,
        missing=partial(raster.missing, ".gif"),
    ),
    Format(
        name="HEIC",
        extensions=(".heic", ".heif"),
        recognises=heif.is_heic,
        read=heif.read_heic,
        read_all=heif.read_all_heic,
        missing=heif.missing_heic,
    ),
    Format(
        name="AVIF",
        extensions=(".avif",),
        recognises=heif.is_avif,
        read=heif.read_avif,
        read_all=heif.read_all_avif,
        missing=heif.missing_avif,
    ),
    _array(".npy", arrays.NPY_SIGNATURE, arrays.read_npy, arrays.encode_npy),
    _array(".npz", arrays.ZIP_SIGNATURE, arrays.read_npz, arrays.encode_npz),
    _array(".mat", arrays.MAT_SIGNATURES, arrays.read_mat, arrays.encode_mat, arrays.missing_mat),
)
"""All formats, in the order in which they are tried."""


def _extensions(formats: Iterable[Format]) -> tuple[str, ...]:
    return tuple(sorted({extension for each in formats for extension in each.extensions}))


EXTENSIONS = _extensions(FORMATS)
"""File name extensions, in lower case, that are read."""

PHOTO_EXTENSIONS = _extensions(each for each in FORMATS if each.photographs)
"""Those of photographs."""

ARRAY_EXTENSIONS = _extensions(each for each in FORMATS if not each.photographs)
"""Those of arrays."""

WRITE_EXTENSIONS = _extensions(each for each in FORMATS if each.encode)
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


def format_for(path: Path) -> Format:
    """Return the format that is written to a path, by its extension.

    Raises:
        ImageError: if there is none.
    """
    extension = path.suffix.lower()
    for found in FORMATS:
        if extension in found.extensions and found.encode is not None:
            return found
    raise ImageError(
        f"cannot write {str(path)!r}: its extension is none of {', '.join(WRITE_EXTENSIONS)}"
    )


def encoded(path: Path, photo: Photo, saving: Saving) -> bytes:
    """Encode a photo in the format of a path's extension; see :func:`zoo.data.write_photo`."""
    found = format_for(path)
    check_channels(path, photo.color_HWC.shape[2])
    check_saving([path], replace(saving, quality=None))  # others of a folder may have one
    assert found.encode is not None
    return found.encode(path, photo, saving)


def check_channels(path: Path, channels: int) -> None:
    """Check that a file can hold so many channels.

    Raises:
        ImageError: if its format holds 1 or 3.
    """
    if channels not in (1, 3) and not format_for(path).bands:
        raise ImageError(
            f"cannot write {str(path)!r}: {path.suffix.lower()} holds 1 or 3 channels, not "
            f"{channels}; use .tif, .npy or .npz"
        )


def check_saving(outputs: Sequence[Path], saving: Saving) -> None:
    """Check that outputs can be written as asked for, before the work.

    Raises:
        ImageError: if one cannot be lossless, or a quality has an effect on none.
    """
    formats = [format_for(path) for path in outputs]
    for path, found in zip(outputs, formats, strict=True):
        if saving.lossless and not found.lossless:
            raise ImageError(f"{path}: {found.name} cannot be lossless; write .png or .webp")
    if saving.quality is not None and formats and not any(found.lossy for found in formats):
        names = " and ".join(found.name for found in FORMATS if found.lossy)
        kind = outputs[0].suffix[1:].upper()
        raise ImageError(f"{outputs[0]}: {kind} has no quality, only {names} have one")
