"""The contract of a head, which turns features into an image.

Shape suffixes: B batch, H height, W width, C feature channels, I image channels, s scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from zoo.registry import Registry


class Head(nn.Module):
    """Turns ``(features_BHWC, image_BHWI)`` into an image ``(B, s*H, s*W, I)``.

    Built as ``head(dim, scale=, channels=)``: ``dim`` is C, ``scale`` is s and ``channels`` is I.
    The image is the network's input after normalisation; most heads ignore it.
    """

    def forward(self, features_BHWC: Tensor, image_BHWI: Tensor) -> Tensor:
        raise NotImplementedError


def check_keeps_size(name: str, scale: int) -> None:
    """Raise a ValueError if a head that keeps the size is built for a scale other than 1."""
    if scale != 1:
        raise ValueError(
            f"scale is {scale}, but the {name} head keeps the size; set it to 1, or take a head "
            "that enlarges, such as pixelshuffle_direct"
        )


HeadFactory: TypeAlias = Callable[..., Head]

HEADS = Registry("head", Head, supplied=("dim", "scale", "channels"))
