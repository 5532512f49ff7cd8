"""The perceptual loss: images are alike if a network that sees objects finds them alike.

Sources: Johnson et al., "Perceptual losses for real-time style transfer and super-resolution",
2016; features before the ReLU: Wang et al., "ESRGAN", 2018, Sec. 3.3; the layers and their weights:
"Real-ESRGAN", 2021, and the settings published with it.

Shape suffixes: B batch, I image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zoo.errors import RecipeError, nearest, shown
from zoo.training.losses.contract import LOSSES, Loss
from zoo.training.losses.vgg import FILE, LAYERS, VGG19, weights_file

REAL_ESRGAN: Mapping[str, float] = {
    "conv1_2": 0.1,
    "conv2_2": 0.1,
    "conv3_4": 1.0,
    "conv4_4": 1.0,
    "conv5_4": 1.0,
}
"""The layers that Real-ESRGAN compares, with their weights."""


@LOSSES.register("perceptual")
class Perceptual(Loss):
    """Mean absolute difference of features of VGG19, before their ReLU, summed over layers.

    Gray images are seen as RGB. The loss is computed in float32.

    Args:
        weights: file with the weights of VGG19: torchvision's, which is not part of this package. A
            name is also looked for in PyTorch's folder of downloads.
        layers: the weight of each layer, by the name of its convolution: "conv1_1" to "conv5_4".
    """

    def __init__(self, *, weights: str = FILE, layers: Mapping[str, float] = REAL_ESRGAN) -> None:
        super().__init__()
        for name in layers:
            if name not in LAYERS:
                raise RecipeError(f"layers: VGG19 has no {name!r}{nearest(name, LAYERS)}")
        if not layers or min(layers.values()) < 0 or not 0 < max(layers.values()) < 1e6:
            raise RecipeError(
                f"layers is {shown(dict(layers))}; give at least one layer, with weights of at "
                "least 0 and one above 0"
            )
        self.weights, self.layers = weights, dict(layers)
        self.network: VGG19 | None = None

    def prepare(self, channels: int) -> None:
        if channels not in (1, 3):
            raise RecipeError(
                f"the perceptual loss compares gray and RGB images, not {channels} channels; "
                "choose another loss, such as l1"
            )
        if self.network is None:
            network = VGG19(self.layers)
            network.load(weights_file(self.weights))
            self.network = network

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        if self.network is None:
            self.prepare(output_BIHW.shape[1])
            assert self.network is not None
            self.network.to(output_BIHW.device)
        found = self.network(_rgb(output_BIHW))
        wanted = self.network(_rgb(clean_BIHW))
        terms = [
            weight * (found[name] - wanted[name]).abs().mean()
            for name, weight in self.layers.items()
        ]
        return torch.stack(terms).sum()


def _rgb(image_BIHW: Tensor) -> Tensor:
    return image_BIHW.float().expand(-1, 3, -1, -1)
