"""What all analyses share: a network that is only looked at, and the checks of what it is given.

Shape suffixes: I image channels, H height, W width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from zoo.errors import ImageError, ZooError
from zoo.networks import Network


def check_network(network: Network) -> None:
    """Check that a network is one that can be looked into.

    Raises:
        ZooError: if it takes bursts or guides.
    """
    if network.takes_burst or network.guides:
        what = "bursts" if network.takes_burst else f"guides ({', '.join(network.guides)})"
        raise ZooError(
            f"this network takes {what}; only networks of single images can be looked into"
        )


@contextmanager
def probed(network: Network) -> Iterator[torch.device]:
    """Within the block, the network is in evaluation mode and its parameters get no gradients.

    Yields:
        The device of the network.

    Raises:
        ZooError: if the network takes bursts or guides.
    """
    check_network(network)
    training = {module: module.training for module in network.modules()}
    learning = [p for p in network.parameters() if p.requires_grad]
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    try:
        network.eval().requires_grad_(False)
        with torch.inference_mode(False):
            yield device
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, mode in training.items():
            module.training = mode


def check_image(network: Network, image_IHW: Tensor) -> None:
    """Check that an image is one that the network takes.

    Raises:
        ImageError: if the shape or the dtype is wrong.
    """
    if image_IHW.dim() != 3 or len(image_IHW) != network.channels or 0 in image_IHW.shape:
        raise ImageError(
            f"an image for this network has shape ({network.channels}, H, W), not "
            f"{tuple(image_IHW.shape)}"
        )
    if not image_IHW.is_floating_point():
        raise ImageError(f"the image has dtype {image_IHW.dtype}; convert it to float32, 0 to 1")


def check_inside(what: str, row: int, column: int, height: int, width: int, side: int = 1) -> None:
    """Check that a square of pixels is inside an image.

    Raises:
        ImageError: if it is not; the message says what the place is of, and how large the image is.
    """
    if not (0 <= row <= height - side and 0 <= column <= width - side):
        raise ImageError(
            f"{what} at row {row}, column {column} with {side} x {side} pixels is not inside an "
            f"image of {height} x {width}; the first row and column are 0"
        )
