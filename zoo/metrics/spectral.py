"""Metrics of images with several bands: per band, and of the spectrum of each pixel.

Shape suffixes: H height, W width in pixels, C bands.
"""

from __future__ import annotations

import math

import numpy as np

from zoo.metrics.contract import METRICS, Metric
from zoo.metrics.image import SSIM_WINDOW, psnr, ssim


@METRICS.register("bands")
class Bands(Metric):
    """PSNR in dB and SSIM of each channel, without rounding, as ``psnr_1``, ``ssim_1``, ...

    SSIM is NaN for images that are smaller than its window.
    """

    def __call__(
        self, restored_HWC: np.ndarray, clean_HWC: np.ndarray, scale: int
    ) -> dict[str, float]:
        large_enough = min(clean_HWC.shape[:2]) >= SSIM_WINDOW
        found = {}
        for number in range(clean_HWC.shape[2]):
            pair = tuple(image[..., number : number + 1] for image in (restored_HWC, clean_HWC))
            found[f"psnr_{number + 1}"] = psnr(*pair, rounded=False)
            found[f"ssim_{number + 1}"] = ssim(*pair, rounded=False) if large_enough else math.nan
        return found


@METRICS.register("sam")
class SpectralAngle(Metric):
    """Spectral angle mapper: the mean angle between the spectra of a pixel, in degrees; 0 is best.

    Pixels where one of the two spectra is zero have no angle and are left out. The angle is 0 for a
    single channel. Source: Kruse et al., "The spectral image processing system (SIPS)", 1993.
    """

    def __call__(
        self, restored_HWC: np.ndarray, clean_HWC: np.ndarray, scale: int
    ) -> dict[str, float]:
        a_HWC, b_HWC = restored_HWC.astype(np.float64), clean_HWC.astype(np.float64)
        norm_HW = np.linalg.norm(a_HWC, axis=2) * np.linalg.norm(b_HWC, axis=2)
        known_HW = norm_HW > 0
        if not known_HW.any():
            return {"sam": math.nan}
        cosine = (a_HWC * b_HWC).sum(axis=2)[known_HW] / norm_HW[known_HW]
        return {"sam": float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())}


@METRICS.register("ergas")
class Ergas(Metric):
    """ERGAS: 100 / scale * sqrt(mean over bands of (RMSE / mean of the clean band)^2); 0 is best.

    NaN if a band of the clean image is zero everywhere. Source: Wald, "Quality of high resolution
    synthesised images: is there a simple criterion?", 2000.
    """

    def __call__(
        self, restored_HWC: np.ndarray, clean_HWC: np.ndarray, scale: int
    ) -> dict[str, float]:
        a_HWC, b_HWC = restored_HWC.astype(np.float64), clean_HWC.astype(np.float64)
        squares_C, mean_C = ((a_HWC - b_HWC) ** 2).mean((0, 1)), b_HWC.mean((0, 1))
        if not mean_C.all():
            return {"ergas": math.nan}
        return {"ergas": 100 / scale * float(np.sqrt((squares_C / mean_C**2).mean()))}
