"""The convolutions of VGG19, whose features a perceptual loss compares.

Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
recognition", 2015, configuration E. The weights are the user's: torchvision's file of VGG19.

Shape suffixes: B batch, I image channels, H height, W width, C channels of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints.files import read_state
from zoo.errors import CheckpointError, ZooError

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the five blocks."""

COUNTS = (2, 2, 4, 4, 4)
"""Convolutions of each block; each is followed by a ReLU, and each block by a pooling of 2."""

MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue of the images that the network was trained on."""

DEVIATION = (0.229, 0.224, 0.225)

FILE = "vgg19-dcbb9e9d.pth"
"""Name of torchvision's file with the weights, IMAGENET1K_V1."""


class _Layer(NamedTuple):
    """A convolution: its name, the number in torchvision's list of layers, its channels."""

    name: str
    number: int
    inputs: int
    outputs: int


def _layers() -> Iterator[_Layer]:
    number, inputs = 0, 3
    for block, (width, count) in enumerate(zip(WIDTHS, COUNTS, strict=True), 1):
        for place in range(1, count + 1):
            yield _Layer(f"conv{block}_{place}", number, inputs, width)
            number, inputs = number + 2, width  # the ReLU has a number, too
        number += 1  # so has the pooling


LAYERS = tuple(
    f"conv{block}_{n}" for block, count in enumerate(COUNTS, 1) for n in range(1, 1 + count)
)
"""Names of the convolutions, in order."""


class VGG19(nn.Module):
    """The convolutions of VGG19 up to the last wanted one; they are never trained.

    Args:
        wanted: names of the convolutions whose outputs are wanted, such as "conv5_4".
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, wanted: Iterable[str]) -> None:
        super().__init__()
        self.wanted = frozenset(wanted)
        last = max(map(LAYERS.index, self.wanted))
        self.layers = list(_layers())[: last + 1]
        self.convs = nn.ModuleDict(
            {
                layer.name: nn.Conv2d(layer.inputs, layer.outputs, 3, padding=1)
                for layer in self.layers
            }
        )
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1))
        self.requires_grad_(False)

    @property
    def smallest(self) -> int:
        """Smallest side of an image in pixels: each pooling halves it."""
        return 2 ** (int(self.layers[-1].name[4]) - 1)

    def forward(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """Return the outputs of the wanted convolutions, before their ReLU, by name.

        Args:
            image_B3HW: RGB in [0, 1].

        Raises:
            ZooError: if the image is too small.
        """
        if min(image_B3HW.shape[2:]) < self.smallest:
            raise ZooError(
                f"a perceptual loss up to {self.layers[-1].name} needs patches of at least "
                f"{self.smallest} pixels a side, not {tuple(image_B3HW.shape[2:])}; choose a "
                "larger train.data.patch or earlier layers"
            )
        x_BCHW, found = (image_B3HW - self.mean) / self.deviation, {}
        block = "1"
        for layer in self.layers:
            if layer.name[4] != block:
                x_BCHW, block = F.max_pool2d(x_BCHW, 2), layer.name[4]
            x_BCHW = self.convs[layer.name](x_BCHW)
            if layer.name in self.wanted:
                found[layer.name] = x_BCHW
            x_BCHW = F.relu(x_BCHW)
        return found

    def load(self, path: Path) -> None:
        """Load the weights from torchvision's file, or from one with the same names.

        Raises:
            CheckpointError: if the file cannot be read or is not of VGG19.
        """
        given, _ = read_state(path)
        for layer in self.layers:
            conv = self.convs[layer.name]
            for part in ("weight", "bias"):
                own = conv.get_parameter(part)
                own.copy_(_checked(given, f"features.{layer.number}.{part}", own, path))


def _checked(given: Mapping[str, Tensor], name: str, own: Tensor, path: Path) -> Tensor:
    """Return a tensor of the file, which must have the shape of ours."""
    if name not in given:
        raise CheckpointError(
            f"{path}: has no {name}, so it is not VGG19; use torchvision's {FILE}"
        )
    if given[name].shape != own.shape:
        raise CheckpointError(
            f"{path}: {name} has shape {tuple(given[name].shape)} in place of {tuple(own.shape)}, "
            f"so it is not VGG19; use torchvision's {FILE}"
        )
    return given[name]


def weights_file(name: str) -> Path:
    """Return the path of a file of weights: as it is, or in PyTorch's folder of downloads.

    Raises:
        CheckpointError: if the file is in neither place.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(name).name
    for path in (Path(name), cached):
        if path.is_file():
            return path
    raise CheckpointError(
        f"the perceptual loss needs the weights of VGG19, and {name} is neither here nor in "
        f"{cached.parent}; get torchvision's {FILE} (IMAGENET1K_V1) from "
        "download.pytorch.org/models, or give the path of yours as the loss's option 'weights'"
    )
