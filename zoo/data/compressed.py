"""What MambaCSR undoes: an image made smaller, then stored as a JPEG.

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
    """Shrinks as ``bicubic`` does, then compresses as ``jpeg`` does (MambaCSR, Sec. 4.1).

    The antialiased bicubic kernel, rounding to 8 bits, a baseline JPEG with colours subsampled
    4:2:0, which is OpenCV's default. ``scale`` is 1 (no shrinking) to 8.

    Args:
        quality: the encoder's quality, 1 to 100; the paper's are 10, 20 and 30.
    """

    # The kernel errs near the border of a window cut from a photo, and a JPEG spreads that over
    # the whole block of 16 pixels: a patch keeps clear of that block, and of its chroma.
    margin: ClassVar[int] = 24

    scale: int
    quality: int

    def __post_init__(self) -> None:
        Bicubic(scale=self.scale)
        Jpeg(scale=1, quality=self.quality)

    def __call__(self, clean_CHW: Tensor, rng: np.random.Generator) -> Tensor:
        small_CHW = Bicubic(scale=self.scale)(clean_CHW, rng)
        return Jpeg(scale=1, quality=self.quality)(small_CHW, rng)
