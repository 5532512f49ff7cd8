"""Training losses.

Shape suffixes: B batch, I image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import RecipeError, ZooError
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
        if not 1e-9 <= epsilon < 1:  # the square of a smaller one is 0 in float32
            raise RecipeError(f"epsilon is {epsilon}; it must be at least 1e-9 and below 1")
        self.epsilon = epsilon

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        return ((output_BIHW - clean_BIHW).square() + self.epsilon**2).sqrt().mean()


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


@LOSSES.register("sum")
class WeightedSum(Loss):
    """A weighted sum of losses.

    Args:
        losses: the losses.
        weights: the weight of each, at least 0 and not all 0; None for 1 each.
    """

    def __init__(
        self, *, losses: tuple[Loss, ...], weights: tuple[float, ...] | None = None
    ) -> None:
        super().__init__()
        if not losses:
            raise RecipeError("losses is empty; name at least one loss")
        self.losses = losses
        self.weights = (1.0,) * len(losses) if weights is None else weights
        if len(self.weights) != len(losses):
            raise RecipeError(
                f"weights has {len(self.weights)} numbers for {len(losses)} losses; give one each"
            )
        if min(self.weights) < 0 or max(self.weights) == 0:
            raise RecipeError(
                f"weights is {list(self.weights)}; each must be at least 0, and one above 0"
            )
        self.parts = nn.ModuleList(losses)

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        terms = [
            weight * loss(output_BIHW, clean_BIHW)
            for weight, loss in zip(self.weights, self.losses, strict=True)
        ]
        return torch.stack(terms).sum()


def loss_of_scales(
    criterion: Loss, output: Tensor | Sequence[Tensor], clean_BIHW: Tensor
) -> Tensor:
    """Compare what a network returned in training mode with the clean image, in float32.

    Args:
        criterion: compares one image with the clean image.
        output: the network's image, or several images, each at most as large as the clean one.
        clean_BIHW: the clean image; for a smaller image, it is averaged over cells of pixels.

    Returns:
        The sum over the images.

    Raises:
        ZooError: if these are not images with the batch and the channels of the clean image, the
            last in its size and the others smaller with its aspect.
    """
    images = (output,) if isinstance(output, Tensor) else output
    _check_scales(images, clean_BIHW)
    return torch.stack(
        [criterion(image.float(), _in_size_of(image, clean_BIHW)) for image in images]
    ).sum()


def _check_scales(images: object, clean_BIHW: Tensor) -> None:
    """Check what a network returned. A single channel, for example, would pass as broadcast."""
    clean = tuple(clean_BIHW.shape)
    contract = (
        f"return an image of shape {clean}, or several in a tuple, the last of this shape and the "
        "others smaller, with the same channels and aspect"
    )
    if not isinstance(images, (tuple, list)) or not all(isinstance(i, Tensor) for i in images):
        raise ZooError(f"the network returned {_told(images)} in training mode; {contract}")
    if not images:
        raise ZooError(f"the network returned no image in training mode; {contract}")
    for image in images:
        shape = tuple(image.shape)
        if image is images[-1]:
            fits = shape == clean
        else:
            fits = len(shape) == 4 and shape[:2] == clean[:2] and _is_smaller(shape, clean)
        if not fits:
            raise ZooError(
                f"the network returned an image of shape {shape} in training mode; {contract}"
            )


def _told(found: object) -> str:
    if not isinstance(found, (tuple, list)):
        return type(found).__name__
    return f"{type(found).__name__} of {', '.join(type(item).__name__ for item in found[:4])}"


def _is_smaller(shape: Sequence[int], clean: Sequence[int]) -> bool:
    """Whether an image is at most as large as the clean one, with its aspect but for rounding."""
    (height, width), (most_height, most_width) = shape[-2:], clean[-2:]
    if not (1 <= height <= most_height and 1 <= width <= most_width):
        return False
    return abs(height * most_width - width * most_height) < max(most_height, most_width)


def _in_size_of(image_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
    height, width = image_BIHW.shape[-2:]
    if (height, width) == clean_BIHW.shape[-2:]:
        return clean_BIHW
    return F.adaptive_avg_pool2d(clean_BIHW, (height, width))
