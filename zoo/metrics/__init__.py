"""Metrics that compare a restored image with the clean image.

:mod:`zoo.metrics.image` has PSNR and SSIM of 8-bit images, as in the papers' tables.
:mod:`zoo.metrics.spectral` has metrics of images with several bands, and
:mod:`zoo.metrics.perceptual` those of how an image looks; recipes choose them by name.
:mod:`zoo.metrics.burst` has PSNR and SSIM of linear values, for burst super-resolution.
"""

from zoo.metrics.contract import METRICS, Metric
from zoo.metrics.image import mean_psnrs, psnr, psnr_y, rgb_to_y, ssim, ssim_y
from zoo.metrics.perceptual import Lpips, Musiq, Niqe
from zoo.metrics.spectral import Bands, Ergas, SpectralAngle

__all__ = [
    "METRICS",
    "Bands",
    "Ergas",
    "Lpips",
    "Metric",
    "Musiq",
    "Niqe",
    "SpectralAngle",
    "mean_psnrs",
    "psnr",
    "psnr_y",
    "rgb_to_y",
    "ssim",
    "ssim_y",
]
