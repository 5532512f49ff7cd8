"""PNG, JPEG, BMP, TIFF, WebP and GIF files, which OpenCV decodes, and encodes but for GIF.

Shape suffixes: H height and W width in pixels, C colour channels (1 gray, 3 RGB).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from zoo.data import headers, several, tiff
from zoo.data.containers import JPEG_SIGNATURE, PNG_SIGNATURE, is_webp
from zoo.data.decoding import decoded, quiet_opencv
from zoo.data.embedding import embedded
from zoo.data.metadata import read_metadata
from zoo.data.photo import Photo, Saving
from zoo.data.pixels import dequantise, quantise, with_channels
from zoo.data.value_range import check_finite, of_levels
from zoo.errors import ImageError
from zoo.limits import PIXELS_VARIABLE, max_pixels

log = logging.getLogger(__name__)

JPEG_QUALITY = 95
_WEBP_LOSSLESS = 101

IN_MEMORY = Path("(bytes)")
"""The path, in messages, of a file that is given as its bytes."""

_PIXEL_BYTES = 8
"""Largest pixel that is read: four samples of 16 bits."""

_BITS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}
# OpenCV's channel order is B, G, R, alpha. The same permutation converts back.
_RGB_FROM_BGR = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}


def read(path: Path, data: bytes) -> Photo:
    """Decode an image file to a photo; see :func:`zoo.data.read_photo`.

    Args:
        path: the file, for error messages.
        data: its bytes.

    Raises:
        ImageError: if the file is damaged or too large, has several frames or pages, or samples or
            channels of another kind.
    """
    if (frames := headers.frames(data)) > 1:
        raise several_frames(path, frames)
    samples = decode(path, data)
    try:
        return _photo(path, data, samples)
    except MemoryError as error:
        raise too_large(path) from error


def read_all(path: Path, data: bytes) -> list[Photo]:
    """Decode every frame of an animation, as it is shown, or every page of a TIFF file.

    Args:
        path: the file, for error messages.
        data: its bytes.

    Raises:
        ImageError: as :func:`read`, and if all frames together have too many pixels.
    """
    frames, size = headers.frames(data), headers.size(data)
    if frames == 1 or size is None:
        return [read(path, data)]
    name = f"image file {str(path)!r} with {frames} frames"
    check_size(name, size[0], size[1] * frames)
    if data.startswith(tiff.SIGNATURES):
        return list(_pages(path, name, data))
    if headers.is_cut_short(data):
        raise damaged(path)
    if data.startswith(JPEG_SIGNATURE):
        return [read(path, picture) for picture in several.jpeg_pictures(data)]
    still = data.startswith(PNG_SIGNATURE) and several.png_animation(data).still
    photos = [_photo(path, data, decode(path, data))] if still else []
    metadata = read_metadata(data)
    for samples_HWC in _animated(path, data, frames - still):
        color_HWC, alpha_HW = _split(upright(samples_HWC, metadata.orientation))
        if alpha_HW is not None and alpha_HW.min() == 1:
            alpha_HW = None
        bits = _BITS[samples_HWC.dtype]
        color_HWC = np.ascontiguousarray(color_HWC)
        photos.append(Photo(color_HWC, alpha_HW, bits, metadata.upright()))
    return photos


def _animated(path: Path, data: bytes, frames: int) -> list[np.ndarray]:
    """Decode the frames of an animation to samples, with the channels in OpenCV's order."""
    alone = frames == 1
    if alone:
        data = several.with_second_frame(data)
    with quiet_opencv():
        try:
            done, animation = cv2.imdecodeanimation(np.frombuffer(data, np.uint8))
        except cv2.error as error:
            raise damaged(path, str(error)) from error
    if not done or len(animation.frames) != frames + alone:
        raise damaged(path)
    return list(animation.frames[:frames])


def _pages(path: Path, name: str, data: bytes) -> Iterator[Photo]:
    pixels = 0
    for page in tiff.split(data):
        width, height = headers.size(page) or (0, 0)
        pixels += width * height
        check_size(name, pixels, 1)
        yield read(path, page)


def _photo(path: Path, data: bytes, samples: np.ndarray) -> Photo:
    if samples.dtype not in _BITS:
        raise ImageError(
            f"image file {str(path)!r} has {samples.dtype} samples, whose range is not defined; "
            "save it with 8 or 16 bits per sample"
        )
    metadata = read_metadata(data)
    # The decoder turns TIFF images itself.
    turn = 1 if data.startswith(tiff.SIGNATURES) else metadata.orientation
    samples_HWC = upright(np.atleast_3d(samples), turn)
    if samples_HWC.shape[2] not in _RGB_FROM_BGR:
        raise ImageError(
            f"image file {str(path)!r} has {samples_HWC.shape[2]} channels; "
            "only gray and RGB, with or without alpha, are supported"
        )
    bit_depth = _BITS[samples.dtype]
    color_HWC, alpha_HW = _split(samples_HWC)
    if bit_depth == 16 and headers.is_negative(data):  # the decoder turns 8-bit samples itself
        color_HWC = 1 - color_HWC
    inks = headers.inks(data)
    if inks:
        alpha_HW = None  # the decoder makes one up
    if headers.is_gray_png(data):
        color_HWC = color_HWC[..., :1]
    level = headers.transparent_level(data)
    if level is not None and alpha_HW is None:  # the decoder leaves it out
        alpha_HW = (samples_HWC[..., 0] != level).astype(np.float32)
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
    if inks:
        log.warning(
            "%s: %s became RGB without its colour profile, so colours can differ from print; to "
            "choose them, convert the file to RGB in an image editor",
            path,
            inks,
        )
        metadata = replace(metadata, profile=None)
    return Photo(np.ascontiguousarray(color_HWC), alpha_HW, bit_depth, metadata.upright())


