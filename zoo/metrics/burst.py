"""Metrics of burst super-resolution: on linear values, quantised to 14 bits, without the border.

Shape suffixes: H height, W width in pixels; 3 the channels R, G, B.

Sources: the NTIRE 2021 burst challenge for PSNR, the border of 40 pixels and the aligned PSNR;
Wang et al., "Image quality assessment", 2004, for SSIM.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ImageError
from zoo.ops.deformable import warp
from zoo.ops.registration import register_burst

BORDER = 40
"""Number of high-resolution pixels that are usually excluded at each side."""

LEVELS = 2**14

_SSIM_REACH, _SSIM_SIGMA = 5, 1.5
_COLOUR_REACH = 3
_C1, _C2 = 0.01**2, 0.03**2


def quantise_14(image_3HW: Tensor) -> Tensor:
    """Clip to [0, 1] and round down to 14 bits, as in the challenge's prediction files; float64."""
    return (image_3HW.double().clamp(0, 1) * LEVELS).floor() / LEVELS


def linear_psnr(restored_3HW: Tensor, clean_3HW: Tensor, *, border: int = BORDER) -> float:
    """Compute the PSNR of linear values in dB, with peak 1.

    Args:
        restored_3HW: the restored image, floating point. It is clipped to [0, 1] and quantised to
            14 bits.
        clean_3HW: the clean image, of the same shape.
        border: number of pixels excluded at each side.

    Raises:
        ImageError: if the shapes differ, or the border leaves no pixels.
    """
    restored, clean = _inside(quantise_14(restored_3HW), clean_3HW, border)
    error = float((restored - clean).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def linear_ssim(restored_3HW: Tensor, clean_3HW: Tensor, *, border: int = BORDER) -> float:
    """Compute the mean SSIM of linear values with peak 1.

    The window is Gaussian, 11 x 11 pixels with sigma 1.5. Arguments and errors are those of
    :func:`linear_psnr`. The area inside the border must be at least as large as the window.
    """
    x, y = _inside(quantise_14(restored_3HW), clean_3HW.double(), border)
    if min(x.shape[1:]) <= 2 * _SSIM_REACH:
        raise ImageError(
            f"SSIM needs at least {2 * _SSIM_REACH + 1} pixels per side inside the border, "
            f"not {tuple(x.shape[1:])}"
        )
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x = _blurred(x * x) - mean_x**2
    var_y = _blurred(y * y) - mean_y**2
    both = _blurred(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + _C1) * (2 * both + _C2)
    return float((top / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))).mean())


def global_flow(restored_3HW: Tensor, clean_3HW: Tensor) -> Tensor:
    """Estimate one affine motion from the restored to the clean image: (2, H, W) in pixels."""
    return register_burst(torch.stack([clean_3HW, restored_3HW])[None])[0, 1]


def as_rgb(frame_IHW: Tensor) -> Tensor:
    """Return a frame as R, G, B: of the planes R, Gr, Gb, B, all but the third."""
    return frame_IHW[[0, 1, 3]] if len(frame_IHW) == 4 else frame_IHW


class Aligned(NamedTuple):
    """A restored and a clean image that can be compared, without the border.

    Attributes:
        restored_3HW: the restored image, at the place and in the colours of the clean one; float64.
        clean_3HW: the clean image, float64.
        valid_1HW: 1 where the colours could be aligned, otherwise 0.
    """

    restored_3HW: Tensor
    clean_3HW: Tensor
    valid_1HW: Tensor


