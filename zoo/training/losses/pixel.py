"""Losses that compare pixels, or the frequencies of pixels.

Shape suffixes: B batch, I image channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import RecipeError
from zoo.training.losses.contract import LOSSES, Loss


@LOSSES.register("l1")
class L1(Loss):
    """Mean absolute difference, for super-resolution."""

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        return (output_BIHW - clean_BIHW).abs().mean()


@LOSSES.register("charbonnier")
class Charbonnier(Loss):
    """Smooth absolute difference ``sqrt(d^2 + epsilon^2)``, for denoising (MambaIR, Sec. 3.6).

    Code that is built on BasicSR does not square it: see ``charbonnier_basicsr``.

    Args:
        epsilon: difference at which the loss changes from quadratic to linear.
    """

    def __init__(self, *, epsilon: float = 1e-3) -> None:
        super().__init__()
        if not 1e-9 <= epsilon < 1:  # the square of a smaller one is 0 in float32
            raise RecipeError(f"epsilon is {epsilon}; it must be at least 1e-9 and below 1")
        self.epsilon = epsilon

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        return ((output_BIHW - clean_BIHW).square() + self.epsilon**2).sqrt().mean()


@LOSSES.register("charbonnier_basicsr")
class CharbonnierBasicSR(Loss):
    """Smooth absolute difference ``sqrt(d^2 + epsilon)``, as BasicSR computes it.

    The authors of MambaIR, MambaIRv2 and MaIR train with it. MambaIR's 1e-3 changes from quadratic
    to linear at a difference of 0.03, eight levels of 255; the paper's form at a quarter level.

    Args:
        epsilon: square of the difference at which the loss changes from quadratic to linear.
    """

    def __init__(self, *, epsilon: float = 1e-3) -> None:
        super().__init__()
        if not 1e-18 <= epsilon < 1:
            raise RecipeError(f"epsilon is {epsilon}; it must be at least 1e-18 and below 1")
        self.epsilon = epsilon

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        return ((output_BIHW - clean_BIHW).square() + self.epsilon).sqrt().mean()


@LOSSES.register("psnr")
class NegativePSNR(Loss):
    """Minus the PSNR in dB of each image, in the mean over the batch.

    Each image counts alike, as in the mean PSNR of a test set; with the mean squared error, images
    with large errors count most. Training for PSNR: Chen et al., "HINet", 2021.

    Args:
        epsilon: added to the mean squared error (of values in [0, 1]), so that nearly perfect
            images do not count without limit. 1e-4 is an error of 40 dB.
    """

    def __init__(self, *, epsilon: float = 1e-4) -> None:
        super().__init__()
        if not 1e-12 <= epsilon < 1:
            raise RecipeError(f"epsilon is {epsilon}; it must be at least 1e-12 and below 1")
        self.epsilon = epsilon

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        error_B = (output_BIHW - clean_BIHW).square().flatten(1).mean(1)
        return 10 * (error_B + self.epsilon).log10().mean()


@LOSSES.register("fourier")
class Fourier(Loss):
    """Mean absolute difference of the Fourier transforms, over real and imaginary parts.

    The transform is not normalised, so the loss grows with the size of the patch (Cho et al.,
    "Rethinking coarse-to-fine approach in single image deblurring", 2021).
    """

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        # In float32 at least: half precision has no transform of most sizes.
        dtype = torch.promote_types(output_BIHW.dtype, torch.float32)
        difference_BIHW = output_BIHW.to(dtype) - clean_BIHW.to(dtype)
        return torch.view_as_real(torch.fft.rfft2(difference_BIHW)).abs().mean()
