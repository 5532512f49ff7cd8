"""Reading, writing and listing image files.

In memory, colours are always RGB (or one gray channel), float32 in [0, 1]. The EXIF orientation is
applied when reading. Pixels are not converted between colour profiles: the profile stays with them,
like EXIF, XMP and resolution (:mod:`zoo.data.metadata`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from zoo.data.formats import (
    EXTENSIONS,
    PHOTO_EXTENSIONS,
    WRITE_EXTENSIONS,
    encoded,
    format_of,
)
from zoo.data.inputs import read_input
from zoo.data.photo import AS_USUAL, Photo, Saving
from zoo.data.value_range import ValueRange, in_range
from zoo.errors import ImageError
from zoo.files import natural_key, write_bytes

logger = logging.getLogger(__name__)

__all__ = [
    "EXTENSIONS",
    "WRITE_EXTENSIONS",
    "Photo",
    "Saving",
    "list_photos",
    "read_frames",
    "read_photo",
    "write_photo",
]


def read_photo(
    path: str | Path, value_range: ValueRange | None = None, *, floats_only: bool = False
) -> Photo:
    """Read an image file of a format in :data:`zoo.data.formats.FORMATS`.

    Images may be gray, RGB or palette, with or without alpha, with 8 or 16 bits per sample. A file
    of several pages or frames is an error; :func:`read_frames` reads them. Images are rotated
    according to their EXIF orientation. If a TIFF stores colours multiplied by alpha, they are
    divided by it. CMYK colours become RGB, with a warning.

    TIFF files of bands, and files of arrays (``.npy``, ``.npz``, ``.mat``), have any number of
    channels, as uint8, uint16 or floating point.

    Args:
        path: the file.
        value_range: the values of the file that are 0 and 1 in memory; None for 0 and the largest
            level, or for floating-point values that are in [0, 1].
        floats_only: whether the range is not that of 8 or 16 bits, as for guides, which are often
            pictures beside data of another kind.

    Raises:
        ImageError: if the file is missing, a folder, empty, not an image or damaged, or if the
            range of its floating-point values is not stated.
    """
    path = Path(path)
    data = read_input(path, "image file")
    photo = format_of(path, data).read(path, data)
    stated = value_range if photo.bit_depth == 32 or not floats_only else None
    return in_range(path, photo, stated)


def read_frames(path: str | Path) -> list[Photo]:
    """Read every frame of an animation, or every page of a TIFF file; see :func:`read_photo`.

    Frames of an animation are whole pictures, as they are shown.

    Raises:
        ImageError: as :func:`read_photo`, and if all frames together have too many pixels.
    """
    path = Path(path)
    data = read_input(path, "image file")
    found = format_of(path, data)
    return [found.read(path, data)] if found.read_all is None else found.read_all(path, data)


def write_photo(path: str | Path, photo: Photo, saving: Saving = AS_USUAL) -> None:
    """Write a photo in the format given by the extension of ``path``.

    Values are clipped to [0, 1] and rounded to the nearest level, halves upwards. PNG and TIFF keep
    the photo's bit depth; the other formats have 8 bits. PNG, TIFF and WebP keep alpha; for other
    formats it is dropped with a warning. Gray with alpha is written as RGB with alpha. PNG, JPEG,
    TIFF and WebP get the photo's metadata. The file is written completely or not at all; missing
    folders are created.

    Args:
        path: the file; its extension chooses the format.
        photo: the photo.
        saving: quality, for JPEG and WebP, and metadata.

    Raises:
        ImageError: for an unknown extension, a format that cannot be lossless, values that are not
            finite, or an image too large for the format.
        WriteError: if the file cannot be written.
    """
    path = Path(path)
    write_bytes(path, encoded(path, photo, saving))


def list_photos(folder: str | Path) -> list[Path]:
    """List image files directly inside ``folder``, in natural order: ``a2.png`` before ``a10.png``.

    Image files are recognised by their extension, in upper or lower case. Hidden files and folders
    are skipped. Links to missing files are listed, so that reading says what is missing. Arrays
    beside photographs, such as labels, are left out, and a line says so.

    Raises:
        ImageError: if the folder is missing, is a file, cannot be read or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        fault = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ImageError(f"image folder {str(folder)!r} {fault}; check the path")
    try:
        found = [path for path in folder.iterdir() if _is_photo(path)]
    except OSError as error:
        raise ImageError(
            f"image folder {str(folder)!r} cannot be read: {error.strerror}; check its permissions"
        ) from error
    if not found:
        raise ImageError(
            f"image folder {str(folder)!r} holds no image; it needs files that end in one of "
            f"{', '.join(EXTENSIONS)} directly inside it"
        )
    images, arrays = without_arrays(found)
    if arrays:
        logger.info("%s: %d files of arrays beside photographs are left out", folder, len(arrays))
    return sorted(images, key=natural_key)


def holds_photos(folder: Path) -> bool:
    """Whether a folder holds a file that :func:`list_photos` would list."""
    return folder.is_dir() and any(_is_photo(path) for path in folder.iterdir())


def _is_photo(path: Path) -> bool:
    known = path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    return known and not path.is_dir()


def without_arrays(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Separate the images of a folder from arrays beside photographs, such as labels.

    Returns:
        The images, and the arrays that are none. Where there is no photograph, arrays are images.
    """
    photos = [path for path in files if path.suffix.lower() in PHOTO_EXTENSIONS]
    if not photos:
        return list(files), []
    return photos, [path for path in files if path.suffix.lower() not in PHOTO_EXTENSIONS]
