"""Where the pixels of a burst's frame lie in the high-resolution image, and enlarging by it.

In the synthetic bursts of the field, pixel i of a low-resolution colour frame lies on pixel 4 i of
the clean image, not on the centre of its 4 x 4 pixels, and the planes of a RAW frame at 8 i or
8 i + 4. Plain bilinear enlargement is then off by several pixels.

Shape suffixes: B batch, T frames, I channels of a frame (3 RGB, or 4 planes R, Gr, Gb, B),
H height, W width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Registration: TypeAlias = Literal["corner", "centre"]
"""Pixel i of a frame lies on pixel ``scale * i`` ("corner"), or images share centres."""


class Plane(NamedTuple):
    """Where a channel of a frame begins in its cell, in pixels of the frame, and its colour."""

    row: float
    column: float
    color: int


_RAW = (Plane(0, 0, 0), Plane(0, 0.5, 1), Plane(0.5, 0, 1), Plane(0.5, 0.5, 2))
_RGB = (Plane(0, 0, 0), Plane(0, 0, 1), Plane(0, 0, 2))


def planes(channels: int) -> tuple[Plane, ...]:
    """The channels of a frame: 4 planes R, Gr, Gb, B, or 3 of RGB."""
    return _RAW if channels == 4 else _RGB


def phase_taps(channels: int, scale: int, registration: Registration) -> Tensor:
    """Kernel (3, I, 3, 3) of the convolution that puts bilinear enlargement in its right place.

    Enlarging by ``F.interpolate(align_corners=False)`` reads position (o - (s-1)/2) / s for output
    o; a plane whose pixel 0 lies on output p must be read at (o - p) / s, which is t = ((s-1)/2 -
    p) / s further: taps 1 - |t| and |t| on the side of t, in each direction.
    """
    kernel = torch.zeros(3, channels, 3, 3)
    pitch = scale / 2 if channels == 4 else scale  # distance of a sensor's pixels
    start = 0.0 if registration == "corner" else (pitch - 1) / 2
    for channel, (row, column, color) in enumerate(planes(channels)):
        taps = [_line(((scale - 1) / 2 - start) / scale - at) for at in (row, column)]
        kernel[color, channel] = taps[0][:, None] * taps[1]
    return kernel / (kernel.sum((1, 2, 3), keepdim=True))


def _line(shift: float) -> Tensor:
    taps = torch.zeros(3)
    taps[1] = 1 - abs(shift)
    taps[2 if shift > 0 else 0] += abs(shift)
    return taps


def enlarge_frame(
    frame_BIHW: Tensor, scale: int, registration: Registration, kernel: Tensor | None = None
) -> Tensor:
    """Enlarge a frame bilinearly, each colour in its place: the bar that a network has to clear.

    Args:
        frame_BIHW: RGB, or the four planes of a RAW frame.
        scale: output over input size: 8 for the planes of a x4 burst.
        registration: where the pixels lie.
        kernel: taps to use instead of :func:`phase_taps`.

    Returns:
        (B, 3, scale*H, scale*W).
    """
    if kernel is None:
        kernel = phase_taps(frame_BIHW.shape[1], scale, registration).to(frame_BIHW)
    placed = F.conv2d(F.pad(frame_BIHW, (1, 1, 1, 1), mode="replicate"), kernel)
    return F.interpolate(placed, scale_factor=float(scale), mode="bilinear", align_corners=False)


class PhaseSkip(nn.Module):
    """The enlarged reference frame, by taps that begin as they should and are learnt on.

    Args:
        channels: channels I of a frame.
        scale: output over input size.
        registration: where the pixels lie.
    """

    def __init__(self, channels: int, *, scale: int, registration: Registration) -> None:
        super().__init__()
        self.scale, self.registration = scale, registration
        self.weight = nn.Parameter(phase_taps(channels, scale, registration))

    def forward(self, burst_BTIHW: Tensor, flow_BT2HW: Tensor | None = None) -> Tensor:
        return enlarge_frame(burst_BTIHW[:, 0], self.scale, self.registration, self.weight)
