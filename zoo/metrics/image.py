"""PSNR and SSIM of 8-bit images, computed as in the papers; without rounding for other data.

Both images are rounded to 8 bits unless ``rounded`` is false, and ``crop_border`` pixels are
cropped from every side. The mean squared error is over all remaining pixels and channels, in
float64. SSIM uses a Gaussian window of
11 x 11 pixels with sigma 1.5, population covariances, and the constants (0.01 * 255)^2 and
(0.03 * 255)^2. It is averaged over channels and over all positions where the window is inside the
image. Super-resolution is measured on the Y channel, with ``crop_border`` equal to the scale;
denoising is measured on RGB. For linear values of bursts, see :mod:`zoo.metrics.burst`.

Shape suffixes: H height, W width in pixels, C channels (1 gray, 3 RGB, or any other number).

Source: the conventions of BasicSR, which the papers use; Y as in ITU-R BT.601; SSIM as in Z. Wang
et al., "Image quality assessment", IEEE TIP 2004, Sec. III-B and C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from zoo.data.pixels import round_to_levels
from zoo.errors import ImageError

PEAK = 255.0

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5

# Studio range of BT.601: black is 16 and white 235.
Y_FROM_RGB = np.array([65.481, 128.553, 24.966])
Y_BLACK = 16.0


def psnr(
    restored_HWC: np.ndarray,
    clean_HWC: np.ndarray,
    *,
    crop_border: int = 0,
    rounded: bool = True,
) -> float:
    """Compute the peak signal-to-noise ratio over all channels, in dB.

    Args:
        restored_HWC: the restored image, floating point in [0, 1]. Other values are clipped.
        clean_HWC: the clean image, of the same shape.
        crop_border: number of pixels cropped from each side before measuring.
        rounded: whether both images are rounded to 8 bits.

    Returns:
        10 log10(255^2 / MSE) of levels from 0 to 255. It is infinite if the images are equal, and
        NaN if a value is NaN.

    Raises:
        ImageError: if the shapes differ or are not (H, W, C), the values are not floating point,
            or the crop leaves no pixels.
    """
    restored_HWC, clean_HWC = prepared(restored_HWC, clean_HWC, crop_border, rounded)
    return _psnr_of_levels(restored_HWC, clean_HWC)


def psnr_y(restored_HWC: np.ndarray, clean_HWC: np.ndarray, *, crop_border: int) -> float:
    """Compute the peak signal-to-noise ratio on the luma channel Y, in dB.

    RGB is rounded to 8 bits and then converted to Y, which is not rounded again. For a gray image,
    its one channel is used as Y, without conversion to studio range. Arguments, result and errors
    are those of :func:`psnr`.
    """
    restored_HWC, clean_HWC = prepared(restored_HWC, clean_HWC, crop_border)
    return _psnr_of_levels(_y_of_levels(restored_HWC), _y_of_levels(clean_HWC))


def mean_psnrs(columns: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean PSNR of each of several results, over the same images.

    One infinite value, of equal images, would make the mean of a whole set infinite. So an image
    is left out of all means if any result equals it.

    Args:
        columns: for each result, the PSNR of each image in dB.

    Returns:
        A mean for each result; NaN if a value is NaN. If every image is left out, it is infinite
        for a result that equals all images, the mean over all for one that equals none, and
        otherwise NaN.
    """
    rows = [row for row in zip(*columns, strict=True) if math.inf not in row]
    if rows:
        return [sum(column) / len(column) for column in zip(*rows, strict=True)]
    return [_mean_of_all(column) for column in columns]


def _mean_of_all(decibels: Sequence[float]) -> float:
    exact = sum(value == math.inf for value in decibels)
    if not decibels or 0 < exact < len(decibels):
        return math.nan
    return sum(decibels) / len(decibels)


def ssim(
    restored_HWC: np.ndarray,
    clean_HWC: np.ndarray,
    *,
    crop_border: int = 0,
    rounded: bool = True,
) -> float:
    """Compute the structural similarity, averaged over all channels; 1 for equal images.

    Arguments and errors are those of :func:`psnr`. The cropped image must have at least 11 x 11
    pixels, the size of the window.
    """
    restored_HWC, clean_HWC = prepared(restored_HWC, clean_HWC, crop_border, rounded)
    return _ssim_of_levels(restored_HWC, clean_HWC)


def ssim_y(restored_HWC: np.ndarray, clean_HWC: np.ndarray, *, crop_border: int) -> float:
    """Compute the structural similarity on the luma channel Y; 1 for equal images.

    Y is computed as in :func:`psnr_y`. Arguments and errors are those of :func:`ssim`.
    """
    restored_HWC, clean_HWC = prepared(restored_HWC, clean_HWC, crop_border)
    return _ssim_of_levels(_y_of_levels(restored_HWC), _y_of_levels(clean_HWC))


