"""The loss of what a network returns in training: one image, or several scales.

Shape suffixes: B batch, I image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError
from zoo.training.losses.contract import Loss, one_number


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
            last in its size and the others smaller with its aspect; or if the criterion does not
            return one number.
    """
    images = (output,) if isinstance(output, Tensor) else output
    _check_scales(images, clean_BIHW)
    return torch.stack(
        [
            one_number(criterion, criterion(image.float(), _in_size_of(image, clean_BIHW)))
            for image in images
        ]
    ).sum()


def largest(output: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the image of the clean image's size from what a network returned, in float32."""
    image: Tensor = output if isinstance(output, Tensor) else output[-1]
    return image.float()


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
