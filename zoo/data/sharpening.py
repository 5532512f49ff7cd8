"""Unsharp masking, which makes the clean images of a training sharper than they are.

Source: X. Wang et al., "Real-ESRGAN", ICCVW 2021, Sec. 4.1 and the code published with it.

Shape suffixes: H height, W width in pixels, C channels of any number.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from zoo.schema import at_least

MOST_REACH = 200
"""Largest reach of the blur in pixels."""


@dataclass(frozen=True, kw_only=True)
class Sharpening:
    """Unsharp masking: adds what a blur takes away, where that is more than noise.

    ``mask * clip(x + amount * (x - blur(x))) + (1 - mask) * x``, where the mask is 1 at differences
    above the threshold, blurred by the same filter.

    Attributes:
        amount: factor of the difference.
        reach: pixels that the Gaussian filter reaches to each side. Its standard deviation is
            0.3 * (reach - 1) + 0.8: 8 pixels for 25.
        threshold: smallest difference that is enlarged, in levels of 0 to 255.
    """

    amount: float = 0.5
    reach: int = 25
    threshold: float = 10.0

    def __post_init__(self) -> None:
        at_least(self, 0, "amount", most=100)
        at_least(self, 1, "reach", most=MOST_REACH)
        at_least(self, 0, "threshold", most=255)

    @property
    def margin(self) -> int:
        """Pixels around a part of an image that its sharpened version depends on: two blurs."""
        return 2 * self.reach

    def __call__(self, image_HWC: np.ndarray) -> np.ndarray:
        """Sharpen an image, float32 in [0, 1], of any size; the border is mirrored."""
        difference_HWC = image_HWC - self._blurred(image_HWC)
        strong_HWC = (np.abs(difference_HWC) * 255 > self.threshold).astype(np.float32)
        mask_HWC = self._blurred(strong_HWC)
        sharp_HWC = np.clip(image_HWC + np.float32(self.amount) * difference_HWC, 0, 1)
        found: np.ndarray = mask_HWC * sharp_HWC + (1 - mask_HWC) * image_HWC
        return found

    def _blurred(self, image_HWC: np.ndarray) -> np.ndarray:
        side = 2 * self.reach + 1
        sigma = 0.3 * (self.reach - 1) + 0.8
        parts = [
            cv2.GaussianBlur(
                np.ascontiguousarray(image_HWC[..., band]),
                (side, side),
                sigma,
                borderType=cv2.BORDER_REFLECT_101,
            )
            for band in range(image_HWC.shape[2])
        ]  # OpenCV takes at most four bands at once
        return np.stack(parts, axis=2)
