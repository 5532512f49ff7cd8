"""The contract of a network, and the normalisation of its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from zoo.errors import ImageError
from zoo.networks.guide import NO_GUIDES, Guide, check_guides, check_names, random_guides
from zoo.networks.size import check_scale
from zoo.registry import Capabilities, Registry, capabilities_of, nearest_entry

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour (R, G, B) of the DIV2K training photographs, in [0, 1]."""

FlowPrior: TypeAlias = Literal["none", "registration", "given"]
"""Frame displacement that a burst network starts from: none; one that it estimates unless one is
passed ("registration"); or one that must be passed ("given")."""


class Network(nn.Module):
    """Restores images: ``(B, I, H, W) -> (B, O, s*H, s*W)``, in [0, 1], H and W from 1 pixel.

    O is I, unless the network sets ``out_channels``.

    A network with guides takes them after the image, in their sequence, as many as ``guides`` has:
    ``network(image_BIHW, *guides)``.

    In training mode, a network may return several images, the last at full size and the others
    smaller: the loss then compares each with the clean image in its size. In evaluation mode it
    returns the last. :meth:`of_scales` does both.

    A network registered with ``Capabilities(input="burst")`` restores bursts instead, with the
    reference frame first: ``network(burst_BTIHW, flow_BT2HW=None) -> (B, 3, s*H, s*W)``.

    Attributes:
        scale: output over input size, s.
        channels: channels I of the input image, or of a frame.
        guides: further images that the network needs, by name, such as
            ``{"pan": Guide(channels=1, scale=4)}``; networks of single images only.
        burst: number of frames T that the network is built for; 1 for single images.
        flow_prior: displacement that a burst network starts from: "none", "registration"
            (estimated unless passed) or "given" (must be passed).
        recipe: the recipe that built the network; None if it was built without a recipe.
        runs_in_torch: whether PyTorch computes it, and not a runtime with memory of its own.
    """

    scale: int
    channels: int
    guides: Mapping[str, Guide] = NO_GUIDES
    burst: int = 1
    flow_prior: FlowPrior = "none"
    recipe: Any = None
    runs_in_torch: bool = True
    _out_channels: int | None = None

    def _set_sizes(
        self,
        *,
        scale: int,
        channels: int,
        out_channels: int | None,
        guides: Mapping[str, Guide] = NO_GUIDES,
    ) -> None:
        """Set the four attributes, after checking them.

        Raises:
            ValueError: if one is out of range; the message names it.
        """
        check_scale(scale)
        for name, value in {"channels": channels, "out_channels": out_channels}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        check_names(guides)
        self.scale, self.channels, self._out_channels = scale, channels, out_channels
        self.guides = dict(guides)

    @cached_property  # which an attribute of the same name, set in a constructor, replaces
    def capabilities(self) -> Capabilities:
        """What tools need to know: input, multiple of the size, minimum size, dtypes."""
        entry = nearest_entry(type(self))
        return Capabilities() if entry is None else entry.capabilities

    @property
    def takes_burst(self) -> bool:
        """Whether the input is a burst ``(B, T, I, H, W)`` instead of an image."""
        return capabilities_of(self).takes_burst

    @property
    def takes_flow(self) -> bool:
        """Whether the network uses a displacement of the frames as a second input."""
        return self.flow_prior != "none"

    @property
    def needs_flow(self) -> bool:
        """Whether the displacement of the frames must be passed as a second input."""
        return self.flow_prior == "given"

    @property
    def out_channels(self) -> int:
        """Number of output channels; by default those of the input image, or 3 for bursts."""
        if self._out_channels is not None:
            return self._out_channels
        return 3 if self.takes_burst else self.channels

    def forward(self, image_BIHW: Tensor) -> Tensor:
        raise NotImplementedError

    def of_scales(self, images: Sequence[Tensor]) -> Any:
        """Return all images in training mode, and the last in evaluation mode."""
        return tuple(images) if self.training else images[-1]

    def check_image(self, image_BIHW: Tensor, *guides: Tensor) -> None:
        """Check the inputs. A wrong number of channels could otherwise pass, as broadcast.

        Raises:
            ImageError: if the image has not the shape (B, I, H, W), a guide is missing or has not
                the size that belongs to the image, or a dtype is not floating point.
        """
        if image_BIHW.dim() != 4 or image_BIHW.shape[1] != self.channels:
            raise ImageError(
                f"an image for this network has shape (B, {self.channels}, H, W), not "
                f"{tuple(image_BIHW.shape)}"
            )
        if not image_BIHW.is_floating_point():
            raise ImageError(
                f"the image has the dtype {image_BIHW.dtype}; convert it to float32, from 0 to 1"
            )
        check_guides(self.guides, image_BIHW, guides)

    def forward_with_displacements(
        self, burst_BTIHW: Tensor, flow_BT2HW: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the image of a burst, and the displacements that the network aligned it by.

        A network that does not estimate displacements returns none.
        """
        return self(burst_BTIHW, flow_BT2HW), ()

    def example(self, height: int, width: int) -> Tensor:
        """Return a random input of this size: (1, I, H, W), or (1, T, I, H, W) for bursts."""
        return torch.rand(1, self.channels, height, width)

    def example_inputs(self, height: int, width: int) -> tuple[Tensor, ...]:
        """Return all inputs that the network needs: :meth:`example`, and random guides."""
        return self.example(height, width), *random_guides(self.guides, height, width)


NETWORKS = Registry("network", Network)


class Normalise(nn.Module):
    """Subtracts the mean colour and multiplies by a factor; ``undo`` inverts both.

    Args:
        channels: image channels; with 3, the mean is that of DIV2K, otherwise 0.
        img_range: factor after the subtraction.
        subtract_mean: whether the mean is subtracted at all.
    """

    mean_I: Tensor

    def __init__(self, channels: int, *, img_range: float, subtract_mean: bool) -> None:
        super().__init__()
        # Rounded to float32 even in a float64 network, as in the authors' code.
        has_mean = channels == 3 and subtract_mean
        mean_I = torch.tensor(DIV2K_MEAN) if has_mean else torch.zeros(channels)
        self.register_buffer("mean_I", mean_I, persistent=False)
        self.img_range, self.has_mean = img_range, has_mean

    def forward(self, image_BHWI: Tensor) -> Tensor:
        return (image_BHWI - self.mean_I) * self.img_range

    def undo(self, image_BHWI: Tensor) -> Tensor:
        return image_BHWI / self.img_range + self.mean_I
