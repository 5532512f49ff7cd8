"""Activations of channels: which channels of a network's mixers carry something.

Guo et al., "MambaIR", ECCV 2024, Fig. 3 (b): without channel attention, few channels do.

Shape suffixes: B batch, I image channels, H height, W width in pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from zoo.analysis.probing import check_image, probed
from zoo.blocks import Block, Mixer
from zoo.errors import ImageError, ZooError
from zoo.networks import Network

ACTIVE = 0.1
"""A channel is active if its activation is at least this share of the layer's largest."""

Layer: TypeAlias = Literal["mixer", "block"]


@dataclass(frozen=True, eq=False)
class ChannelActivations:
    """Activations of the channels of one layer.

    Attributes:
        place: name of the layer in the network.
        value_C: float64: mean over images and pixels of ``relu(output)``.
    """

    place: str
    value_C: Tensor

    @property
    def active(self) -> float:
        """Share of the channels with at least a tenth of the largest activation."""
        largest = float(self.value_C.max())
        return float((self.value_C >= ACTIVE * largest).double().mean()) if largest > 0 else 0.0


def channel_activations(
    network: Network,
    images: Iterable[Tensor],
    *,
    layer: Layer = "mixer",
    seen: Callable[[], object] | None = None,
) -> list[ChannelActivations]:
    """Compute the activations of all mixers or blocks: ReLU, then the mean over all pixels.

    Args:
        network: a network of single images without guides.
        images: images (I, H, W), float32 in [0, 1], of any sizes.
        layer: whose outputs: those of the "mixer" (the papers' figure), or of the whole "block".
        seen: called after each image, for progress.

    Returns:
        One for each layer with an output (B, H, W, C), in the sequence in which they run.

    Raises:
        ImageError: if there is no image.
        ZooError: if the network has no such layer, or takes bursts or guides.
    """
    kind: type[nn.Module] = Mixer if layer == "mixer" else Block
    sums: dict[str, Tensor] = {}
    pixels: dict[str, int] = {}

    def keep(place: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                value_C = output.detach().cpu().relu().double().sum((0, 1, 2))
                sums[place] = sums[place] + value_C if place in sums else value_C
                pixels[place] = pixels.get(place, 0) + output.shape[:3].numel()

        return hook

    count = 0
    with probed(network) as device, torch.no_grad():
        handles = [
            module.register_forward_hook(keep(name))
            for name, module in network.named_modules()
            if isinstance(module, kind)
        ]
        try:
            if not handles:
                raise ZooError(f"this network has no {layer}, so no activations can be shown")
            for image_IHW in images:
                check_image(network, image_IHW)
                network(image_IHW.to(device)[None])
                count += 1
                if seen is not None:
                    seen()
        finally:
            for handle in handles:
                handle.remove()
    if not count:
        raise ImageError("there is no image to look at; give at least one")
    if not sums:
        raise ZooError(f"no {layer} of this network returns features (B, H, W, C)")
    return [ChannelActivations(place, sums[place] / pixels[place]) for place in sums]
