"""Training losses.

Shape suffixes: B batch, I image channels, H height, W width.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.errors import RecipeError
from zoo.registry import Registry


class Loss(nn.Module):
    """Compares output and clean image: ``(output_BIHW, clean_BIHW) -> scalar``."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        raise NotImplementedError


LOSSES = Registry("loss", Loss)


@LOSSES.register("l1")
class L1(Loss):
    """Mean absolute difference, for super-resolution."""

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        return (output_BIHW - clean_BIHW).abs().mean()


@LOSSES.register("charbonnier")
class Charbonnier(Loss):
    """Smooth absolute difference ``sqrt(d^2 + epsilon^2)``, for denoising (MambaIR, Sec. 3.2).

    Args:
        epsilon: difference at which the loss changes from quadratic to linear.
    """

    def __init__(self, *, epsilon: float = 1e-3) -> None:
        super().__init__()
        if not 0 < epsilon < 1:
            raise RecipeError(f"epsilon is {epsilon}; it must be above 0 and below 1")
        self.epsilon = epsilon

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        return ((output_BIHW - clean_BIHW).square() + self.epsilon**2).sqrt().mean()
