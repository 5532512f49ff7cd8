"""SSIM of an image as a volume, as MATLAB's ``ssim`` computes it for an array (H, W, 3).

Published scores of SIDD were measured so: MATLAB takes the three channels for the planes of a
volume, so the Gaussian window also runs over them.

Shape suffixes: H height, W width, C channels.

Source: the documentation of MATLAB's ``ssim``: a Gaussian of radius 1.5 that reaches three radii,
edges repeated, K = (0.01, 0.03), the mean over all pixels.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np

from zoo.metrics.image import PEAK, SSIM_SIGMA, prepared

SsimOf: TypeAlias = Literal["planes", "volume"]
"""What an SSIM is computed of: each channel by itself, or the image as a volume."""

REACH = math.ceil(3 * SSIM_SIGMA)


def ssim_volume(
    restored_HWC: np.ndarray, clean_HWC: np.ndarray, *, crop_border: int, rounded: bool = True
) -> float:
    """Compute the SSIM of two images as volumes.

    Args:
        restored_HWC: the restored image, floating point, clipped to [0, 1].
        clean_HWC: the clean image, of the same shape.
        crop_border: number of pixels excluded at each side.
        rounded: whether both images are rounded to 8 bits.

    Raises:
        ImageError: if the shapes differ, or the border leaves nothing.
    """
    x, y = (
        image_HWC.astype(np.float64) / PEAK
        for image_HWC in prepared(restored_HWC, clean_HWC, crop_border, rounded)
    )
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = _smoothed(x), _smoothed(y)
    var_x = np.maximum(_smoothed(x * x) - mean_x**2, 0)
    var_y = np.maximum(_smoothed(y * y) - mean_y**2, 0)
    both = _smoothed(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return float((top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def _smoothed(volume_HWC: np.ndarray) -> np.ndarray:
    """Blur along all three axes; beyond the edges, the last values are repeated."""
    taps = np.exp(-((np.arange(-REACH, REACH + 1) / SSIM_SIGMA) ** 2) / 2)
    for axis in range(3):
        wide = [(REACH, REACH) if other == axis else (0, 0) for other in range(3)]
        padded = np.pad(volume_HWC, wide, mode="edge")
        parts = (
            tap * padded.take(np.arange(start, start + volume_HWC.shape[axis]), axis)
            for start, tap in enumerate(taps / taps.sum())
        )
        volume_HWC = sum(parts)
    return volume_HWC
