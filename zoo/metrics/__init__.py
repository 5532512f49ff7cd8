"""Metrics that compare a restored image with the clean image.

:mod:`zoo.metrics.image` has PSNR and SSIM of 8-bit images, as in the papers' tables.
:mod:`zoo.metrics.burst` has PSNR and SSIM of linear values, for burst super-resolution.
"""

from zoo.metrics.image import mean_psnr, psnr, psnr_y, rgb_to_y, ssim, ssim_y

__all__ = ["mean_psnr", "psnr", "psnr_y", "rgb_to_y", "ssim", "ssim_y"]
