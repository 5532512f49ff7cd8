"""Pixels in memory: levels, colour channels, and the way between arrays and tensors.

Images in files and for OpenCV are NumPy arrays (H, W, C); networks take tensors (C, H, W).

Shape suffixes: H height and W width in pixels, C channels of any number.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_tensor(image_HWC: np.ndarray) -> Tensor:
    """An image as a tensor (C, H, W) of the same dtype and values."""
    return torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1)))


def to_array(image_CHW: Tensor) -> np.ndarray:
    """An image on the CPU as an array (H, W, C) of the same dtype and values."""
    return np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy())


def round_to_levels(values: np.ndarray, bit_depth: int = 8) -> np.ndarray:
    """Whole levels 0 to 2^bits - 1 of values in [0, 1]: clipped, nearest, halves upwards.

    The one rounding rule of files, degradations and metrics. Keeps the floating-point dtype; NaN
    stays NaN.
    """
    return np.floor(np.clip(values, 0, 1) * (2**bit_depth - 1) + 0.5)


def quantise(values: np.ndarray, bit_depth: int = 8) -> np.ndarray:
    """Round finite values in [0, 1] to uint8 or uint16 levels, as :func:`round_to_levels`."""
    return round_to_levels(values, bit_depth).astype(np.uint8 if bit_depth == 8 else np.uint16)


def dequantise(levels: np.ndarray) -> np.ndarray:
    """float32 values in [0, 1] of uint8 or uint16 levels."""
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)


def with_channels(color_HWC: np.ndarray, channels: int) -> np.ndarray:
    """Convert between gray and RGB, keeping the dtype of a floating-point image.

    Gray is the full-range luma 0.299 R + 0.587 G + 0.114 B of BT.601; RGB from gray repeats the
    channel. The studio-range Y of PSNR is :func:`zoo.metrics.rgb_to_y`, 16 + 219 times this luma.
    """
    if color_HWC.shape[2] == channels:
        return color_HWC
    if channels == 3:
        return np.repeat(color_HWC, 3, axis=2)
    return color_HWC @ np.array([[0.299], [0.587], [0.114]], dtype=color_HWC.dtype)
