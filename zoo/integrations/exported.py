"""Exported files as networks: the common part of ONNX Runtime and TensorRT.

Shape suffixes: B batch, T frames, I image channels, H height, W width, s scale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.networks import Guide, Network
from zoo.ops.padding import Margin, crop, pad
from zoo.registry import Capabilities


@dataclass(frozen=True)
class Range:
    """The allowed sizes of a dimension.

    Attributes:
        least: smallest size.
        most: largest size; None for no limit.
    """

    least: int = 1
    most: int | None = None


def guides_in(facts: Mapping[str, str]) -> dict[str, Guide]:
    """Read the guides of a file from its metadata.

    Raises:
        ZooError: if they are damaged.
    """
    try:
        return {
            name: Guide(channels=int(channels), scale=int(scale))
            for name, (channels, scale) in json.loads(facts.get("guides", "{}")).items()
        }
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ZooError(f"the file's metadata of guides are damaged: {error}") from error


class ExportedNetwork(Network):
    """An exported file as a network: restores ``(B, I, H, W)``, or bursts ``(B, T, I, H, W)``.

    If an image is too small for the file, it is padded by repeating its edge, and the output is
    cropped. If the batch is too large, it is run in parts.

    Args:
        name: name of the file, for error messages.
        facts: metadata of the file; see :func:`export.model.facts_of`.
        batch: allowed batch sizes.
        height: allowed heights in pixels.
        width: allowed widths in pixels.

    Attributes:
        error: class of the errors that are raised.
    """

    error: type[ZooError] = ZooError
    runs_in_torch = False

    def __init__(
        self, name: str, facts: Mapping[str, str], batch: Range, height: Range, width: Range
    ) -> None:
        super().__init__()
        if facts.get("model") is None:
            raise self.error(f"{name}: the file has no model metadata; only our own exports work")
        self.name, self.batch, self.height, self.width = name, batch, height, width
        self.scale, self.channels = int(facts["scale"]), int(facts["channels"])
        if "out_channels" in facts:  # files of earlier versions tell only those of the input
            self._out_channels = int(facts["out_channels"])
        self.guides = guides_in(facts)
        self.burst = int(facts.get("frames", 1))
        self.capabilities = Capabilities(
            input="burst" if facts["input"] == "burst" else "image",
            size_multiple=int(facts["size_multiple"]),
        )
        # Tools read a network's device and dtype from its parameters.
        self.placement = nn.Parameter(torch.empty(0), requires_grad=False)

    @property
    def largest_side(self) -> int | None:
        """Side of the largest allowed square in pixels; None for no limit."""
        sides = [most for most in (self.height.most, self.width.most) if most is not None]
        return min(sides, default=None)

    def run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Call the runtime once, with inputs of allowed sizes, and return the output."""
        raise NotImplementedError

    def forward(self, image_BIHW: Tensor, *extra: Tensor) -> Tensor:
        """Restore images; ``extra`` is their guides, or the displacement of a burst's frames."""
        inputs = (image_BIHW, *extra)
        batch, (height, width) = len(image_BIHW), image_BIHW.shape[-2:]
        if self.batch.most is not None and batch > self.batch.most:
            parts = [value.split(self.batch.most) for value in inputs]
            return torch.cat([self(*part) for part in zip(*parts, strict=True)])
        if batch < self.batch.least:
            raise self.error(
                f"{self.name}: needs a batch of {self.batch.least}; export it with batch 1 or N"
            )
        for most, size in ((self.height.most, height), (self.width.most, width)):
            if most is not None and size > most:
                side = self.largest_side
                raise self.error(
                    f"{self.name}: the largest side is {side} pixels; use tiles: -t {side}"
                )
        margin = Margin(max(0, self.height.least - height), max(0, self.width.least - width))
        output = self.run(tuple(_padded(value, margin, height).contiguous() for value in inputs))
        return crop(output, margin, self.scale)


def _padded(value: Tensor, margin: Margin, height: int) -> Tensor:
    """Pad an image, or what has a whole multiple of its size."""
    factor = value.shape[-2] // height
    return pad(value, Margin(margin.below * factor, margin.right * factor))


__all__ = ["ExportedNetwork", "Range", "guides_in"]
