"""The contract of training losses.

Shape suffixes: B batch, I image channels, H height, W width.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.registry import Registry


class Loss(nn.Module):
    """Compares output and clean image: ``(output_BIHW, clean_BIHW) -> scalar``."""

    def __init__(self) -> None:
        super().__init__()

    def prepare(self, channels: int) -> None:
        """Read the files that the loss needs. The trainer calls it once, before the first step.

        Args:
            channels: image channels I.

        Raises:
            ZooError: if a file cannot be read, or the loss does not take such images.
        """

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        raise NotImplementedError


LOSSES = Registry("loss", Loss)
