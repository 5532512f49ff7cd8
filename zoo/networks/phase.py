"""Positions of a frame's pixels in the high-resolution image, and upsampling that respects them.

In the usual synthetic bursts (x4), pixel i of a low-resolution colour frame lies on pixel 4 i of
the clean image, not on the centre of the 4 x 4 pixels. In a RAW frame, pixel i of a plane lies on
pixel 8 i or 8 i + 4. Plain bilinear upsampling is therefore off by several pixels.

Shape suffixes: B batch, T frames, I channels of a frame (3 RGB, or 4 planes R, Gr, Gb, B),
H height, W width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Registration: TypeAlias = Literal["corner", "centre"]
"""Position of the frame's grid. "corner": pixel i of a frame lies on pixel ``scale * i`` of the
output. "centre": the centres of both images coincide."""


class Plane(NamedTuple):
    """Offset of a channel's samples, in pixels of the frame, and its colour (0 R, 1 G, 2 B)."""

    row: float
    column: float
    color: int


_RAW = (Plane(0, 0, 0), Plane(0, 0.5, 1), Plane(0.5, 0, 1), Plane(0.5, 0.5, 2))
_RGB = (Plane(0, 0, 0), Plane(0, 0, 1), Plane(0, 0, 2))


def planes(channels: int) -> tuple[Plane, ...]:
    """Return the offset and colour of each channel: 4 planes R, Gr, Gb, B, or 3 of RGB."""
    return _RAW if channels == 4 else _RGB


def phase_taps(channels: int, scale: int, registration: Registration) -> Tensor:
    """Return the kernel (3, I, 3, 3) that corrects the shift of bilinear upsampling.

    For output pixel o, ``F.interpolate(align_corners=False)`` reads the input at (o - (s-1)/2) / s.
    If pixel 0 of a plane lies on output pixel p, the right position is (o - p) / s. The shift is
    t = ((s-1)/2 - p) / s. On each axis, the taps are 1 - |t| at the centre and |t| on the side of
    t.
    """
    kernel = torch.zeros(3, channels, 3, 3)
    pitch = scale / 2 if channels == 4 else scale  # distance between sensor pixels, in the output
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
    """Upsample a frame bilinearly, with each colour at its position: the baseline for networks.

    Args:
        frame_BIHW: RGB, or the four planes of a RAW frame.
        scale: output over input size: 8 for the planes of a x4 burst.
        registration: position of the frame's grid, "corner" or "centre".
        kernel: kernel (3, I, 3, 3) to use instead of :func:`phase_taps`.

    Returns:
        (B, 3, scale*H, scale*W).
    """
    if kernel is None:
        kernel = phase_taps(frame_BIHW.shape[1], scale, registration).to(frame_BIHW)
    placed = F.conv2d(F.pad(frame_BIHW, (1, 1, 1, 1), mode="replicate"), kernel)
    return F.interpolate(placed, scale_factor=float(scale), mode="bilinear", align_corners=False)


class PhaseSkip(nn.Module):
    """Upsamples the reference frame; the kernel starts as :func:`phase_taps` and is learnt.

    Args:
        channels: channels I of a frame.
        scale: output over input size.
        registration: position of the frame's grid, "corner" or "centre".
    """

    def __init__(self, channels: int, *, scale: int, registration: Registration) -> None:
        super().__init__()
        self.scale, self.registration = scale, registration
        self.weight = nn.Parameter(phase_taps(channels, scale, registration))

    def forward(self, burst_BTIHW: Tensor, flow_BT2HW: Tensor | None = None) -> Tensor:
        return enlarge_frame(burst_BTIHW[:, 0], self.scale, self.registration, self.weight)
