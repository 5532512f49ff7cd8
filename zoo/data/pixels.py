"""Conversions of pixels: levels, colour channels, arrays and tensors.

For files and OpenCV, images are NumPy arrays (H, W, C); networks take tensors (C, H, W).

Shape suffixes: H height and W width in pixels, C channels of any number, L labels.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from zoo.errors import ImageError


def to_tensor(image_HWC: np.ndarray) -> Tensor:
    """Convert an array (H, W, C) to a tensor (C, H, W) with the same dtype and values."""
    return torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1)))


def to_array(image_CHW: Tensor) -> np.ndarray:
    """Convert a CPU tensor (C, H, W) to an array (H, W, C) with the same dtype and values."""
    return np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy())


def round_to_levels(values: np.ndarray, bit_depth: int = 8) -> np.ndarray:
    """Convert values in [0, 1] to levels 0 to 2^bits - 1: clip, then round, halves upwards.

    Files, degradations and metrics all use this rounding. The dtype stays floating point; NaN stays
    NaN.
    """
    return np.floor(np.clip(values, 0, 1) * (2**bit_depth - 1) + 0.5)


def quantise(values: np.ndarray, bit_depth: int = 8) -> np.ndarray:
    """Convert finite values in [0, 1] to levels, uint8 for 8 bits and uint16 for more.

    See :func:`round_to_levels`.
    """
    depth = min(bit_depth, 16)
    return round_to_levels(values, depth).astype(np.uint8 if depth == 8 else np.uint16)


def dequantise(levels: np.ndarray) -> np.ndarray:
    """Convert uint8 or uint16 levels to float32 values in [0, 1]; return float32 values as is."""
    if levels.dtype == np.float32:
        return levels
    values: np.ndarray = levels / np.float32(np.iinfo(levels.dtype).max)
    return values


def with_channels(color_HWC: np.ndarray, channels: int) -> np.ndarray:
    """Convert a floating-point image between gray and RGB; the dtype stays the same.

    Gray is the full-range BT.601 luma, 0.299 R + 0.587 G + 0.114 B. To get RGB from gray, the
    channel is repeated. PSNR uses the studio-range Y of :func:`zoo.metrics.rgb_to_y`, which is
    16 + 219 times this luma.

    Raises:
        ImageError: for other numbers of channels, unless they are equal.
    """
    if color_HWC.shape[2] == channels:
        return color_HWC
    if (color_HWC.shape[2], channels) not in [(1, 3), (3, 1)]:
        fix = f"choose a network with channels={color_HWC.shape[2]}"
        if color_HWC.shape[0] == channels:
            fix = "its channels seem to be first: move them last, with numpy.moveaxis(array, 0, -1)"
        raise ImageError(
            f"an image of {color_HWC.shape[2]} channels cannot become one of {channels}, because "
            f"only gray and RGB are converted; {fix}"
        )
    if channels == 3:
        return np.repeat(color_HWC, 3, axis=2)
    return color_HWC @ np.array([[0.299], [0.587], [0.114]], dtype=color_HWC.dtype)


def bleed_colors(color_HWC: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    """Give each pixel of alpha 0 the colour of the nearest visible pixel.

    Editors often store black under alpha 0. A network looks at neighbours, so it would mix that
    colour into the edge of what is visible.

    Args:
        color_HWC: colours, not multiplied by alpha.
        alpha_HW: 0 where a pixel is hidden.

    Returns:
        The colours; those of visible pixels are unchanged.
    """
    hidden_HW = alpha_HW == 0
    if not hidden_HW.any() or hidden_HW.all():
        return color_HWC
    # Each visible pixel has a label, which hidden pixels take from the nearest one.
    _, label_HW = cv2.distanceTransformWithLabels(
        hidden_HW.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    color_LC = np.empty((label_HW.max() + 1, color_HWC.shape[2]), color_HWC.dtype)
    color_LC[label_HW[~hidden_HW]] = color_HWC[~hidden_HW]
    bled_HWC = color_HWC.copy()
    bled_HWC[hidden_HW] = color_LC[label_HW[hidden_HW]]
    return bled_HWC
