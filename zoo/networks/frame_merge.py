"""Merging a burst on the output grid: each sample counts at its true position.

Frames that moved by a fraction of a pixel sample the scene between the reference's pixels. Each
output pixel is a mean of the samples around it, weighted by their distance. This recovers detail
without any training.

Shape suffixes: B batch, T frames, I channels of a frame (3 RGB, or 4 planes R, Gr, Gb, B),
H height, W width and P pixels of a frame, O pixels of the result (scale*H * scale*W).

Source: Wronski et al., "Handheld Multi-Frame Super-Resolution", SIGGRAPH 2019, Sec. 5. Their kernel
adapts to the local structure; ours has one width for each colour.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.phase import planes

WIDTH = 0.2
"""Initial standard deviation of the kernel, in pixels of a frame. It was the best of 0.1 to 0.4 on
bursts of eight frames with estimated motion."""


class MergedSkip(nn.Module):
    """Merges all frames, displaced by a flow; the widths of the kernel are learnt.

    Pixel i of a frame lies on pixel ``scale * i`` of the output, as in the usual synthetic bursts.

    Args:
        channels: channels I of a frame.
        scale: output over input size.
    """

    start_I2: Tensor
    is_color_I3: Tensor

    def __init__(self, channels: int, *, scale: int) -> None:
        super().__init__()
        self.channels, self.scale = channels, scale
        self.log_width = nn.Parameter(torch.full((3,), math.log(WIDTH)))
        # Buffers: a tensor made from numbers at each call would make a GPU wait for the copy.
        start_I2 = torch.tensor([plane[:2] for plane in planes(channels)])
        # Not torch.eye, which loads SymPy on the meta device, where sizes are checked.
        is_color_I3 = torch.tensor(
            [[float(plane.color == color) for color in range(3)] for plane in planes(channels)]
        )
        self.register_buffer("start_I2", start_I2, persistent=False)
        self.register_buffer("is_color_I3", is_color_I3, persistent=False)

    def forward(self, burst_BTIHW: Tensor, flow_BT2HW: Tensor) -> Tensor:
        """Merge a burst into one RGB image.

        Args:
            burst_BTIHW: frames, the reference first.
            flow_BT2HW: displacement in pixels of a frame, rows before columns: frame t sampled at
                ``position + flow`` shows what frame 0 shows at ``position``.

        Returns:
            (B, 3, scale*H, scale*W) in the dtype of the burst.
        """
        batch, frames, channels, height, width = burst_BTIHW.shape
        flow = F.interpolate(
            flow_BT2HW.flatten(0, 1).float(),
            scale_factor=float(self.scale),
            mode="bilinear",
            align_corners=False,
        ).unflatten(0, (batch, frames))
        rows = torch.arange(height * self.scale, device=flow.device)[:, None] / self.scale
        columns = torch.arange(width * self.scale, device=flow.device)[None] / self.scale
        row = rows + flow[:, :, None, 0] - self.start_I2[:, 0, None, None]
        column = columns + flow[:, :, None, 1] - self.start_I2[:, 1, None, None]
        sharpness_3 = (-2 * self.log_width.float()).exp() / 2
        sharpness_I = (self.is_color_I3 * sharpness_3).sum(1)
        values_BTIP = burst_BTIHW.flatten(3)

        weighted = total = torch.zeros((), device=flow.device)
        for below in (0, 1):
            for right in (0, 1):
                pixel_row = (row.floor() + below).clamp(0, height - 1)
                pixel_column = (column.floor() + right).clamp(0, width - 1)
                squared = (row - pixel_row) ** 2 + (column - pixel_column) ** 2
                weight = (-squared * sharpness_I[:, None, None]).exp()
                index_BTIO = (pixel_row * width + pixel_column).long().flatten(3)
                value = values_BTIP.gather(3, index_BTIO).view_as(weight)
                weighted = weighted + (weight * value).sum(1)
                total = total + weight.sum(1)
        if channels == 4:
            weighted, total = (
                torch.stack([x[:, 0], x[:, 1] + x[:, 2], x[:, 3]], dim=1) for x in (weighted, total)
            )
        return (weighted / total).to(burst_BTIHW.dtype)
