"""Reading, writing and listing image files.

In memory, colours are always RGB (or one gray channel), float32 in [0, 1]. The EXIF orientation is
applied when reading. Colour profiles and other metadata are ignored and not written.

Shape suffixes: H height and W width in pixels, C colour channels (1 gray, 3 RGB).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from zoo.data import headers, tiff
from zoo.data.decoding import decoded, quiet_opencv
from zoo.data.inputs import read_input
from zoo.data.pixels import dequantise, quantise, with_channels
from zoo.errors import ImageError
from zoo.files import natural_key, write_bytes
from zoo.limits import PIXELS_VARIABLE, max_pixels

log = logging.getLogger(__name__)

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""File name extensions, in lower case, that are read and written."""

ALPHA_EXTENSIONS = (".png", ".tif", ".tiff", ".webp")
"""Extensions of formats that can hold an alpha channel."""

DEEP_EXTENSIONS = (".png", ".tif", ".tiff")
"""Extensions of formats that can hold 16 bits per sample."""

JPEG_QUALITY = 95
_WEBP_LOSSLESS = 101

_PIXEL_BYTES = 8
"""Largest pixel that is read: four samples of 16 bits."""

_BITS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}
# OpenCV's channel order is B, G, R, alpha. The same permutation converts back.
_RGB_FROM_BGR = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo, read from a file or to be written to one.

    Attributes:
        color_HWC: float32 in [0, 1], C = 1 (gray) or 3 (RGB). Not multiplied by alpha.
        alpha_HW: float32 in [0, 1], or None if there is no alpha channel.
        bit_depth: bits per sample of the file, 8 or 16.

    Raises:
        ImageError: if a shape, a dtype or the bit depth is not as above.
    """

    color_HWC: np.ndarray
    alpha_HW: np.ndarray | None = None
    bit_depth: int = 8

    def __post_init__(self) -> None:
        shape = self.color_HWC.shape
        if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
            raise ImageError(f"a photo must have shape (H, W, 1) or (H, W, 3), not {shape}")
        if self.alpha_HW is not None and self.alpha_HW.shape != shape[:2]:
            raise ImageError(
                f"a photo of shape {shape} needs an alpha of shape {shape[:2]}, "
                f"not {self.alpha_HW.shape}"
            )
        for plane in (self.color_HWC, self.alpha_HW):
            if plane is not None and plane.dtype != np.float32:
                raise ImageError(f"a photo must be float32 in [0, 1], not {plane.dtype}")
        if self.bit_depth not in (8, 16):
            raise ImageError(f"a photo has 8 or 16 bits per sample, not {self.bit_depth}")


def read_photo(path: str | Path) -> Photo:
    """Read a PNG, JPEG, BMP, TIFF or WebP file.

    Images may be gray, RGB or palette, with or without alpha, with 8 or 16 bits per sample. If a
    file has several pages or frames, the first is read. JPEG, PNG, WebP and TIFF images are rotated
    according to their EXIF orientation. If a TIFF stores colours multiplied by alpha, they are
    divided by it.

    Raises:
        ImageError: if the file is missing, a folder, empty, not an image, damaged, or has
            floating-point or 32-bit samples.
    """
    path = Path(path)
    data = read_input(path, "image file")
    samples = decode(path, data)
    try:
        return _photo(path, data, samples)
    except MemoryError as error:
        raise _too_large(path) from error


def _photo(path: Path, data: bytes, samples: np.ndarray) -> Photo:
    if samples.dtype not in _BITS:
        raise ImageError(
            f"image file {str(path)!r} has {samples.dtype} samples, whose range is not defined; "
            "save it with 8 or 16 bits per sample"
        )
    samples_HWC = _upright(np.atleast_3d(samples), headers.orientation(data))
    if samples_HWC.shape[2] not in _RGB_FROM_BGR:
        raise ImageError(
            f"image file {str(path)!r} has {samples_HWC.shape[2]} channels; "
            "only gray and RGB, with or without alpha, are supported"
        )
    bit_depth = _BITS[samples.dtype]
    color_HWC, alpha_HW = _split(samples_HWC)
    if headers.is_gray_png(data):
        color_HWC = color_HWC[..., :1]
    extra_samples = headers.extra_samples(data)
    if extra_samples is not None and alpha_HW is None:
        log.warning("%s: the alpha channel of a gray TIFF cannot be read and is ignored", path)
    # The decoder multiplies 8-bit colours by unassociated alpha, but not 16-bit colours.
    if alpha_HW is not None and (
        extra_samples == headers.ASSOCIATED_ALPHA
        or (extra_samples == headers.UNASSOCIATED_ALPHA and bit_depth == 8)
    ):
        safe_HW1 = np.maximum(alpha_HW, np.float32(1 / 65535))[..., None]
        np.divide(color_HWC, safe_HW1, out=color_HWC)
        np.minimum(color_HWC, np.float32(1), out=color_HWC)
    return Photo(np.ascontiguousarray(color_HWC), alpha_HW, bit_depth)


def write_photo(path: str | Path, photo: Photo) -> None:
    """Write a photo in the format given by the extension of ``path``.

    Values are clipped to [0, 1] and rounded to the nearest level, halves upwards. PNG and TIFF keep
    the photo's bit depth; the other formats have 8 bits. PNG, TIFF and WebP keep alpha; for other
    formats it is dropped with a warning. JPEG is written with quality 95, WebP losslessly. Gray
    with alpha is written as RGB with alpha. The file is written completely or not at all; missing
    folders are created.

    Raises:
        ImageError: for an unknown extension, values that are not finite, or an image too large for
            the format.
        WriteError: if the file cannot be written.
    """
    path = Path(path)
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        raise ImageError(
            f"cannot write {str(path)!r}: its extension is none of {', '.join(EXTENSIONS)}"
        )
    planes = [photo.color_HWC]
    if photo.alpha_HW is not None:
        if extension in ALPHA_EXTENSIONS:
            color_HW3 = with_channels(photo.color_HWC, 3)
            planes = [color_HW3, photo.alpha_HW[..., None]]
        else:
            log.warning("%s: alpha is dropped, because %s cannot hold it", path, extension)
    samples_HWC = np.concatenate(planes, axis=-1)
    if not np.isfinite(samples_HWC).all():
        raise ImageError(
            f"cannot write {str(path)!r}: the photo has NaN or infinite values; "
            "the network that made it has diverged or overflowed"
        )
    bit_depth = photo.bit_depth if extension in DEEP_EXTENSIONS else 8
    write_bytes(path, _encode(path, quantise(samples_HWC, bit_depth)))


def list_photos(folder: str | Path) -> list[Path]:
    """List image files directly inside ``folder``, in natural order: ``a2.png`` before ``a10.png``.

    Image files are recognised by their extension, in upper or lower case. Hidden files and folders
    are skipped. Links to missing files are listed, so that reading says what is missing.

    Raises:
        ImageError: if the folder is missing, is a file, cannot be read or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        fault = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ImageError(f"image folder {str(folder)!r} {fault}; check the path")
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in EXTENSIONS
            and not path.name.startswith(".")
            and not path.is_dir()
        ]
    except OSError as error:
        raise ImageError(
            f"image folder {str(folder)!r} cannot be read: {error.strerror}; check its permissions"
        ) from error
    if not found:
        raise ImageError(
            f"image folder {str(folder)!r} holds no image; it needs files that end in one of "
            f"{', '.join(EXTENSIONS)} directly inside it"
        )
    return sorted(found, key=natural_key)


