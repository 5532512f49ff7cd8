"""How the images of a burst are stored in files: one rule, for writing and for reading.

The planes of RAW frames and their linear clean image are 16-bit PNGs of which 14 bits are used, as
in the public sets. These were written with OpenCV without swapping channels: any other library, or
code that swaps them, reads the planes R, Gr, Gb, B as Gb, Gr, R, B. RGB frames and their clean
image are ordinary image files; those written here have 16 bits.

Shape suffixes: I channels, H height, W width in pixels.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from zoo.data.images import Photo, read_photo, write_photo
from zoo.data.inputs import read_input
from zoo.data.pixels import to_array, to_tensor, with_channels
from zoo.data.raster import decode
from zoo.errors import ImageError
from zoo.files import write_bytes

WHITE = 2**14
"""The value that means 1 in files of planes, which use 14 bits."""

_LINEAR_RGB = "the clean image of a RAW burst is a 16-bit PNG with three channels"

CLEAN = "im_rgb.png"
"""Name of the file of the clean image, in the folder ``gt``."""


def is_raw(frames_TIHW: Tensor) -> bool:
    """Whether frames are the four planes of a RAW mosaic, not RGB."""
    return frames_TIHW.shape[1] == 4


def write_image(path: Path, image_IHW: Tensor, *, raw: bool) -> None:
    """Write a frame or a clean image of a burst, whole or not at all.

    Args:
        path: PNG file to write.
        image_IHW: the image, about [0, 1]; values outside are clipped.
        raw: whether the burst is RAW.

    Raises:
        WriteError: if the file cannot be written.
    """
    if not raw:
        write_photo(path, Photo(to_array(image_IHW), bit_depth=16))
        return
    levels_IHW = (image_IHW.clamp(0, 1) * WHITE).round().to(torch.int32)
    _, data = cv2.imencode(".png", to_array(levels_IHW).astype(np.uint16))
    write_bytes(path, data.tobytes())


def read_planes(path: Path) -> Tensor:
    """Read the planes R, Gr, Gb, B of a file, unscaled, float32 (4, h, w).

    Raises:
        ImageError: if the file is damaged or not a 16-bit PNG with four channels.
    """
    return _read_unswapped(path, 4, "a Bayer mosaic is a 16-bit PNG with four channels")


def read_clean(path: Path, *, raw: bool) -> Tensor:
    """Read the clean image of a burst.

    Args:
        path: the file, usually ``gt/im_rgb.png``.
        raw: whether the burst is RAW; the clean image is then linear.

    Returns:
        RGB, float32 (3, H, W) in [0, 1].

    Raises:
        ImageError: if the file is damaged; for a RAW burst, if it is not a 16-bit PNG with three
            channels.
    """
    if not raw:
        return to_tensor(with_channels(read_photo(path).color_HWC, 3))
    return read_rgb(path) / WHITE


def read_rgb(path: Path) -> Tensor:
    """Read the linear R, G, B of a file, unscaled, float32 (3, H, W).

    Raises:
        ImageError: if the file is damaged or not a 16-bit PNG with three channels.
    """
    return _read_unswapped(path, 3, _LINEAR_RGB)


def _read_unswapped(path: Path, channels: int, wanted: str) -> Tensor:
    # OpenCV returns the channels in the order in which they were written.
    image_HWI = decode(path, read_input(path, "image file"))
    if image_HWI.dtype != np.uint16 or image_HWI.ndim != 3 or image_HWI.shape[2] != channels:
        shape = "x".join(map(str, image_HWI.shape))
        raise ImageError(
            f"{str(path)!r} has {image_HWI.dtype} values of shape {shape}; {wanted} (some "
            "libraries reduce such files to 8 bits)"
        )
    return to_tensor(image_HWI.astype(np.float32))
