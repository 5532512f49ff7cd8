"""Global registration of a burst: one affine motion per frame, by robust least squares.

Shape suffixes: B batch, T frames, N pairs of images, H height, W width, P pixels; a displacement
has two entries, rows then columns.

Sources: Lucas and Kanade, "An iterative image registration technique", 1981; Huber weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops.deformable import warp

COARSEST = 64
"""Images are halved until their shorter side is at most about this many pixels."""

PIXELS_AT_ONCE = 2**20
"""Pairs are registered in batches of at most this many pixels, to save memory; a larger pair is a
batch of its own."""

STEPS = 5
"""Gauss-Newton steps for each level and blur."""

BLURS = (2.0, 1.0)
"""Standard deviations in pixels of the Gaussian blurs. The coarsest level uses all of them, one
after the other; finer levels use only the last."""

SEARCH = 0.1
"""The first search tries whole-pixel shifts up to this fraction of the shorter side."""

HUBER = 1.345
"""Residuals above this many standard deviations enter the cost linearly, not squared."""

PRIOR = (0.1, 0.01, 0.01)
"""Prior standard deviations of a motion, as fractions of the shorter side: of its shift, and of the
displacement at the border caused by its dependence on row and on column. They decide where the
image has no structure."""


@torch.no_grad()
def register_burst(burst_BTIHW: Tensor) -> Tensor:
    """Estimate the motion of each frame relative to the first.

    Channels are averaged first. This works for camera shake: motions up to about a tenth of the
    shorter side. Objects that move on their own get little weight; their motion is not estimated.

    Args:
        burst_BTIHW: frames in floating point, with any number of channels.

    Returns:
        (B, T, 2, H, W) float32 displacement in pixels, rows then columns: frame t sampled at
        ``position + displacement`` is aligned with frame 0. The displacement of frame 0 is zero.
    """
    # The square root makes photon noise about equally strong at every brightness.
    gray_BTHW = burst_BTIHW.float().mean(2).clamp(min=0)
    batch, frames, height, width = gray_BTHW.shape
    gray_BTHW = (gray_BTHW / gray_BTHW.mean((2, 3), keepdim=True).clamp(min=1e-6) + 0.02).sqrt()
    if frames == 1:
        return gray_BTHW.new_zeros(batch, 1, 2, height, width)
    reference = gray_BTHW[:, :1].expand(-1, frames - 1, -1, -1).reshape(-1, 1, height, width)
    moving = gray_BTHW[:, 1:].reshape(-1, 1, height, width)
    at_once = max(1, PIXELS_AT_ONCE // (height * width))
    flow_N2HW = torch.cat(
        [
            _register(*pair)
            for pair in zip(reference.split(at_once), moving.split(at_once), strict=True)
        ]
    )
    flow_BS2HW = flow_N2HW.reshape(batch, frames - 1, 2, height, width)
    return F.pad(flow_BS2HW, (0, 0, 0, 0, 0, 0, 1, 0))


def _register(reference: Tensor, moving: Tensor) -> Tensor:
    """Displacement (N, 2, H, W) between pairs of images (N, 1, H, W)."""
    height, width = moving.shape[2:]
    pyramid = [(reference, moving)]
    while min(pyramid[-1][0].shape[2:]) >= 2 * COARSEST:
        pyramid.append(tuple(F.avg_pool2d(x, 2) for x in pyramid[-1]))  # type: ignore[arg-type]
    # Coefficients of (1, y, x), with y and x from -1 to 1, in pixels of the full image.
    motion_N23 = torch.zeros(len(moving), 2, 3, dtype=torch.float64, device=moving.device)
    coarsest = len(pyramid) - 1
    first = _searched(*(_blurred(x, BLURS[0]) for x in pyramid[coarsest]))
    motion_N23[:, :, 0] = first.double() * 2**coarsest
    # Not a tensor of numbers: a GPU would wait for its copy.
    side = motion_N23.new_full((), min(height, width))
    prior_3 = torch.stack([number * side for number in PRIOR])
    for level in range(coarsest, -1, -1):
        for blur in BLURS if level == coarsest else BLURS[-1:]:
            still, moved = (_blurred(x, blur) for x in pyramid[level])
            motion_N23 = _refine(still, moved, motion_N23, prior_3, 2**level, blur)
    return _flow(motion_N23, _basis(height, width, moving.device)).float()


def _searched(reference_N1HW: Tensor, moving_N1HW: Tensor) -> Tensor:
    """The whole-pixel shift (N, 2) with the least mean squared difference over the overlap."""
    height, width = reference_N1HW.shape[2:]
    reach = max(1, int(SEARCH * min(height, width)))
    errors = []
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            still = reference_N1HW[..., max(0, -row) : height - max(0, row), :]
            still = still[..., max(0, -column) : width - max(0, column)]
            moved = moving_N1HW[..., max(0, row) : height - max(0, -row), :]
            moved = moved[..., max(0, column) : width - max(0, -column)]
            errors.append((still - moved).square().mean((1, 2, 3)))
    best_N = torch.stack(errors).argmin(0)
    across = 2 * reach + 1
    return torch.stack([best_N // across - reach, best_N % across - reach], dim=1)


def _refine(
    reference_N1HW: Tensor,
    moving_N1HW: Tensor,
    motion_N23: Tensor,
    prior_3: Tensor,
    shrink: int,
    blur: float,
) -> Tensor:
    """Improve the motion by Gauss-Newton steps towards the most probable one, at one level."""
    _, _, height, width = reference_N1HW.shape
    basis_3HW = _basis(height, width, reference_N1HW.device)
    moving = torch.cat([moving_N1HW, *_gradients(moving_N1HW)], dim=1)
    precision_6 = (shrink / prior_3).square().repeat(2)
    together = 4 * math.pi * blur**2  # pixels that a blur merges into one measurement
    for _ in range(STEPS):
        flow_N2HW = _flow(motion_N23, basis_3HW).float() / shrink
        warped, row_slope, column_slope = warp(moving, flow_N2HW).double().unbind(1)
        error_NHW = reference_N1HW[:, 0].double() - warped
        inside_NHW = _inside(flow_N2HW)
        area_N11 = inside_NHW.sum((1, 2), keepdim=True).clamp(min=1)
        spread = (error_NHW.abs() * inside_NHW).sum((1, 2), keepdim=True) / area_N11 * 1.2533
        spread = spread + 1e-6
        weight_NHW = inside_NHW * (HUBER * spread / (error_NHW.abs() + 1e-12)).clamp(max=1)
        weight_NHW = weight_NHW / (spread**2 * together)
        slopes_N2HW = torch.stack([row_slope, column_slope], dim=1)
        J = (slopes_N2HW[:, :, None] * basis_3HW).flatten(3).flatten(1, 2)
        weighted = J * weight_NHW.flatten(1)[:, None]
        normal = weighted @ J.transpose(1, 2) + precision_6.diag()
        pull = precision_6[:, None] * motion_N23.flatten(1)[..., None] / shrink
        wanted = weighted @ error_NHW.flatten(1)[..., None] - pull
        step = torch.linalg.solve_ex(normal, wanted).result  # its check would make a GPU wait
        motion_N23 = motion_N23 + step.reshape(-1, 2, 3) * shrink
    return motion_N23


def _basis(height: int, width: int, device: torch.device) -> Tensor:
    rows_H = (torch.arange(height, dtype=torch.float64, device=device) + 0.5) * 2 / height - 1
    columns_W = (torch.arange(width, dtype=torch.float64, device=device) + 0.5) * 2 / width - 1
    rows_HW, columns_HW = torch.meshgrid(rows_H, columns_W, indexing="ij")
    return torch.stack([torch.ones_like(rows_HW), rows_HW, columns_HW])


def _flow(motion_N23: Tensor, basis_3HW: Tensor) -> Tensor:
    return torch.einsum("nij,jhw->nihw", motion_N23, basis_3HW)


def _inside(flow_N2HW: Tensor) -> Tensor:
    height, width = flow_N2HW.shape[2:]
    row = flow_N2HW[:, 0] + torch.arange(height, device=flow_N2HW.device)[:, None]
    column = flow_N2HW[:, 1] + torch.arange(width, device=flow_N2HW.device)[None]
    inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
    return inside.double()


def _gradients(x_N1HW: Tensor) -> tuple[Tensor, Tensor]:
    padded = F.pad(x_N1HW, (1, 1, 1, 1), mode="replicate")
    rows = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    columns = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    return rows, columns


def _blurred(x_N1HW: Tensor, sigma: float) -> Tensor:
    reach = int(3 * sigma + 0.5)
    taps = torch.arange(-reach, reach + 1, dtype=torch.float32, device=x_N1HW.device)
    kernel = torch.exp(-((taps / sigma) ** 2) / 2)
    kernel = kernel / kernel.sum()
    x_N1HW = F.conv2d(
        F.pad(x_N1HW, (0, 0, reach, reach), mode="replicate"), kernel[None, None, :, None]
    )
    return F.conv2d(F.pad(x_N1HW, (reach, reach, 0, 0), mode="replicate"), kernel[None, None, None])