def decode(path: Path, data: bytes) -> np.ndarray:
    """Decode an image file to samples, with the channels in OpenCV's order.

    Args:
        path: the file, for error messages.
        data: its bytes.

    Returns:
        (H, W) or (H, W, channels), with the dtype of the file's samples.

    Raises:
        ImageError: if the file is damaged, cut short, too large, or not of a known format.
    """
    name = f"image file {str(path)!r}"
    if not headers.is_known(data):
        raise ImageError(
            f"{name} cannot be decoded: its content is none of {', '.join(EXTENSIONS)}; open it in "
            "a viewer and save it as PNG"
        )
    size = headers.size(data)
    if size is not None:
        _check_size(name, *size, max(_PIXEL_BYTES, tiff.bytes_of_pixel(data)))
    samples, complaint = None, ""
    if size is not None and not headers.is_cut_short(data):
        pixels = headers.without_png_metadata(data)
        try:
            samples, complaint = decoded(pixels, listen=headers.warns(data))
        except cv2.error as error:
            raise _too_large(path) from error
    if samples is None or complaint:
        said = f", the decoder says {complaint[:120]!r}" if complaint else ""
        raise ImageError(
            f"{name} cannot be decoded: it is damaged or cut short{said}; open it in a viewer, "
            "check it and save it again"
        )
    return samples


def _check_size(name: str, width: int, height: int, bytes_of_pixel: int) -> None:
    limit = max_pixels()
    if abs(width * height) * bytes_of_pixel > limit * _PIXEL_BYTES:
        deep = f" of {bytes_of_pixel} bytes" if bytes_of_pixel > _PIXEL_BYTES else ""
        raise ImageError(
            f"{name} has {width}x{height} pixels{deep}, and the limit is {limit:,} pixels of "
            f"{_PIXEL_BYTES} bytes; make it smaller, or raise {PIXELS_VARIABLE}"
        )


def _too_large(path: Path) -> ImageError:
    return ImageError(
        f"image file {str(path)!r} is larger than the free memory; crop it or close other programs"
    )


def _encode(path: Path, samples_HWC: np.ndarray) -> bytes:
    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
        ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, _WEBP_LOSSLESS],
    }
    extension = path.suffix.lower()
    with quiet_opencv():
        try:
            done, buffer = cv2.imencode(
                extension, _swap_red_blue(samples_HWC), options.get(extension, [])
            )
        except cv2.error:
            done = False
    if not done:
        height, width = samples_HWC.shape[:2]
        raise ImageError(
            f"cannot write {str(path)!r}: {extension} cannot hold an image of {width}x{height} "
            "pixels; use .png"
        )
    return buffer.tobytes()


def _split(samples_HWC: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Convert OpenCV's BGRA, BGR or gray samples to RGB or gray colour, and alpha or None."""
    if samples_HWC.shape[2] == 1:
        return dequantise(samples_HWC), None
    alpha_HW = dequantise(samples_HWC[..., 3]) if samples_HWC.shape[2] == 4 else None
    return dequantise(samples_HWC[..., 2::-1]), alpha_HW


def _swap_red_blue(samples_HWC: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(samples_HWC[..., _RGB_FROM_BGR[samples_HWC.shape[2]]])


def _upright(samples_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation, 1 to 8. Orientations 5 to 8 also transpose the image."""
    transposed_WHC = samples_HWC.transpose(1, 0, 2)
    return {
        1: samples_HWC,
        2: samples_HWC[:, ::-1],
        3: samples_HWC[::-1, ::-1],
        4: samples_HWC[::-1],
        5: transposed_WHC,
        6: transposed_WHC[:, ::-1],
        7: transposed_WHC[::-1, ::-1],
        8: transposed_WHC[::-1],
    }[orientation]
