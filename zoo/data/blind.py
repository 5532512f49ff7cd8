"""Blind degradation: a random chain that imitates the unknown history of photos from the internet.

The chain applies blur, resizing and noise twice, with a JPEG after each pass. A sinc filter before
or after the last JPEG adds ringing, like sharpening does. A network trained on such pairs restores
photos whose degradation is unknown.

Shape suffixes: C channels (1 gray, 3 RGB), H height, W width in pixels, T taps of a filter.

Source: X. Wang et al., "Real-ESRGAN", ICCVW 2021, Sec. 3 and the settings published with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from zoo.data.degradations import DEGRADATIONS, Degradation, check_multiple, compress
from zoo.data.pixels import round_to_levels, to_array, to_tensor
from zoo.errors import RecipeError

_INTERPOLATIONS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
_SIZES = tuple(range(7, 22, 2))
_SHAPES = ("gaussian", "generalised", "plateau")
_SHAPE_RATES = (0.7, 0.15, 0.15)
"""Probabilities of the three shapes. ``_ROUND_RATES`` are the probabilities that a shape is round;
otherwise it is elongated."""
_ROUND_RATES = {"gaussian": 0.45 / 0.7, "generalised": 0.8, "plateau": 0.8}


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """Probabilities and ranges of the random values in one pass of the chain.

    Attributes:
        blur: probability of a blur.
        sigma: range of the blur's standard deviation in pixels.
        grow: probability of upscaling.
        shrink: probability of downscaling; otherwise the size does not change.
        sizes: smallest and largest scale factor.
        noise: range of the standard deviation of Gaussian noise, in levels of 0 to 255.
        grain: range of the strength of Poisson noise; 1 is one photon per level of 0 to 255.
    """

    blur: float
    sigma: tuple[float, float]
    grow: float
    shrink: float
    sizes: tuple[float, float]
    noise: tuple[float, float]
    grain: tuple[float, float]


_FIRST = _Pass(
    blur=1.0,
    sigma=(0.2, 3.0),
    grow=0.2,
    shrink=0.7,
    sizes=(0.15, 1.5),
    noise=(1, 30),
    grain=(0.05, 3.0),
)
_SECOND = _Pass(
    blur=0.8,
    sigma=(0.2, 1.5),
    grow=0.3,
    shrink=0.4,
    sizes=(0.3, 1.2),
    noise=(1, 25),
    grain=(0.05, 2.5),
)
_GRAY_NOISE = 0.4
_SINC_BLUR = 0.1
_LAST_SINC = 0.8


@DEGRADATIONS.register("blind")
@dataclass(frozen=True, kw_only=True)
class Blind(Degradation):
    """Blur, resizing, noise and JPEG, twice, random for each patch (Real-ESRGAN).

    Args:
        scale: downscaling factor, 1 to 8.
        quality: lowest and highest JPEG quality, 1 to 100.
    """

    photographs_only: ClassVar[bool] = True

    scale: int
    quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise RecipeError(
                f"degradation 'blind': quality must be two numbers from 1 to 100, the lower first, "
                f"not {self.quality}"
            )
        if self.scale not in range(1, 9):
            raise RecipeError(f"degradation 'blind': scale must be 1 to 8, not {self.scale}")

    def __call__(self, clean_CHW: Tensor, rng: np.random.Generator) -> Tensor:
        height, width = check_multiple(clean_CHW, self.scale)
        image_HWC = to_array(clean_CHW)
        image_HWC = self._jpeg(_degrade_once(image_HWC, _FIRST, (height, width), rng), rng)
        image_HWC = _degrade_once(image_HWC, _SECOND, (height, width), rng)
        size = (height // self.scale, width // self.scale)
        ringing_TT = None
        if rng.random() < _LAST_SINC:
            ringing_TT = _sinc(int(rng.choice(_SIZES)), rng.uniform(math.pi / 3, math.pi))
        if rng.random() < 0.5:
            image_HWC = _filtered(_resized(image_HWC, size, rng), ringing_TT)
            image_HWC = self._jpeg(image_HWC, rng)
        else:
            image_HWC = self._jpeg(image_HWC, rng)
            image_HWC = _filtered(_resized(image_HWC, size, rng), ringing_TT)
        levels_HWC = round_to_levels(image_HWC) / np.float32(255)
        return to_tensor(levels_HWC)

    def _jpeg(self, image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        quality = int(rng.integers(self.quality[0], self.quality[1] + 1))
        return compress(image_HWC, quality)


def _degrade_once(
    image_HWC: np.ndarray, ranges: _Pass, full: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Blur, resize and add noise. The scale factor applies to the size ``full``."""
    if rng.random() < ranges.blur:
        image_HWC = _filtered(image_HWC, _random_blur(ranges.sigma, rng))
    image_HWC = _resized(image_HWC, _random_size(ranges, full, rng), rng)
    return _noisy(image_HWC, ranges, rng)


