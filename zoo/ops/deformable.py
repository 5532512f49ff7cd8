"""Deformable convolution and warping by ``grid_sample``: no compiled kernel, standard ONNX nodes.

A modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", 2019, Eq. 1) is one
bilinear gather and one grouped 1x1 convolution. Positions are always computed in float32: in half
precision they would be off by an eighth of a pixel at a width of 1024.

Shape suffixes: N images, C channels, O output channels, G offset groups, K taps (kernel * kernel),
H height, W width in pixels; a displacement has two entries, rows then columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def deformable_gather(
    x_NCHW: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    kernel: int,
    dilation: int = 1,
    base_flow_N2HW: Tensor | None = None,
) -> Tensor:
    """Bilinear samples at all taps of a deformable convolution, multiplied by their mask.

    Args:
        x_NCHW: images to sample; they count as zero outside.
        offset: (N, G*K*2, H, W) displacement of each tap in pixels. Channels are ordered by
            (group, tap, (row, column)), as in ONNX DeformConv.
        mask: (N, G*K, H, W) factor of each sample.
        kernel: side of the kernel, odd; K is its square.
        dilation: distance between neighbouring taps in pixels.
        base_flow_N2HW: displacement in pixels that is added to every tap.

    Returns:
        (N, C*K, H, W) in the dtype of ``x_NCHW``; the K taps of a channel are adjacent.

    Raises:
        ValueError: if offset or mask do not fit the kernel.
    """
    images, channels, height, width = x_NCHW.shape
    taps = kernel * kernel
    groups = mask.shape[1] // taps
    if groups * taps != mask.shape[1] or offset.shape[1] != 2 * mask.shape[1]:
        raise ValueError(
            f"offset has {offset.shape[1]} and mask {mask.shape[1]} channels; a kernel of {kernel} "
            f"needs {2 * taps} and {taps} for each group"
        )
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be split into {groups} offset groups")
    moved = offset.float().reshape(images, groups, taps, 2, height, width)
    if base_flow_N2HW is not None:
        moved = moved + base_flow_N2HW.float()[:, None, None]
    index_K = torch.arange(taps, device=x_NCHW.device)
    reach = (kernel - 1) / 2
    rows_K = ((index_K // kernel).float() - reach) * dilation
    columns_K = ((index_K % kernel).float() - reach) * dilation
    grid_row_HW = torch.arange(height, device=x_NCHW.device, dtype=torch.float32)[:, None]
    grid_column_HW = torch.arange(width, device=x_NCHW.device, dtype=torch.float32)[None]
    row = moved[:, :, :, 0] + rows_K[:, None, None] + grid_row_HW
    column = moved[:, :, :, 1] + columns_K[:, None, None] + grid_column_HW
    # Pixel centres at (2 i + 1) / size - 1: no division by size - 1, so a size of 1 works.
    grid = torch.stack(((2 * column + 1) / width - 1, (2 * row + 1) / height - 1), dim=-1)
    grid = grid.reshape(images * groups, taps * height, width, 2)
    # Bilinear, and zero outside: PyTorch's defaults.
    plane = x_NCHW.reshape(images * groups, channels // groups, height, width).float()
    sampled = F.grid_sample(plane, grid, align_corners=False)
    sampled = sampled.reshape(images, groups, channels // groups, taps, height, width)
    weighted = sampled * mask.float().reshape(images, groups, 1, taps, height, width)
    return weighted.reshape(images, channels * taps, height, width).to(x_NCHW.dtype)


def deformable_conv(
    x_NCHW: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    *,
    groups: int = 1,
    dilation: int = 1,
    base_flow_N2HW: Tensor | None = None,
) -> Tensor:
    """Modulated deformable convolution with stride 1, "same" padding and no bias.

    Args:
        x_NCHW: images; they count as zero outside.
        offset: (N, G*K*2, H, W) displacement of each tap in pixels, ordered as in
            :func:`deformable_gather`.
        mask: (N, G*K, H, W) factor of each sample.
        weight: (O, C/groups, kernel, kernel).
        groups: groups of the convolution; independent of the number of offset groups.
        dilation: distance between neighbouring taps in pixels.
        base_flow_N2HW: displacement in pixels that is added to every tap.

    Returns:
        (N, O, H, W) in the dtype of ``x_NCHW``.

    Raises:
        ValueError: if offset or mask do not fit the kernel.
    """
    samples = deformable_gather(
        x_NCHW,
        offset,
        mask,
        kernel=weight.shape[-1],
        dilation=dilation,
        base_flow_N2HW=base_flow_N2HW,
    )
    return F.conv2d(samples, weight.flatten(1)[:, :, None, None].to(samples.dtype), groups=groups)


def warp(x_NCHW: Tensor, flow_N2HW: Tensor, *, outside: str = "border") -> Tensor:
    """Sample images at ``position + flow``, bilinearly.

    Args:
        x_NCHW: images.
        flow_N2HW: displacement in pixels, rows then columns.
        outside: values outside the image: "border" repeats the edge, "zeros" is zero.

    Returns:
        (N, C, H, W) in the dtype of ``x_NCHW``.
    """
    height, width = x_NCHW.shape[2:]
    rows_HW = torch.arange(height, device=x_NCHW.device, dtype=torch.float32)[:, None]
    columns_HW = torch.arange(width, device=x_NCHW.device, dtype=torch.float32)[None]
    row = flow_N2HW[:, 0].float() + rows_HW
    column = flow_N2HW[:, 1].float() + columns_HW
    grid = torch.stack(((2 * column + 1) / width - 1, (2 * row + 1) / height - 1), dim=-1)
    sampled = F.grid_sample(x_NCHW.float(), grid, padding_mode=outside, align_corners=False)
    return sampled.to(x_NCHW.dtype)
