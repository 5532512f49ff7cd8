"""The degradation that MambaCSR restores: downscaling followed by JPEG compression.

Shape suffixes: C channels (1 gray, 3 RGB), H height, W width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from zoo.data.degradations import DEGRADATIONS, Bicubic, Degradation, Jpeg


@DEGRADATIONS.register("bicubic_jpeg")
@dataclass(frozen=True, kw_only=True)
class BicubicJpeg(Degradation):
    """Downscales as ``bicubic``, then compresses as ``jpeg`` (MambaCSR, Sec. 4.1).

    The steps are the antialiased bicubic kernel, rounding to 8 bits, and a baseline JPEG with 4:2:0
    chroma subsampling, OpenCV's default.

    Args:
        scale: downscaling factor, 1 (no downscaling) to 8.
        quality: JPEG quality, 1 to 100; the paper uses 10, 20 and 30.
    """

    # Near the border of a window cut from a photo, the kernel's result differs, and JPEG spreads
    # the difference over the whole block of 16 pixels. The margin keeps the patch away from that
    # block and its interpolated chroma.
    margin: ClassVar[int] = 24
    photographs_only: ClassVar[bool] = True

    scale: int
    quality: int

    def __post_init__(self) -> None:
        Bicubic(scale=self.scale)
        Jpeg(scale=1, quality=self.quality)

    def __call__(self, clean_CHW: Tensor, rng: np.random.Generator) -> Tensor:
        small_CHW = Bicubic(scale=self.scale)(clean_CHW, rng)
        return Jpeg(scale=1, quality=self.quality)(small_CHW, rng)
