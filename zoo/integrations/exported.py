"""Exported files as networks: what ONNX Runtime and TensorRT have in common.

Shape suffixes: B batch, T frames, I image channels, H height, W width, s scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.networks import Network
from zoo.ops.padding import Margin, crop, pad
from zoo.registry import Capabilities


@dataclass(frozen=True)
class Range:
    """Sizes that a dimension may have.

    Attributes:
        least: smallest size.
        most: largest size; None where there is no end.
    """

    least: int = 1
    most: int | None = None


class ExportedNetwork(Network):
    """A file as a network: ``(B, I, H, W) -> (B, I, s*H, s*W)``, or a burst ``(B, T, I, H, W)``.

    Images smaller than the file takes are padded by repeating their edge and cropped; a larger
    batch is run in parts.

    Args:
        name: of the file, for messages.
        facts: what the file says of itself, see :func:`export.model.facts_of`.
        batch: images that it takes at once.
        height: in pixels.
        width: in pixels.
        error: class of what is raised.
    """

    error: type[ZooError] = ZooError

    def __init__(
        self, name: str, facts: Mapping[str, str], batch: Range, height: Range, width: Range
    ) -> None:
        super().__init__()
        if facts.get("model") is None:
            raise self.error(f"{name}: does not say what it is; only our own exports are run")
        self.name, self.batch, self.height, self.width = name, batch, height, width
        self.scale, self.channels = int(facts["scale"]), int(facts["channels"])
        self.burst = int(facts.get("frames", 1))
        self.capabilities = Capabilities(
            input="burst" if facts["input"] == "burst" else "image",
            size_multiple=int(facts["size_multiple"]),
        )
        # Tools ask a network's parameters for its device and dtype.
        self.placement = nn.Parameter(torch.empty(0), requires_grad=False)

    @property
    def largest_side(self) -> int | None:
        """Side in pixels of the largest square it takes; None where there is no end."""
        sides = [most for most in (self.height.most, self.width.most) if most is not None]
        return min(sides, default=None)

    def run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """One call of the runtime, with sizes that the file takes."""
        raise NotImplementedError

    def forward(self, image_BIHW: Tensor, flow_BT2HW: Tensor | None = None) -> Tensor:
        inputs = (image_BIHW,) if flow_BT2HW is None else (image_BIHW, flow_BT2HW)
        batch, (height, width) = len(image_BIHW), image_BIHW.shape[-2:]
        if self.batch.most is not None and batch > self.batch.most:
            parts = [value.split(self.batch.most) for value in inputs]
            return torch.cat([self(*part) for part in zip(*parts, strict=True)])
        if batch < self.batch.least:
            raise self.error(
                f"{self.name}: takes {self.batch.least} images at once; export it with 1 or N"
            )
        for most, size in ((self.height.most, height), (self.width.most, width)):
            if most is not None and size > most:
                side = self.largest_side
                raise self.error(
                    f"{self.name}: takes no more than {side} pixels a side; use tiles: -t {side}"
                )
        margin = Margin(max(0, self.height.least - height), max(0, self.width.least - width))
        output = self.run(tuple(pad(value, margin).contiguous() for value in inputs))
        return crop(output, margin, self.scale)


__all__ = ["ExportedNetwork", "Range"]
