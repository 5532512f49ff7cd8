"""The unknown past of a photo from the internet, as a chain of random degradations.

Twice in a row: blur, resize, noise, JPEG; then a sinc filter that rings as sharpening does, and the
last JPEG before or after it. A network trained on such pairs restores photographs whose history
nobody knows.

Shape suffixes: C channels (1 gray, 3 RGB), H height, W width in pixels, T taps of a filter.

Source: X. Wang et al., "Real-ESRGAN", ICCVW 2021, Sec. 3 and the settings published with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
"""Of the three shapes; each is round with the rates of ``_ROUND_RATES``, elongated otherwise."""
_ROUND_RATES = {"gaussian": 0.45 / 0.7, "generalised": 0.8, "plateau": 0.8}


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """Ranges that one pass of the chain draws from.

    Attributes:
        blur: probability of a blur.
        sigma: of a blur, in pixels.
        grow: probability of enlarging; ``shrink``: of shrinking; the size is kept otherwise.
        sizes: smallest and largest factor.
        noise: sigma of Gaussian noise in levels of 0 to 255.
        grain: strength of Poisson noise, times that of one photon a level.
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
    """Blur, resizing, noise and JPEG, twice, drawn anew for every patch (Real-ESRGAN).

    Args:
        quality: lowest and highest quality of the JPEGs, 1 to 100.
    """

    scale: int
    quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise RecipeError(
                f"degradation 'blind': quality must be two numbers of 1 to 100, the lower first, "
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
        return to_tensor(levels_HWC).float()

    def _jpeg(self, image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        quality = int(rng.integers(self.quality[0], self.quality[1] + 1))
        return compress(np.clip(image_HWC, 0, 1), quality)


def _degrade_once(
    image_HWC: np.ndarray, ranges: _Pass, full: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Blur, resize and add noise; sizes are factors of the ``full`` one."""
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
        # Photons counted where white is 255; the excess over the mean is the grain.
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
    """The exponent of a bell: as often below 1 as above."""
    if shape == "gaussian":
        return 1.0
    lowest, highest = (0.5, 4.0) if shape == "generalised" else (1.0, 2.0)
    if lowest < 1 and rng.random() < 0.5:
        return float(rng.uniform(lowest, 1))
    return float(rng.uniform(1, highest))


def _bell(
    size: int, across: float, along: float, angle: float, shape: str, power: float
) -> np.ndarray:
    """A bell-shaped filter, (T, T) float32 that adds up to 1."""
    y, x = np.mgrid[:size, :size] - size // 2
    first = (math.cos(angle) * x + math.sin(angle) * y) / across
    second = (math.cos(angle) * y - math.sin(angle) * x) / along
    distance = (first**2 + second**2) ** power
    kernel_TT = 1 / (1 + distance) if shape == "plateau" else np.exp(-0.5 * distance)
    return (kernel_TT / kernel_TT.sum()).astype(np.float32)


def _sinc(size: int, cutoff: float) -> np.ndarray:
    """The ideal round low-pass filter of a cutoff in radians a pixel, cut off to (T, T)."""
    y, x = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(x, y)
    middle = size // 2
    radius[middle, middle] = 1.0
    kernel_TT = cutoff * _bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel_TT[middle, middle] = cutoff**2 / (4 * math.pi)
    return (kernel_TT / kernel_TT.sum()).astype(np.float32)


def _bessel_j1(x: np.ndarray) -> np.ndarray:
    """Bessel function of the first kind and order 1, by torch: no further package for it."""
    return torch.special.bessel_j1(torch.from_numpy(x)).numpy()
