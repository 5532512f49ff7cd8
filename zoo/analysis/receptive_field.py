"""The effective receptive field: how much each input pixel moves one output pixel.

Shape suffixes: B batch, I image channels, H height, W width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.analysis.probing import check_image, check_inside, probed
from zoo.errors import ImageError
from zoo.networks import Network

FRACTIONS = (0.2, 0.3, 0.5, 0.99)
"""Shares of the whole whose squares are stated, as by Ding et al. (2022), Table 9."""


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """An effective receptive field.

    Attributes:
        field_HW: float64, at least 0: mean over the images of the size of the gradient.
        row: row of the pixel that is looked at, in pixels of the input.
        column: column of that pixel.
    """

    field_HW: Tensor
    row: int
    column: int


class Extent(NamedTuple):
    """How far a share of a receptive field reaches.

    Attributes:
        fraction: the share.
        side: side in pixels of the smallest square around the pixel that holds the share.
        area: area of that square, as far as it is in the image, over the image's area.
    """

    fraction: float
    side: int
    area: float


def effective_receptive_field(
    network: Network,
    images: Iterable[Tensor],
    *,
    at: tuple[int, int] | None = None,
    seen: Callable[[], object] | None = None,
) -> ReceptiveField:
    """Compute how much each input pixel moves the output at one place (Luo et al., 2016)::

        field[y, x] = mean over images of sum over channels i of |d out / d image[i, y, x]|

    where ``out`` is the sum of all output values that cover the pixel ``at``: one pixel, or s x s
    where the network enlarges by s.

    Args:
        network: a network of single images without guides.
        images: images (I, H, W) of one size, float32 in [0, 1].
        at: row and column of the pixel in the input; None for the middle.
        seen: called after each image, for progress.

    Raises:
        ImageError: if there is no image, sizes differ, or the pixel is not inside.
        ZooError: if the network takes bursts or guides.
    """
    total_HW: Tensor | None = None
    count = 0
    with probed(network) as device:
        for image_IHW in images:
            check_image(network, image_IHW)
            height, width = image_IHW.shape[1:]
            row, column = (height // 2, width // 2) if at is None else at
            check_inside("the pixel", row, column, height, width)
            if total_HW is not None and total_HW.shape != image_IHW.shape[1:]:
                raise ImageError(
                    f"images of {tuple(total_HW.shape)} and {(height, width)} pixels cannot be "
                    "averaged; give images of one size"
                )
            grad_IHW = _gradient(network, image_IHW.to(device), row, column)
            field_HW = grad_IHW.cpu().double().abs().sum(0)
            total_HW = field_HW if total_HW is None else total_HW + field_HW
            count += 1
            if seen is not None:
                seen()
    if total_HW is None:
        raise ImageError("there is no image to look at; give at least one")
    return ReceptiveField(total_HW / count, row, column)


def _gradient(network: Network, image_IHW: Tensor, row: int, column: int) -> Tensor:
    """Return the gradient (I, H, W) of the output that covers one pixel of the input."""
    with torch.enable_grad():
        image_BIHW = image_IHW.detach()[None].clone().requires_grad_(True)
        output_BIHW = network(image_BIHW)
        s = network.scale
        cell = output_BIHW[:, :, s * row : s * (row + 1), s * column : s * (column + 1)]
        (grad_BIHW,) = torch.autograd.grad(cell.sum(), image_BIHW)
    return grad_BIHW[0]


def extents(field: ReceptiveField, fractions: Sequence[float] = FRACTIONS) -> list[Extent]:
    """Return the smallest squares around the pixel that hold shares of the field.

    Raises:
        ImageError: if the field is zero everywhere, or not finite.
    """
    field_HW = field.field_HW
    total = float(field_HW.sum())
    if not 0 < total < float("inf"):
        raise ImageError(f"the receptive field sums to {total}, so it has no extent")
    height, width = field_HW.shape
    found, reach = [], 0
    for fraction in sorted(fractions):
        while True:
            top, left = max(0, field.row - reach), max(0, field.column - reach)
            square_HW = field_HW[top : field.row + reach + 1, left : field.column + reach + 1]
            whole = square_HW.shape == field_HW.shape
            if float(square_HW.sum()) >= fraction * total or whole:
                break
            reach += 1
        found.append(Extent(fraction, 2 * reach + 1, square_HW.numel() / (height * width)))
    return found
