"""How networks extend an image to whole multiples of a size, and crop what they return."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from zoo.ops.padding import Margin, PadMode, crop, margin_to_grid, pad

MOST = 256
"""Largest ``pad_to`` in pixels; even the smallest image is extended to this size."""


class Extension:
    """Extends images at the bottom and on the right, and crops the output.

    Networks have the options ``padding``, the mode, and ``pad_to``.

    Args:
        mode: what the margin holds; see :func:`zoo.ops.padding.pad`.
        pad_to: height and width become multiples of this, in pixels, at most 256; 1 for no more
            than the network needs.
        needed: the network needs multiples of this.
        extra: whether a side that is already a multiple gets as much once more.

    Attributes:
        grid: height and width become multiples of this.

    Raises:
        ValueError: if ``pad_to`` is out of range, or does not go with ``needed``; or if ``mode``
            has no effect, because nothing is ever added.
    """

    def __init__(self, mode: PadMode, pad_to: int, *, needed: int = 1, extra: bool = False) -> None:
        if not 1 <= pad_to <= MOST:
            raise ValueError(f"pad_to is {pad_to}; it must be from 1 to {MOST}")
        self.mode, self.extra = mode, extra
        self.grid = math.lcm(pad_to, needed)
        if self.grid > max(MOST, needed):
            raise ValueError(
                f"pad_to is {pad_to}; the network needs multiples of {needed}, so images would be "
                f"extended to multiples of {self.grid}; use a multiple or a divisor of {needed}"
            )

        if self.grid == 1 and mode != "replicate" and not extra:
            raise ValueError(
                f"padding is {mode!r}, but the network pads to multiples of 1, which adds nothing; "
                "set pad_to, or leave padding out"
            )

    def margin(self, image: Tensor) -> Margin:
        """Return the rows and columns that are added to an image."""
        if not self.extra:
            return margin_to_grid(image, self.grid)
        below, right = ((size // self.grid + 1) * self.grid - size for size in image.shape[-2:])
        return Margin(below, right)

    def around(
        self,
        restore: Callable[..., Tensor],
        image_BIHW: Tensor,
        scale: int = 1,
        *,
        guides: Sequence[tuple[Tensor, int]] = (),
    ) -> Tensor:
        """Extend images and their guides, restore them, and crop the output.

        Args:
            restore: restores the extended images ``(B, I, H, W)``; it gets their guides after them.
            image_BIHW: the images.
            scale: output over input size of ``restore``.
            guides: guides of the images, each with its size over that of the images.
        """
        if self.grid == 1 and not self.extra:
            return restore(image_BIHW, *(guide for guide, _ in guides))
        margin = self.margin(image_BIHW)
        extended = [
            pad(guide, Margin(factor * margin.below, factor * margin.right), self.mode)
            for guide, factor in guides
        ]
        return crop(restore(pad(image_BIHW, margin, self.mode), *extended), margin, scale)

    def __str__(self) -> str:
        if self.grid == 1 and not self.extra:
            return "none"
        more = ", always by at least one" if self.extra else ""
        return f"{self.mode} to multiples of {self.grid}{more}"
