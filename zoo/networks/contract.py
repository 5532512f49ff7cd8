"""What a network must do, and the normalisation of its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.registry import Registry

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour (R, G, B) of the DIV2K training photographs, in [0, 1]."""


class Network(nn.Module):
    """``(B, I, H, W) -> (B, I, s*H, s*W)``, images in [0, 1], any H and W from 1 pixel.

    Attributes:
        scale: output size over input size, s.
        channels: image channels I, in and out.
        recipe: what built the network, where a recipe did.
    """

    scale: int
    channels: int
    recipe: Any = None

    def forward(self, image_BIHW: Tensor) -> Tensor:
        raise NotImplementedError

    def example(self, height: int, width: int) -> Tensor:
        """An input of this size, of random values."""
        return torch.rand(1, self.channels, height, width)


NETWORKS = Registry("network", Network)


class Normalise(nn.Module):
    """Subtract the mean colour and multiply by a range; undo both.

    Args:
        channels: 3 for the mean of DIV2K, any other number for no mean.
        img_range: the factor.
    """

    mean_I: Tensor

    def __init__(self, channels: int, *, img_range: float) -> None:
        super().__init__()
        mean = DIV2K_MEAN if channels == 3 else (0.0,) * channels
        # float32 also in a float64 network, as the authors' constant is.
        self.register_buffer("mean_I", torch.tensor(mean), persistent=False)
        self.img_range = img_range

    def forward(self, image_BHWI: Tensor) -> Tensor:
        return (image_BHWI - self.mean_I) * self.img_range

    def undo(self, image_BHWI: Tensor) -> Tensor:
        return image_BHWI / self.img_range + self.mean_I
