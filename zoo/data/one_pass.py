"""Blind degradation in one pass: blur, downscaling, noise and JPEG of random strength.

It imitates what everyday photos have gone through: a soft lens, one resize, some noise, one JPEG.
Each step may be left out, so that clean photos are among the inputs. A network that trains on it
leaves clean photos alone. :mod:`zoo.data.blind` imitates a worse history.

Shape suffixes: C channels (1 gray, 3 RGB), H height, W width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import cv2
import numpy as np
from torch import Tensor

from zoo.data.bicubic import resize_bicubic
from zoo.data.degradations import DEGRADATIONS, Degradation, check_multiple, compress
from zoo.data.pixels import round_to_levels, to_array, to_tensor
from zoo.errors import RecipeError, shown

Resampling: TypeAlias = Literal["bicubic", "area", "cubic", "linear"]
"""Ways to downscale: MATLAB's antialiased bicubic, the mean over each pixel's area, and bicubic and
bilinear interpolation without antialiasing."""

_INTERPOLATIONS = {
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "linear": cv2.INTER_LINEAR,
}


@DEGRADATIONS.register("one_pass")
@dataclass(frozen=True, kw_only=True)
class OnePass(Degradation):
    """Blur, downscaling, noise and JPEG, each of random strength or left out.

    Every strength is drawn uniformly for each patch. The result is rounded to 8 bits.

    Args:
        scale: downscaling factor, 1 (no downscaling) to 8.
        blur: smallest and largest standard deviation of a Gaussian blur, in pixels of the clean
            image; null for no blur.
        noise: smallest and largest standard deviation of white noise, in levels of 0 to 255; null
            for no noise.
        quality: lowest and highest JPEG quality, 1 to 100; null for no JPEG.
        share: probability of each of the three.
        resampling: ways to downscale; one is drawn for each patch.
    """

    margin: ClassVar[int] = 24  # as for "bicubic_jpeg"
    photographs_only: ClassVar[bool] = True

    scale: int
    blur: tuple[float, float] | None = None
    noise: tuple[float, float] | None = None
    quality: tuple[int, int] | None = None
    share: float = 1.0
    resampling: tuple[Resampling, ...] = ("bicubic",)

    def __post_init__(self) -> None:
        if self.scale not in range(1, 9):
            raise RecipeError(f"degradation 'one_pass': scale must be 1 to 8, not {self.scale}")
        if not 0 <= self.share <= 1:
            raise RecipeError(f"degradation 'one_pass': share must be 0 to 1, not {self.share}")
        if not self.resampling:
            raise RecipeError("degradation 'one_pass': resampling is empty; name at least one way")
        for name, pair, lowest, highest in (
            ("blur", self.blur, 0, 20),
            ("noise", self.noise, 0, 255),
            ("quality", self.quality, 1, 100),
        ):
            if pair is not None and not lowest <= pair[0] <= pair[1] <= highest:
                raise RecipeError(
                    f"degradation 'one_pass': {name} must be two numbers from {lowest} to "
                    f"{highest}, the lower first, not {shown(list(pair))}"
                )

    def __call__(self, clean_CHW: Tensor, rng: np.random.Generator) -> Tensor:
        check_multiple(clean_CHW, self.scale)
        image_HWC = self._blurred(to_array(clean_CHW), rng)
        image_HWC = self._downscaled(image_HWC, rng)
        image_HWC = self._noisy(image_HWC, rng)
        levels_HWC = round_to_levels(image_HWC) / np.float32(255)
        if self.quality is not None and rng.random() < self.share:
            quality = int(rng.integers(self.quality[0], self.quality[1] + 1))
            levels_HWC = compress(levels_HWC, quality)
        return to_tensor(levels_HWC)

    def _blurred(self, image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.blur is None or rng.random() >= self.share:
            return image_HWC
        sigma = rng.uniform(*self.blur)
        side = 2 * round(3 * sigma) + 1  # a kernel of one pixel changes nothing, whatever sigma
        blurred = cv2.GaussianBlur(
            image_HWC, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101
        )
        return np.atleast_3d(blurred)

    def _downscaled(self, image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.scale == 1:
            return image_HWC
        way = self.resampling[int(rng.integers(len(self.resampling)))]
        if way == "bicubic":
            small_CHW = resize_bicubic(to_tensor(image_HWC).double(), 1 / self.scale)
            return to_array(small_CHW).astype(np.float32)
        height, width = (side // self.scale for side in image_HWC.shape[:2])
        small = cv2.resize(image_HWC, (width, height), interpolation=_INTERPOLATIONS[way])
        return np.atleast_3d(small)

    def _noisy(self, image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.noise is None or rng.random() >= self.share:
            return image_HWC
        sigma = rng.uniform(*self.noise) / 255
        noise_HWC = rng.standard_normal(image_HWC.shape, dtype=np.float32)
        return image_HWC + np.float32(sigma) * noise_HWC
