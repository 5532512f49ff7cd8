"""The contract of metrics that recipes and commands choose by name, beside PSNR and SSIM.

Shape suffixes: H height, W width in pixels, C channels of any number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from zoo.registry import Registry


class Metric(ABC):
    """Measures a restored image against the clean image."""

    def prepare(self) -> None:  # noqa: B027 - most metrics need nothing
        """Load what the metric needs; called before hours of training or scoring.

        Raises:
            ZooError: if something is missing.
        """

    @abstractmethod
    def __call__(
        self, restored_HWC: np.ndarray, clean_HWC: np.ndarray, scale: int
    ) -> dict[str, float]:
        """Measure one image.

        Args:
            restored_HWC: the restored image, floating point in [0, 1], without its border.
            clean_HWC: the clean image, of the same shape.
            scale: size of the restored image divided by that of the degraded one.

        Returns:
            Values by name, such as ``{"sam": 2.1}``; the same names for every image. NaN if the
            image has no such value.
        """


METRICS = Registry("metric", Metric)