def aligned(
    restored_3HW: Tensor,
    clean_3HW: Tensor,
    reference_3HW: Tensor,
    *,
    border: int = BORDER,
    flow: Callable[[Tensor, Tensor], Tensor] = global_flow,
) -> Aligned:
    """Align the place and the colours of a restored image to a clean image that is another shot.

    The restored image is warped by ``flow(restored, clean)``. A 3x3 colour matrix is fitted by
    least squares between the reference frame, warped in the same way, and the clean image at the
    reference's size, both blurred. Pixels where the matrix is off by more than 20/255 are not
    valid.
    Gradients reach the restored image; the flow and the matrix are taken as they are.

    Args:
        restored_3HW: the network's output.
        clean_3HW: the clean image, of the same shape.
        reference_3HW: the reference frame as RGB (planes R, Gr, B of a RAW frame).
        border: number of pixels excluded at each side.
        flow: returns the displacement (2, H, W) in pixels, rows before columns, that aligns its
            first argument to its second.

    Raises:
        ImageError: if the shapes differ, or no pixel is valid.
    """
    _inside(restored_3HW, clean_3HW, border)
    seen_3HW = restored_3HW.detach()
    peak_r, peak_c = (x.amax().clamp(min=1e-6) for x in (seen_3HW, clean_3HW))
    moved_2HW = flow(seen_3HW / peak_r, clean_3HW / peak_c)
    warped = warp(restored_3HW[None].float(), moved_2HW[None])[0].double()

    height, width = reference_3HW.shape[1:]
    if min(height, width) <= 2 * _COLOUR_REACH:
        raise ImageError(
            f"frames of {width}x{height} are too small to align colours; they need at least "
            f"{2 * _COLOUR_REACH + 1} pixels per side"
        )
    shrink = clean_3HW.shape[1] / height
    small_2hw = F.interpolate(
        moved_2HW[None].float(), size=(height, width), mode="bilinear", antialias=True
    )
    reference = warp(reference_3HW[None].float(), small_2hw / shrink)[0].double()
    clean_small = F.interpolate(
        clean_3HW[None].double(), size=(height, width), mode="bilinear", antialias=True
    )[0]
    blurred_r, blurred_c = (_blurred(x, reach=_COLOUR_REACH) for x in (reference, clean_small))
    inner = (slice(None), slice(5, -5), slice(5, -5)) if min(height, width) > 24 else (...,)
    matrix = torch.linalg.lstsq(blurred_r[inner].flatten(1).T, blurred_c[inner].flatten(1).T)
    colored = torch.einsum("ji,jhw->ihw", matrix.solution, warped)
    explained = torch.einsum("ji,jhw->ihw", matrix.solution, blurred_r)
    valid_hw = ((explained - blurred_c).norm(dim=0) < 20 / 255).double()
    lost = (clean_small.shape[1] - valid_hw.shape[0]) // 2
    valid = F.interpolate(
        F.pad(valid_hw, (lost, lost, lost, lost))[None, None],
        size=clean_3HW.shape[1:],
        mode="bilinear",
    )[0]
    inside, clean = _inside(colored, clean_3HW.double(), border)
    mask_1HW = (_inside(valid, valid, border)[0] > 0.9).double()
    if not mask_1HW.any():
        raise ImageError("no pixel can be compared: the images do not show the same scene")
    return Aligned(inside, clean, mask_1HW)


def aligned_psnr(
    restored_3HW: Tensor,
    clean_3HW: Tensor,
    reference_3HW: Tensor,
    *,
    border: int = BORDER,
    flow: Callable[[Tensor, Tensor], Tensor] = global_flow,
) -> float:
    """Compute the PSNR in dB after aligning position and colour, over the valid pixels.

    This is for bursts with a clean image that is another shot. The published numbers use the flow
    of PWC-Net. The default is one affine motion for the whole image, which is not comparable:
    report such results as ``aligned_psnr_global``. Arguments and errors are those of
    :func:`aligned`.
    """
    found = aligned(restored_3HW, clean_3HW, reference_3HW, border=border, flow=flow)
    squares = (found.restored_3HW.clamp(0, 1) - found.clean_3HW).square()
    error = float((squares * found.valid_1HW).sum() / (found.valid_1HW.sum() * len(squares)))
    return math.inf if error == 0 else -10 * math.log10(error)


def developed_pair(
    restored_3HW: Tensor, clean_3HW: Tensor, gains_311: Tensor
) -> tuple[Tensor, Tensor]:
    """Develop linear images to pictures, as the code of RealBSR does to show them.

    White balance, the mean brought to a fifth, a gamma of 2.2 and a smooth step. Both are
    brightened by the mean of the clean image, so that an error of brightness stays one (our
    reading: the code shows one image at a time).

    Args:
        restored_3HW: the restored image, linear.
        clean_3HW: the clean image, linear, of the same shape.
        gains_311: gains of R, G, B relative to G.

    Returns:
        Both pictures, float64 in [0, 1].
    """
    restored, clean = (x.double() * gains_311.double() for x in (restored_3HW, clean_3HW))
    brightness = (clean.mean() * 5).clamp(min=1e-12)

    def picture(x_3HW: Tensor) -> Tensor:
        x_3HW = (x_3HW / brightness).clamp(0, 1) ** (1 / 2.2)
        return 3 * x_3HW**2 - 2 * x_3HW**3

    return picture(restored), picture(clean)


def _inside(restored: Tensor, clean: Tensor, border: int) -> tuple[Tensor, Tensor]:
    if restored.shape != clean.shape:
        raise ImageError(
            f"the restored image has shape {tuple(restored.shape)}, but the clean image has "
            f"{tuple(clean.shape)}; they must be equal"
        )
    height, width = clean.shape[-2:]
    if not 0 <= 2 * border < min(height, width):
        raise ImageError(
            f"a border of {border} leaves nothing of {width}x{height} pixels; use a smaller border"
        )
    inside = (..., slice(border, height - border), slice(border, width - border))
    return restored[inside], clean[inside]


def _blurred(image_CHW: Tensor, reach: int = _SSIM_REACH) -> Tensor:
    """Blur with a Gaussian of sigma 1.5, without padding: ``reach`` pixels less at each side."""
    taps = torch.arange(-reach, reach + 1, dtype=image_CHW.dtype, device=image_CHW.device)
    kernel = torch.exp(-((taps / _SSIM_SIGMA) ** 2) / 2)
    kernel = kernel / kernel.sum()
    rows = F.conv2d(image_CHW[:, None], kernel[None, None, :, None])
    return F.conv2d(rows, kernel[None, None, None])[:, 0]
