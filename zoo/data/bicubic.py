"""Bicubic resizing like MATLAB's ``imresize`` with antialiasing, the standard in super-resolution.

Low-resolution training images, test sets and the bicubic baseline are all made with this function.
It differs from the usual ``bicubic`` of image libraries in three ways: the kernel parameter is
-1/2, the kernel is widened for downscaling, and the border is mirrored with the edge repeated.

The field's low-resolution test sets were made by MATLAB from images of 8 bits. MATLAB keeps the
type of an image, so it rounds to 8 bits twice, after the rows and after the columns. With
``bits=8`` the same is done here: on Set5, 99.75 % of the values are then those of the published
files, and 86 % with one rounding at the end.

Shape suffixes: O output pixels along one side, T taps; ``...HW`` any leading dimensions.

Source: R. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981,
Eq. 4 and 8 (a = -1/2); widening and border as documented for ``imresize``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ImageError

KERNEL_WIDTH = 4
"""Width of the cubic kernel, in pixels of the coarser of the two grids."""


def resize_bicubic(
    image_BCHW: Tensor, scale: float | tuple[int, int], *, bits: int | None = None
) -> Tensor:
    """Resize images with the antialiased bicubic kernel.

    Without ``bits``, it is differentiable, and values are neither clipped nor rounded: the kernel
    overshoots at edges, so results may slightly exceed [0, 1].

    Args:
        image_BCHW: float32 or float64; any number of leading dimensions before height and width.
        scale: factor for both sides; the result has ceil(size * factor) pixels per side. Or the
            (height, width) of the result; the factor of each side is then the ratio of the sizes.
        bits: values from 0 to 1 are clipped and rounded to levels of so many bits after each side,
            halves upwards, as MATLAB does with images of 8 bits. Give float64, so that halves are
            exact.

    Returns:
        The resized images, with the same dtype and device.

    Raises:
        ImageError: for another dtype, an empty image, or a scale or size that is not positive.
    """
    if image_BCHW.dtype not in (torch.float32, torch.float64):
        raise ImageError(f"bicubic resizing needs float32 or float64, not {image_BCHW.dtype}")
    if image_BCHW.dim() < 2 or image_BCHW.numel() == 0:
        raise ImageError(f"bicubic resizing needs pixels, not shape {tuple(image_BCHW.shape)}")
    height, width = image_BCHW.shape[-2:]
    if isinstance(scale, tuple):
        new_height, new_width = scale
        factors = (new_height / height, new_width / width)
    else:
        scale = scale if math.isfinite(scale) else 0.0
        factors = (scale, scale)
        # Factors such as 1/3 are not exact: without rounding, ceil could add a pixel.
        new_height, new_width = (math.ceil(round(side * scale, 6)) for side in (height, width))
    if new_height < 1 or new_width < 1:
        raise ImageError(
            f"bicubic resizing of {height}x{width} pixels by {scale} leaves no pixel; "
            "the scale must be positive and finite"
        )
    top = 1 if bits is None else 2**bits - 1
    values_BCHW = image_BCHW if bits is None else _snapped(image_BCHW * top)
    # As in MATLAB, the smaller factor comes first, and the height if they are equal.
    sides = (-2, new_height, factors[0]), (-1, new_width, factors[1])
    for axis, new, factor in sorted(sides, key=lambda side: side[2]):
        values_BCHW = _resize_side(values_BCHW, axis, new, factor)
        if bits is not None:
            values_BCHW = (values_BCHW.clamp_(0, top) + 0.5).floor_()
    return values_BCHW if bits is None else values_BCHW / top


def _snapped(levels: Tensor) -> Tensor:
    """Return whole numbers for values that are whole but for the rounding of float32."""
    whole = levels.round()
    return torch.where((levels - whole).abs() < 1e-3, whole, levels)


def cubic_kernel(x: np.ndarray) -> np.ndarray:
    """Value of Keys' cubic convolution kernel, a = -1/2, at distances ``x`` in pixels."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def taps(size: int, new_size: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the source pixels of each new pixel along one side, and their weights.

    Args:
        size: number of pixels along the side.
        new_size: number of pixels after resizing.
        factor: scale factor of the side.

    Returns:
        ``weights_OT`` (float64, rows sum to 1) and ``index_OT`` (int64, in 0..size-1).
    """
    # For downscaling, the kernel is widened to cover 4 pixels of the new grid, not of the old.
    narrow = min(factor, 1.0)
    support = KERNEL_WIDTH / narrow
    centre_O1 = (np.arange(new_size)[:, None] + 0.5) / factor - 0.5
    first_O1 = np.floor(centre_O1 - support / 2)
    index_OT = first_O1 + np.arange(math.ceil(support) + 1)
    weights_OT = cubic_kernel(narrow * (centre_O1 - index_OT))
    weights_OT /= weights_OT.sum(axis=1, keepdims=True)
    # Mirror with the edge repeated. The period is 2 * size; small images may need several.
    index_OT = index_OT.astype(np.int64) % (2 * size)
    index_OT = np.minimum(index_OT, 2 * size - 1 - index_OT)
    used_T = weights_OT.any(axis=0)
    return weights_OT[:, used_T], index_OT[:, used_T]


def _resize_side(image: Tensor, side: int, new_size: int, factor: float) -> Tensor:
    """Resize along dimension ``side``, -2 or -1, one tap at a time."""
    weights_OT, index_OT = taps(image.shape[side], new_size, factor)
    weights_TO = torch.from_numpy(weights_OT.T.copy()).to(image)
    index_TO = torch.from_numpy(index_OT.T.copy()).to(image.device)
    if side == -2:
        weights_TO = weights_TO[:, :, None]

    def pick(index_O: Tensor) -> Tensor:
        return image[..., index_O, :] if side == -2 else image[..., index_O]

    total = pick(index_TO[0]) * weights_TO[0]
    for index_O, weights_O in zip(index_TO[1:], weights_TO[1:], strict=True):
        total.addcmul_(pick(index_O), weights_O)
    return total
