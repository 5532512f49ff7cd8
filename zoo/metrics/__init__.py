"""How close a restored image is to the clean one.

:mod:`zoo.metrics.image` has PSNR and SSIM of 8-bit images, as the papers' tables measure them;
:mod:`zoo.metrics.burst` has those of linear values, for burst super-resolution.
"""

from zoo.metrics.image import psnr, psnr_y, rgb_to_y, ssim, ssim_y

__all__ = ["psnr", "psnr_y", "rgb_to_y", "ssim", "ssim_y"]
