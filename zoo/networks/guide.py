"""Guides: images that a network sees beside the one that it restores.

Shape suffixes: B batch, I channels of the image, H height, W width in pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from zoo.errors import ImageError
from zoo.networks.size import check_scale

NO_GUIDES: Mapping[str, Guide] = MappingProxyType({})
"""The guides of a network that takes none."""

INPUTS = ("input", "output", "flow")
"""Names that exported files have for other tensors."""


@dataclass(frozen=True, kw_only=True)
class Guide:
    """A guide such as a panchromatic band, a depth map, a flash photo or the events of a camera.

    Attributes:
        channels: number of channels.
        scale: size of the guide over the size of the network's input.

    Raises:
        ValueError: if one is below 1, or the size is too large.
    """

    channels: int
    scale: int = 1

    def __post_init__(self) -> None:
        for name in ("channels", "scale"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        check_scale(self.scale)

    def shape(self, batch: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the shape of the guide of images of this size."""
        return batch, self.channels, self.scale * height, self.scale * width

    def __str__(self) -> str:
        size = f", {self.scale} times the size" if self.scale > 1 else ""
        return f"{self.channels} {'channel' if self.channels == 1 else 'channels'}{size}"


def check_names(guides: Mapping[str, Guide]) -> None:
    """Raise a ValueError if a name is not an identifier, or that of another tensor, or no Guide."""
    for name, guide in guides.items():
        if not isinstance(guide, Guide):
            raise ValueError(
                f"the guide {name} of the network is {type(guide).__name__}; it must be a Guide, "
                "such as Guide(channels=1, scale=4)"
            )
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name) or name in INPUTS:
            raise ValueError(
                f"{name!r} cannot be the name of a guide; use letters, digits and '_', and none of "
                f"{', '.join(INPUTS)}"
            )


def check_guides(guides: Mapping[str, Guide], image_BIHW: Tensor, given: Sequence[Tensor]) -> None:
    """Check the guides that a network is called with.

    Args:
        guides: the guides that the network takes, by name.
        image_BIHW: the images.
        given: the guides of the images, in the sequence of ``guides``.

    Raises:
        ImageError: if one is missing, or has not the size that belongs to the images.
    """
    if len(given) != len(guides):
        named = "; ".join(f"{name} ({guide})" for name, guide in guides.items()) or "none"
        raise ImageError(f"the network got {len(given)} guides, but takes {named}")
    batch, _, height, width = image_BIHW.shape  # no len(), which would fix it in a traced graph
    for (name, guide), tensor in zip(guides.items(), given, strict=True):
        expected = guide.shape(batch, height, width)
        if tuple(tensor.shape) != expected:
            raise ImageError(
                f"the guide {name} of images of shape {tuple(image_BIHW.shape)} has shape "
                f"{expected}, not {tuple(tensor.shape)}"
            )
        if not tensor.is_floating_point():
            raise ImageError(
                f"the guide {name} has the dtype {tensor.dtype}; convert it to float32, from 0 to 1"
            )


def with_sizes(guides: Mapping[str, Guide], given: Sequence[Tensor]) -> list[tuple[Tensor, int]]:
    """Return the guides that a network was called with, each with its size over the image's."""
    return [(tensor, guide.scale) for guide, tensor in zip(guides.values(), given, strict=True)]


def window(tensors: Sequence[Tensor], row: slice, column: slice) -> tuple[Tensor, ...]:
    """Cut the same window out of images and of what belongs to them.

    Args:
        tensors: the images, and tensors of a whole multiple of their size.
        row: rows of the window, in pixels of the images.
        column: columns of the window, in pixels of the images.
    """
    found = []
    for tensor in tensors:
        factor = tensor.shape[-2] // tensors[0].shape[-2]
        rows, columns = (slice(s.start * factor, s.stop * factor) for s in (row, column))
        found.append(tensor[..., rows, columns])
    return tuple(found)


def random_guides(guides: Mapping[str, Guide], height: int, width: int) -> tuple[Tensor, ...]:
    """Return random guides for an image of this size."""
    return tuple(torch.rand(guide.shape(1, height, width)) for guide in guides.values())
