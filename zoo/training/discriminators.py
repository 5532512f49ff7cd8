"""Discriminators: networks that learn to tell the images of a network from clean ones.

Shape suffixes: B batch, I image channels, H height, W width, C channels of features.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from zoo.checkpoints.files import read_state
from zoo.checkpoints.trainers import without_usual_names
from zoo.errors import CheckpointError, RecipeError
from zoo.ops.precision import without_autocast
from zoo.registry import Registry

SLOPE = 0.2
"""Slope of the leaky ReLU for negative values."""

MOST_CHANNELS = 1024
"""Largest width of a discriminator."""


class Discriminator(nn.Module):
    """Tells how real an image is: ``(image_BIHW) -> logits of any shape``, high for real ones.

    Parts are built as ``discriminator(channels)``, with the image channels I.
    """

    def forward(self, image_BIHW: Tensor) -> Tensor:
        raise NotImplementedError


DiscriminatorFactory: TypeAlias = Callable[..., Discriminator]

DISCRIMINATORS = Registry("discriminator", Discriminator, supplied=("channels",))


@DISCRIMINATORS.register("unet_spectral")
class UNetSpectral(Discriminator):
    """A U-Net with spectral norm that judges each pixel (Real-ESRGAN, Sec. 3.4).

    Three strided convolutions and three enlargements, joined by sums. All convolutions but the
    first and the last have spectral norm: their largest singular value is estimated by one step of
    the power method at each pass in training.

    Args:
        channels: image channels I.
        dim: channels C of the first layer; they double at each level.
        skip: whether the features of a level are added to the enlarged ones of the level below.
    """

    def __init__(self, channels: int, *, dim: int = 64, skip: bool = True) -> None:
        super().__init__()
        if not 1 <= dim <= MOST_CHANNELS:
            raise RecipeError(f"dim is {dim}; it must be from 1 to {MOST_CHANNELS}")
        self.skip = skip
        self.first = nn.Conv2d(channels, dim, 3, padding=1)
        widths = [dim, 2 * dim, 4 * dim, 8 * dim]
        self.downs = nn.ModuleList(_normed(a, b, 4, stride=2) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(_normed(a, b, 3) for a, b in pairwise(reversed(widths)))
        self.refine = nn.ModuleList(_normed(dim, dim, 3) for _ in range(2))
        self.last = nn.Conv2d(dim, 1, 3, padding=1)

    def forward(self, image_BIHW: Tensor) -> Tensor:
        """Return the logits, (B, 1, H, W) for sides of at least 8 pixels."""
        height, width = image_BIHW.shape[2:]
        if min(height, width) < 8:
            raise RecipeError(
                f"the discriminator unet_spectral needs images of at least 8 pixels a side, not "
                f"{(height, width)}; choose a larger train.data.patch"
            )
        # The power method is computed once, and in float32 whatever the precision of the pass.
        with parametrize.cached():
            with without_autocast(image_BIHW.device):
                for layer in (*self.downs, *self.ups, *self.refine):
                    layer.weight  # noqa: B018 - it is computed here, and kept for the block
            x_BCHW = _leaky(self.first(image_BIHW))
            levels = []
            for down in self.downs:
                levels.append(x_BCHW)
                x_BCHW = _leaky(down(x_BCHW))
            for up, level_BCHW in zip(self.ups, reversed(levels), strict=True):
                # Twice as large; with odd sides, as large as the level.
                size = level_BCHW.shape[2:]
                x_BCHW = _leaky(up(F.interpolate(x_BCHW, size=size, mode="bilinear")))
                if self.skip:
                    x_BCHW = x_BCHW + level_BCHW
            for layer in self.refine:
                x_BCHW = _leaky(layer(x_BCHW))
            logits_B1HW: Tensor = self.last(x_BCHW)
        return logits_B1HW


def _normed(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False))


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


_LAYERS = ("first", *(f"{part}.{n}" for part in ("downs", "ups") for n in range(3)))
_OFFICIAL = {f"conv{n}": name for n, name in enumerate((*_LAYERS, "refine.0", "refine.1", "last"))}
"""Our name of each layer by that in Real-ESRGAN's code."""

_SPECTRAL = {
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
}
"""PyTorch's names of spectral norm by its former ones."""


def load_discriminator(discriminator: Discriminator, path: str | Path) -> None:
    """Load the weights of a discriminator: those of a run of ours, or of Real-ESRGAN's code.

    Raises:
        CheckpointError: if the file cannot be read, or is of another discriminator.
    """
    given, _ = read_state(Path(path))
    state = {_own_name(name): value for name, value in without_usual_names(given).items()}
    own = discriminator.state_dict()
    for name, value in own.items():
        if name not in state:
            raise _misfit(path, f"has no {name}")
        if state[name].shape != value.shape:
            shapes = f"{tuple(state[name].shape)} in place of {tuple(value.shape)}"
            raise _misfit(path, f"has {name} of shape {shapes}")
    discriminator.load_state_dict({name: state[name] for name in own})


def _own_name(name: str) -> str:
    layer, _, rest = name.partition(".")
    if layer not in _OFFICIAL:
        return name
    return f"{_OFFICIAL[layer]}.{_SPECTRAL.get(rest, rest)}"


def _misfit(path: str | Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {what}, so it is of another discriminator; give weights of the one in "
        "train.adversarial.discriminator, or leave train.adversarial.initial out"
    )
