"""The input shape of an exported file: a number is a fixed size, a letter any size."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.errors import ZooError
from zoo.networks import Network

SAMPLE = {"batch": 2, "height": 19, "width": 13}
"""Sizes for tracing, in place of those that may vary. The batch is not 1, because tracing would
treat that as fixed. The sides are odd, different, and not multiples of any window."""


class ShapeError(ZooError, ValueError):
    """A shape is malformed or does not fit the network."""


@dataclass(frozen=True)
class InputShape:
    """Sizes of the input. Each is a number, or the name of a size that may vary.

    Attributes:
        batch: number of images or bursts.
        frames: number of frames of a burst; None for images.
        channels: number of channels of an image or frame.
        height: height in pixels.
        width: width in pixels.
        flat: whether the frames of a burst are stacked as channels, ``(B, T * I, H, W)``, for
            runtimes without a fifth dimension.
    """

    batch: int | str
    frames: int | None
    channels: int
    height: int | str
    width: int | str
    flat: bool = False

    @property
    def sizes(self) -> tuple[int | str, ...]:
        """All dimensions in order."""
        frames: tuple[int, ...] = (self.channels,)
        if self.frames is not None:
            frames = (self.frames * self.channels,) if self.flat else (self.frames, self.channels)
        return (self.batch, *frames, self.height, self.width)

    @property
    def dynamic(self) -> dict[int, str]:
        """Names of the sizes that may vary, by index of the dimension."""
        return {axis: name for axis, name in enumerate(self.sizes) if isinstance(name, str)}

    def concrete(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """All dimensions, with the given sizes in place of those that may vary."""
        asked = dict(zip((0, -2, -1), (batch, height, width), strict=True))
        rank = len(self.sizes)
        return tuple(
            asked.get(axis, asked.get(axis - rank, 0)) if isinstance(size, str) else size
            for axis, size in enumerate(self.sizes)
        )

    def sample(self) -> tuple[int, ...]:
        """All dimensions for tracing."""
        return self.concrete(*SAMPLE.values())

    def __str__(self) -> str:
        return "x".join(map(str, self.sizes))


@dataclass(frozen=True)
class ExtraInput:
    """An input beside the image: a guide, or the displacement of a burst's frames.

    Attributes:
        name: name of the input.
        shape: shape of the image.
        middle: sizes between the batch and the height.
        scale: its height and width over those of the image.
    """

    name: str
    shape: InputShape
    middle: tuple[int, ...]
    scale: int = 1

    def concrete(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """All dimensions, if the image has these sizes."""
        return batch, *self.middle, self.scale * height, self.scale * width

    @property
    def dynamic(self) -> dict[int, str]:
        """Names of the sizes that may vary, by index of the dimension."""
        own = "" if self.scale == 1 else f"{self.name}_"
        batch, *_, height, width = self.shape.sizes
        named = {0: batch}
        for axis, size in enumerate((height, width), 1 + len(self.middle)):
            named[axis] = f"{own}{size}" if isinstance(size, str) else size
        return {axis: name for axis, name in named.items() if isinstance(name, str)}


def extra_inputs(network: Network, shape: InputShape) -> list[ExtraInput]:
    """Return the inputs of a network beside the image, in its sequence."""
    if network.takes_flow:
        return [ExtraInput("flow", shape, (shape.frames or 1, 2))]
    return [
        ExtraInput(name, shape, (guide.channels,), guide.scale)
        for name, guide in network.guides.items()
    ]


def input_shape(network: Network, text: str | None = None) -> InputShape:
    """Read a shape such as ``1x3xHxW`` and check it against a network.

    Args:
        network: the network to export.
        text: dimensions separated by ``x``; None for a batch, height and width of any size. For a
            burst network, five dimensions, ``1x14x4xHxW``, or four with the frames as channels,
            ``1x56xHxW``.

    Raises:
        ShapeError: if the shape is malformed or does not fit the network.
    """
    channels = network.channels
    frames = network.burst if network.takes_burst else None
    usual = InputShape("N", frames, channels, "H", "W")
    if text is None:
        return usual
    sizes = [_size(word, text) for word in text.split("x")]
    flat = frames is not None and len(sizes) == 4
    expected = InputShape("N", frames, channels, "H", "W", flat)
    if len(sizes) != len(expected.sizes):
        also = f" or {InputShape('N', frames, channels, 'H', 'W', True)}" if frames else ""
        raise ShapeError(f"--shape {text}: the network takes {usual}{also}")
    for axis, (size, wanted) in enumerate(zip(sizes, expected.sizes, strict=True)):
        if isinstance(wanted, int) and size != wanted:
            raise ShapeError(
                f"--shape {text}: dimension {axis} is {size}, but the network needs {wanted} "
                f"there, as in {expected}"
            )
    names = [size for size in sizes if isinstance(size, str)]
    if len(set(names)) < len(names):
        raise ShapeError(f"--shape {text}: use a different name for each size that may vary")
    return InputShape(sizes[0], frames, channels, sizes[-2], sizes[-1], flat)


def _size(word: str, text: str) -> int | str:
    if re.fullmatch(r"[A-Za-z]\w*", word):
        return word
    if re.fullmatch(r"[1-9][0-9]{0,5}", word):
        return int(word)
    raise ShapeError(
        f"--shape {text}: {word!r} is not a size; write a number from 1, or a letter for any size"
    )
