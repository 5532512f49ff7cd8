"""An image in memory: a photograph, or bands of any number.

Shape suffixes: H height and W width in pixels, C channels (1 gray, 3 RGB, any other number for what
is no photograph).
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from zoo.data.metadata import NOTHING, Metadata
from zoo.errors import ImageError


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo or other image, read from a file or to be written to one.

    Attributes:
        color_HWC: float32, about [0, 1]. Not multiplied by alpha.
        alpha_HW: float32 in [0, 1], or None if there is no alpha channel.
        bit_depth: bits per sample of the file: 8, 16, or 32 for floating point.
        metadata: what the file says beside its pixels: colour profile, EXIF, XMP and resolution.
        value_range: values of the file that are 0 and 1 here; None for 0 and the largest level, or
            1 for floating point. See :mod:`zoo.data.value_range`.
        no_data_HWC: where the file has no data, bool, for each channel; None if it has data
            everywhere. The values here are those of neighbours.
        no_data: the file's value where it has no data; None for NaN.
        rgb: whether the file says that its three channels are red, green and blue, not bands; None
            if it says nothing.
        dropped: what else the file holds that is not kept, in words.

    Raises:
        ImageError: if a shape, a dtype or the bit depth is not as above.
    """

    color_HWC: np.ndarray
    alpha_HW: np.ndarray | None = None
    bit_depth: int = 8
    metadata: Metadata = NOTHING
    value_range: tuple[float, float] | None = None
    no_data_HWC: np.ndarray | None = None
    no_data: float | None = None
    rgb: bool | None = None
    dropped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.color_HWC.shape
        if len(shape) != 3 or 0 in shape:
            raise ImageError(f"an image must have shape (H, W, C), not {shape}")
        if self.alpha_HW is not None and self.alpha_HW.shape != shape[:2]:
            raise ImageError(
                f"a photo of shape {shape} needs an alpha of shape {shape[:2]}, "
                f"not {self.alpha_HW.shape}"
            )
        if self.no_data_HWC is not None and self.no_data_HWC.shape != shape:
            raise ImageError(
                f"an image of shape {shape} needs marks of the same shape, not "
                f"{self.no_data_HWC.shape}"
            )
        for plane in (self.color_HWC, self.alpha_HW):
            if plane is not None and plane.dtype != np.float32:
                raise ImageError(f"a photo must be float32 in [0, 1], not {plane.dtype}")
        if self.bit_depth not in (8, 16, 32):
            raise ImageError(f"an image has 8, 16 or 32 bits per sample, not {self.bit_depth}")


@dataclass(frozen=True, kw_only=True)
class Saving:
    """How photos are written to files.

    Attributes:
        quality: 1 to 100 for JPEG and lossy WebP. None is 95 for JPEG, and lossless WebP.
        lossless: whether a format that always loses, JPEG, is an error.
        metadata: whether profile, EXIF, XMP and resolution are written.

    Raises:
        ImageError: if the quality is out of range, or is given for lossless files.
    """

    quality: int | None = None
    lossless: bool = False
    metadata: bool = True

    def __post_init__(self) -> None:
        if self.quality is None:
            return
        whole = isinstance(self.quality, Integral) and not isinstance(self.quality, bool)
        if not whole or not 1 <= self.quality <= 100:
            raise ImageError(
                f"quality is {self.quality!r}; it must be a whole number from 1 to 100"
            )
        if self.lossless:
            raise ImageError("files cannot be lossless and have a quality; leave one of them out")


AS_USUAL = Saving()
"""JPEG of quality 95, WebP lossless, with metadata."""
