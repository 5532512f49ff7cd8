"""What a network must do, and the normalisation of its input."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from zoo.registry import Registry, capabilities_of

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour (R, G, B) of the DIV2K training photographs, in [0, 1]."""

FlowPrior: TypeAlias = Literal["none", "registration", "given"]
"""Displacement of the frames of a burst that a network starts from: none; one that it estimates
where none is passed to it; or one that must be passed."""


class Network(nn.Module):
    """``(B, I, H, W) -> (B, I, s*H, s*W)``, images in [0, 1], any H and W from 1 pixel.

    A network registered with ``Capabilities(input="burst")`` takes bursts instead, the reference
    frame first: ``network(burst_BTIHW, flow_BT2HW=None) -> (B, 3, s*H, s*W)``.

    Attributes:
        scale: output size over input size, s.
        channels: channels I of the input image, or of a frame.
        burst: frames T of a burst that the network is built for; 1 for a network of single images.
        flow_prior: what a burst network does with a flow.
        recipe: what built the network, where a recipe did.
    """

    scale: int
    channels: int
    burst: int = 1
    flow_prior: FlowPrior = "none"
    recipe: Any = None

    @property
    def takes_burst(self) -> bool:
        """Whether the input is a burst, ``(B, T, I, H, W)``, and not an image."""
        return capabilities_of(self).input == "burst"

    @property
    def takes_flow(self) -> bool:
        """Whether the displacement of the frames is of use as a second input."""
        return self.flow_prior != "none"

    @property
    def needs_flow(self) -> bool:
        """Whether the displacement of the frames must be passed as a second input."""
        return self.flow_prior == "given"

    @property
    def out_channels(self) -> int:
        """Channels of the output: those of the input image, and three (RGB) for bursts."""
        return 3 if self.takes_burst else self.channels

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