def _random_size(ranges: _Pass, full: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    draw, factor = rng.random(), 1.0
    if draw < ranges.grow:
        factor = rng.uniform(1, ranges.sizes[1])
    elif draw < ranges.grow + ranges.shrink:
        factor = rng.uniform(ranges.sizes[0], 1)
    return max(1, round(full[0] * factor)), max(1, round(full[1] * factor))


def _resized(image_HWC: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    how = int(rng.choice(_INTERPOLATIONS))
    return np.atleast_3d(cv2.resize(image_HWC, size[::-1], interpolation=how))


def _noisy(image_HWC: np.ndarray, ranges: _Pass, rng: np.random.Generator) -> np.ndarray:
    height, width, channels = image_HWC.shape
    gray = rng.random() < _GRAY_NOISE
    image_HWC = np.clip(image_HWC, 0, 1)
    if rng.random() < 0.5:
        sigma = rng.uniform(*ranges.noise) / 255
        noise_HWC = sigma * rng.standard_normal((height, width, 1 if gray else channels))
    else:
        seen_HWC = image_HWC.mean(axis=2, keepdims=True) if gray else image_HWC
        # White is 255 photons; the difference from the mean count is the grain.
        grain_HWC = rng.poisson(seen_HWC * 255.0) / 255 - seen_HWC
        noise_HWC = rng.uniform(*ranges.grain) * grain_HWC
    return np.clip(image_HWC + noise_HWC, 0, 1).astype(np.float32)


def _filtered(image_HWC: np.ndarray, kernel_TT: np.ndarray | None) -> np.ndarray:
    if kernel_TT is None:
        return image_HWC
    blurred = cv2.filter2D(image_HWC, -1, kernel_TT, borderType=cv2.BORDER_REFLECT_101)
    return np.clip(np.atleast_3d(blurred), 0, 1)


def _random_blur(sigmas: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    size = int(rng.choice(_SIZES))
    if rng.random() < _SINC_BLUR:
        lowest = math.pi / 3 if size < 13 else math.pi / 5
        return _sinc(size, rng.uniform(lowest, math.pi))
    shape = str(rng.choice(_SHAPES, p=_SHAPE_RATES))
    across = along = rng.uniform(*sigmas)
    angle = 0.0
    if rng.random() >= _ROUND_RATES[shape]:
        along, angle = rng.uniform(*sigmas), rng.uniform(-math.pi, math.pi)
    return _bell(size, across, along, angle, shape, _random_power(shape, rng))


def _random_power(shape: str, rng: np.random.Generator) -> float:
    """Draw the exponent of the bell shape. For "generalised", half of the draws are below 1."""
    if shape == "gaussian":
        return 1.0
    lowest, highest = (0.5, 4.0) if shape == "generalised" else (1.0, 2.0)
    if lowest < 1 and rng.random() < 0.5:
        return float(rng.uniform(lowest, 1))
    return float(rng.uniform(1, highest))


def _bell(
    size: int, across: float, along: float, angle: float, shape: str, power: float
) -> np.ndarray:
    """A bell-shaped blur filter, (T, T) float32 with sum 1."""
    y, x = np.mgrid[:size, :size] - size // 2
    first = (math.cos(angle) * x + math.sin(angle) * y) / across
    second = (math.cos(angle) * y - math.sin(angle) * x) / along
    distance = (first**2 + second**2) ** power
    kernel_TT = 1 / (1 + distance) if shape == "plateau" else np.exp(-0.5 * distance)
    return (kernel_TT / kernel_TT.sum()).astype(np.float32)


def _sinc(size: int, cutoff: float) -> np.ndarray:
    """The ideal circular low-pass filter, truncated to (T, T); cutoff in radians per pixel."""
    y, x = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(x, y)
    middle = size // 2
    radius[middle, middle] = 1.0
    kernel_TT = cutoff * _bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel_TT[middle, middle] = cutoff**2 / (4 * math.pi)
    return (kernel_TT / kernel_TT.sum()).astype(np.float32)


def _bessel_j1(x: np.ndarray) -> np.ndarray:
    """Bessel function of the first kind and order 1. Uses torch, to avoid another dependency."""
    return torch.special.bessel_j1(torch.from_numpy(x)).numpy()