def encode(path: Path, photo: Photo, saving: Saving, *, alpha: bool, deep: bool) -> bytes:
    """Encode a photo in the format of the path's extension; see :func:`zoo.data.write_photo`.

    Args:
        path: the file to be written.
        photo: the photo, of 1 or 3 channels.
        saving: quality and metadata.
        alpha: whether the format can hold an alpha channel.
        deep: whether it can hold 16 bits per sample.

    Raises:
        ImageError: for values that are not finite, or an image too large for the format.
    """
    if photo.no_data_HWC is not None:
        log.warning("%s: %s cannot mark pixels without data", path, path.suffix)
    check_finite(path, photo.color_HWC)
    depth = min(photo.bit_depth, 16) if deep else 8
    # With fewer levels than the range has, the file shows the range as from black to white.
    color_HWC = photo.color_HWC if depth < photo.bit_depth else of_levels(photo)
    planes, lost = [color_HWC], []
    if photo.alpha_HW is not None and alpha:
        planes = [with_channels(color_HWC, 3), photo.alpha_HW[..., None]]
    elif photo.alpha_HW is not None:
        lost.append("alpha is dropped")
    if depth < photo.bit_depth:
        kind = "floating-point values" if photo.bit_depth == 32 else f"{photo.bit_depth} bits"
        lost.append(f"{kind} become {depth} bits")
    for what in lost:
        said = f"{what}, because {path.suffix.lower()} cannot hold it"
        if saving.lossless:
            raise ImageError(f"cannot write {str(path)!r} without loss: {said}")
        log.warning("%s: %s", path, said)
    samples_HWC = np.concatenate(planes, axis=-1)
    encoded = _encode(path, quantise(samples_HWC, depth), saving.quality)
    if not saving.metadata:
        return encoded
    height, width, channels = samples_HWC.shape
    colours = 1 if channels == 1 and not is_webp(encoded) else 3
    return embedded(path, encoded, photo.metadata, (height, width, colours))


def missing(extension: str) -> str:
    """Return what to install for files of an extension, or "" if OpenCV has its codec."""
    return "" if cv2.haveImageWriter(extension) else "pip install opencv-python-headless"


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
            f"{name} cannot be decoded: its content is none of PNG, JPEG, WebP, TIFF, BMP and GIF; "
            "open it in a viewer and save it as PNG"
        )
    if fault := headers.undecodable(data):
        raise ImageError(f"{name} {fault}")
    size = headers.size(data)
    if size is not None:
        check_size(name, *size, max(_PIXEL_BYTES, tiff.bytes_of_pixel(data)))
    samples, complaint = None, ""
    if size is not None and not headers.is_cut_short(data):
        pixels = headers.without_png_metadata(data)
        try:
            samples, complaint = decoded(pixels, listen=headers.warns(data))
        except cv2.error as error:
            raise too_large(path) from error
    if samples is None or complaint:
        raise damaged(path, complaint)
    return samples


def damaged(path: Path, complaint: str = "") -> ImageError:
    """Return the error that says that a file is damaged, with what its decoder says about it."""
    said = f", the decoder says {complaint[:120]!r}" if complaint else ""
    return ImageError(
        f"image file {str(path)!r} cannot be decoded: it is damaged or cut short{said}; open it in "
        "a viewer, check it and save it again"
    )


def several_frames(path: Path, frames: int) -> ImageError:
    """Return the error that says that a file holds more than one picture, and what to do."""
    first = "save the bytes as FILE, " if path == IN_MEMORY else ""
    name = "FILE" if path == IN_MEMORY else path.name
    return ImageError(
        f"image file {str(path)!r} has {frames} frames or pages, and one picture at a time is "
        f"restored; {first}run 'zoo data frames {name} -o FOLDER', then restore the folder"
    )


def check_size(name: str, width: int, height: int, bytes_of_pixel: int = _PIXEL_BYTES) -> None:
    """Check the size that a file declares, before memory is reserved for its pixels.

    Args:
        name: the file, as messages name it.
        width: in pixels.
        height: in pixels.
        bytes_of_pixel: size of a decoded pixel.

    Raises:
        ImageError: if the image is larger than :func:`zoo.limits.max_pixels` allows.
    """
    limit = max_pixels()
    if abs(width * height) * bytes_of_pixel > limit * _PIXEL_BYTES:
        deep = f" of {bytes_of_pixel} bytes" if bytes_of_pixel > _PIXEL_BYTES else ""
        raise ImageError(
            f"{name} has {width}x{height} pixels{deep}, and the limit is {limit:,} pixels of "
            f"{_PIXEL_BYTES} bytes; make it smaller, or raise {PIXELS_VARIABLE}"
        )


def too_large(path: Path) -> ImageError:
    """Return the error that says that the memory is too small for an image."""
    return ImageError(
        f"image file {str(path)!r} is larger than the free memory; crop it or close other programs"
    )


def _encode(path: Path, samples_HWC: np.ndarray, quality: int | None) -> bytes:
    extension, options = path.suffix.lower(), []
    if extension in (".jpg", ".jpeg"):
        options = [cv2.IMWRITE_JPEG_QUALITY, quality or JPEG_QUALITY]
    elif extension == ".webp":
        options = [cv2.IMWRITE_WEBP_QUALITY, quality or _WEBP_LOSSLESS]
    with quiet_opencv():
        try:
            done, buffer = cv2.imencode(extension, _swap_red_blue(samples_HWC), options)
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


def upright(samples_HWC: np.ndarray, orientation: int) -> np.ndarray:
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