def rgb_to_y(rgb_HWC: np.ndarray) -> np.ndarray:
    """Convert RGB to the Y channel of BT.601 in studio range.

    Args:
        rgb_HWC: floating point in [0, 1], shape (H, W, 3).

    Returns:
        (65.481 R + 128.553 G + 24.966 B + 16) / 255, float64, shape (H, W, 1), in
        [16/255, 235/255].

    Raises:
        ImageError: if the shape is not (H, W, 3).
    """
    if rgb_HWC.ndim != 3 or rgb_HWC.shape[2] != 3:
        raise ImageError(f"Y needs an RGB image of shape (H, W, 3), not {rgb_HWC.shape}")
    y_HW = rgb_HWC.astype(np.float64) @ Y_FROM_RGB + Y_BLACK
    return y_HW[..., None] / PEAK


def prepared(
    restored_HWC: np.ndarray, clean_HWC: np.ndarray, crop_border: int, rounded: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Check and crop both images, and convert them to levels of 0 to 255, in float64."""
    _check(restored_HWC, clean_HWC, crop_border)
    inside = _inside(clean_HWC, crop_border)
    return _levels(restored_HWC[inside], rounded), _levels(clean_HWC[inside], rounded)


def _check(restored_HWC: np.ndarray, clean_HWC: np.ndarray, crop_border: int) -> None:
    if restored_HWC.shape != clean_HWC.shape:
        raise ImageError(
            f"PSNR needs images of the same shape, not {restored_HWC.shape} and {clean_HWC.shape}; "
            "crop the clean image to a multiple of the scale"
        )
    if clean_HWC.ndim != 3 or 0 in clean_HWC.shape:
        raise ImageError(f"PSNR needs images of shape (H, W, C), not {clean_HWC.shape}")
    for image_HWC in (restored_HWC, clean_HWC):
        if not np.issubdtype(image_HWC.dtype, np.floating):
            raise ImageError(f"PSNR needs floating point in [0, 1], not {image_HWC.dtype}")
    height, width = clean_HWC.shape[:2]
    if not 0 <= 2 * crop_border < min(height, width):
        raise ImageError(
            f"crop_border is {crop_border}; it must be at least 0 and leave some of the "
            f"{width}x{height} pixels"
        )


def _inside(image_HWC: np.ndarray, crop_border: int) -> tuple[slice, slice]:
    height, width = image_HWC.shape[:2]
    return np.s_[crop_border : height - crop_border, crop_border : width - crop_border]


def _levels(image_HWC: np.ndarray, rounded: bool) -> np.ndarray:
    if rounded:
        return round_to_levels(image_HWC).astype(np.float64)
    return np.clip(image_HWC.astype(np.float64), 0, 1) * PEAK


def _y_of_levels(image_HWC: np.ndarray) -> np.ndarray:
    return image_HWC if image_HWC.shape[2] == 1 else rgb_to_y(image_HWC / PEAK) * PEAK


def _psnr_of_levels(restored_HWC: np.ndarray, clean_HWC: np.ndarray) -> float:
    error = float(np.mean((restored_HWC - clean_HWC) ** 2))
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def _ssim_of_levels(restored_HWC: np.ndarray, clean_HWC: np.ndarray) -> float:
    height, width, channels = clean_HWC.shape
    if min(height, width) < SSIM_WINDOW:
        raise ImageError(
            f"SSIM needs {SSIM_WINDOW}x{SSIM_WINDOW} pixels after the crop, not {width}x{height}"
        )
    planes = zip(np.moveaxis(restored_HWC, 2, 0), np.moveaxis(clean_HWC, 2, 0), strict=True)
    return sum(_ssim_of_plane(a, b) for a, b in planes) / channels


def _ssim_of_plane(a_HW: np.ndarray, b_HW: np.ndarray) -> float:
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    window_T1 = cv2.getGaussianKernel(SSIM_WINDOW, SSIM_SIGMA)
    edge = SSIM_WINDOW // 2

    def blur(plane_HW: np.ndarray) -> np.ndarray:
        plane_HW = np.ascontiguousarray(plane_HW)
        return cv2.sepFilter2D(plane_HW, -1, window_T1, window_T1)[edge:-edge, edge:-edge]

    mean_a, mean_b = blur(a_HW), blur(b_HW)
    variance_a = blur(a_HW * a_HW) - mean_a * mean_a
    variance_b = blur(b_HW * b_HW) - mean_b * mean_b
    covariance = blur(a_HW * b_HW) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    likeness *= (2 * covariance + c2) / (variance_a + variance_b + c2)
    return float(likeness.mean())
