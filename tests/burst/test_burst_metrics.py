"""Scores on linear values against independent ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from zoo.errors import ImageError
from zoo.metrics.burst import LEVELS, aligned_psnr, linear_psnr, linear_ssim, quantise_14
from zoo.ops.deformable import warp


def pair(side=100):
    clean = torch.rand(3, side, side)
    return clean + 0.05 * torch.randn(3, side, side), clean


def test_predictions_are_cut_to_14_bits():
    values = torch.tensor([[[-0.2, 0.4999 / LEVELS, 1.9 / LEVELS, 1.7]]])
    assert (quantise_14(values) * LEVELS).flatten().tolist() == [0, 0, 1, LEVELS]


@pytest.mark.parametrize("border", [0, 40])
def test_psnr_and_ssim_equal_scikit_image(border):
    restored, clean = pair()
    inside = np.s_[:, border : 100 - border, border : 100 - border]
    x, y = quantise_14(restored).numpy()[inside], clean.double().numpy()[inside]
    expected = peak_signal_noise_ratio(y, x, data_range=1.0)
    assert linear_psnr(restored, clean, border=border) == pytest.approx(expected, abs=1e-6)
    ssim = structural_similarity(
        y, x, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    # scikit-image leaves out the same 5 pixels where windows reach over the border
    assert linear_ssim(restored, clean, border=border) == pytest.approx(ssim, abs=1e-6)


def test_equal_images_and_the_border():
    clean = quantise_14(torch.rand(3, 100, 100))
    assert linear_psnr(clean, clean) == math.inf
    assert linear_ssim(clean, clean) == pytest.approx(1)
    spoilt = clean.clone()
    spoilt[:, :40] = 0
    assert linear_psnr(spoilt, clean) == math.inf
    with pytest.raises(ImageError, match="leaves nothing"):
        linear_psnr(clean, clean, border=50)
    with pytest.raises(ImageError, match="has shape"):
        linear_psnr(clean, clean[:, 1:])
    with pytest.raises(ImageError, match="needs at least 11 pixels"):
        linear_ssim(clean, clean, border=46)


def test_aligned_psnr_forgives_place_and_colour_and_nothing_else():
    torch.manual_seed(2)
    clean = F.interpolate(torch.rand(1, 3, 24, 24), size=(192, 192), mode="bicubic")[0].clamp(0, 1)
    moved = warp(clean[None], torch.full((1, 2, 192, 192), 1.7))[0]
    color = torch.tensor([[0.7, 0.1, 0.0], [0.05, 0.6, 0.1], [0.0, 0.1, 0.8]])
    restored = torch.einsum("ij,jhw->ihw", color, moved)
    reference = F.interpolate(restored[None], size=(48, 48), mode="bilinear", antialias=True)[0]
    plain = linear_psnr(restored, clean)
    aligned = aligned_psnr(restored, clean, reference)
    assert aligned > 35 > plain + 10
    blurred = F.avg_pool2d(restored[None], 9, 1, 4)[0]
    assert aligned_psnr(blurred, clean, reference) < aligned - 3
    still = aligned_psnr(restored, clean, reference, flow=lambda a, b: torch.zeros(2, 192, 192))
    assert still < aligned - 3
