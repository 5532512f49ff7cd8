"""Degradations of clean images, to make training pairs and test sets.

Shape suffixes: C channels (1 gray, 3 RGB, or any other number), H height, W width in pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from zoo.data.bicubic import resize_bicubic
from zoo.data.pixels import dequantise, quantise, to_array, to_tensor
from zoo.errors import ImageError, RecipeError
from zoo.registry import Registry


class Degradation(ABC):
    """Turns a clean image into the input of a network.

    Subclasses are frozen dataclasses with keyword-only, typed fields.
    """

    scale: int
    """Clean size divided by degraded size, equal to the network's ``scale``."""

    photographs_only: ClassVar[bool] = False
    """Whether images must be gray or RGB, as for JPEG."""

    margin: ClassVar[int] = 8
    """Width in degraded pixels of a margin around each training patch. It is degraded too and then
    cropped, so that a patch equals a crop of the whole degraded photo. The bicubic kernel reaches 2
    pixels beyond a pixel, JPEG's interpolated chroma 2."""

    @abstractmethod
    def __call__(self, clean_CHW: Tensor, rng: np.random.Generator) -> Tensor:
        """Degrade one image.

        Args:
            clean_CHW: float32 in [0, 1]; height and width are multiples of ``scale``.
            rng: source of all randomness.

        Returns:
            float32 (C, H/scale, W/scale), in [0, 1] unless the degradation says otherwise.
        """

    def for_test(self, clean_CHW: Tensor, seed: int) -> Tensor:
        """Degrade one image of a test set, with the same result at every call.

        Args:
            clean_CHW: float32 in [0, 1]; height and width are multiples of ``scale``.
            seed: a different number for each image. Degradations with a fixed benchmark protocol
                follow the protocol and ignore the seed.

        Returns:
            float32 (C, H/scale, W/scale), in [0, 1] unless the degradation says otherwise.
        """
        return self(clean_CHW, np.random.default_rng(seed))

    def for_data(self, *, photographic: bool) -> Degradation:
        """Return the degradation of images that are photographs or not, as their data needs it.

        Args:
            photographic: whether images are gray or RGB without a stated range of values.
        """
        return self


DEGRADATIONS = Registry("degradation", Degradation, supplied=("scale",))


def check_multiple(clean_CHW: Tensor, scale: int) -> tuple[int, int]:
    """Return height and width of an image that is about to be downscaled ``scale`` times.

    Raises:
        ImageError: if they are not multiples of the scale.
    """
    height, width = clean_CHW.shape[-2:]
    if height % scale or width % scale:
        raise ImageError(
            f"an image of {width}x{height} pixels cannot be downscaled {scale} times; "
            f"crop it to multiples of {scale}"
        )
    return height, width


@DEGRADATIONS.register("bicubic")
@dataclass(frozen=True, kw_only=True)
class Bicubic(Degradation):
    """Downscales with the antialiased bicubic kernel and rounds to 8 bits, after each side.

    The rounding is part of the degradation, because test sets and most users' images are 8-bit
    files; MATLAB, which made the test sets, rounds twice (:mod:`zoo.data.bicubic`).

    Args:
        scale: downscaling factor, 1 (rounding only) to 8.
        rounded: whether photographs are rounded to 8 bits. Other data, with a stated range or other
            channels than gray or RGB, never is.
    """

    scale: int
    rounded: bool = True

    def __post_init__(self) -> None:
        if self.scale not in range(1, 9):
            raise RecipeError(f"degradation 'bicubic': scale must be 1 to 8, not {self.scale}")

    def for_data(self, *, photographic: bool) -> Bicubic:
        return self if photographic else replace(self, rounded=False)

    def __call__(self, clean_CHW: Tensor, rng: np.random.Generator) -> Tensor:
        check_multiple(clean_CHW, self.scale)
        # In float64, a value halfway between two levels is rounded the same way wherever the image
        # was cropped.
        bits = 8 if self.rounded else None
        small_CHW = resize_bicubic(clean_CHW.double(), 1 / self.scale, bits=bits)
        return (small_CHW * 255).round_().float() / 255 if self.rounded else small_CHW.float()


@DEGRADATIONS.register("noise")
@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Degradation):
    """Adds white Gaussian noise without clipping or rounding, as in the denoising benchmarks.

    Args:
        scale: must be 1.
        sigma: standard deviation in levels of 0 to 255.
    """

    scale: int
    sigma: float

    def __post_init__(self) -> None:
        _check_scale_1("noise", self.scale)
        if not 0 <= self.sigma <= 255:
            raise RecipeError(f"degradation 'noise': sigma must be 0 to 255, not {self.sigma}")

    def __call__(self, clean_CHW: Tensor, rng: np.random.Generator) -> Tensor:
        noise_CHW = rng.standard_normal(tuple(clean_CHW.shape), dtype=np.float32)
        return clean_CHW + torch.from_numpy(noise_CHW) * (self.sigma / 255)

    def for_test(self, clean_CHW: Tensor, seed: int) -> Tensor:
        """Add the same noise as the MambaIR authors' test code.

        NumPy's legacy generator is seeded with 0 for every image and fills (H, W, C) in float64,
        with channels in the order blue, green, red. The sum is rounded to float32, but not clipped
        or quantised.
        """
        channels, height, width = clean_CHW.shape
        draw = np.random.RandomState(0).normal(0, self.sigma / 255, (height, width, channels))
        return to_tensor(to_array(clean_CHW) + draw[..., ::-1]).float()


@DEGRADATIONS.register("jpeg")
@dataclass(frozen=True, kw_only=True)
class Jpeg(Degradation):
    """Compresses to a baseline JPEG with 4:2:0 chroma subsampling, and decodes it.

    Args:
        scale: must be 1.
        quality: JPEG quality, 1 to 100.
    """

    photographs_only: ClassVar[bool] = True

    scale: int
    quality: int

    def __post_init__(self) -> None:
        _check_scale_1("jpeg", self.scale)
        if self.quality not in range(1, 101):
            raise RecipeError(f"degradation 'jpeg': quality must be 1 to 100, not {self.quality}")

    def __call__(self, clean_CHW: Tensor, rng: np.random.Generator) -> Tensor:
        return to_tensor(compress(to_array(clean_CHW), self.quality))


def compress(image_HWC: np.ndarray, quality: int) -> np.ndarray:
    """Encode an image as a baseline JPEG with 4:2:0 chroma subsampling, and decode it.

    Args:
        image_HWC: float32, gray or RGB; values outside [0, 1] are clipped.
        quality: JPEG quality, 1 to 100.

    Returns:
        The decoded image, (H, W, C) float32 in [0, 1].
    """
    # OpenCV's channel order is B, G, R.
    bgr_HWC = np.ascontiguousarray(quantise(image_HWC)[..., ::-1])
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    _, file = cv2.imencode(".jpg", bgr_HWC, options)
    decoded = cv2.imdecode(file, cv2.IMREAD_UNCHANGED)
    assert decoded is not None, "OpenCV could not decode its own JPEG"
    return dequantise(np.atleast_3d(decoded)[..., ::-1])


def _check_scale_1(name: str, scale: int) -> None:
    if scale != 1:
        raise RecipeError(
            f"degradation {name!r} does not change the size, so scale must be 1, not {scale}; "
            "use 'bicubic' for super-resolution"
        )
