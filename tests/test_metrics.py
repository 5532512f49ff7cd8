"""PSNR and SSIM by hand and against scikit-image, and their conventions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import correlate
from skimage import metrics
from skimage.color import rgb2ycbcr

from zoo.errors import ImageError
from zoo.metrics import psnr, psnr_y, rgb_to_y, ssim, ssim_y
from zoo.metrics.volume import ssim_volume


def test_psnr_by_hand():
    clean = np.zeros((4, 4, 1))
    restored = clean.copy()
    restored[0, 0, 0] = 16 / 255
    assert psnr(restored, clean) == pytest.approx(10 * math.log10(255**2 / (16**2 / 16)))
    assert psnr(clean, clean) == math.inf
    assert psnr(restored, clean, crop_border=1) == math.inf


def test_images_are_rounded_to_8_bits_first():
    clean = np.full((3, 3, 3), 0.5)
    assert psnr(clean + 0.3 / 255, np.full((3, 3, 3), 128 / 255)) == math.inf


def test_y_is_studio_range_bt601():
    colours = np.array([[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]], float)
    y = rgb_to_y(colours)[0, :, 0] * 255
    np.testing.assert_allclose(y, [16, 235, 81.481, 144.553, 40.966], atol=1e-9)


def test_psnr_y_by_hand():
    clean = np.zeros((10, 10, 3))
    restored = clean.copy()
    restored[..., 1] = 10 / 255
    difference = 128.553 * 10 / 255
    expected = 20 * math.log10(255 / difference)
    assert psnr_y(restored, clean, crop_border=2) == pytest.approx(expected)


def test_gray_is_measured_as_it_is():
    clean, restored = np.zeros((5, 5, 1)), np.full((5, 5, 1), 10 / 255)
    assert psnr_y(restored, clean, crop_border=0) == pytest.approx(20 * math.log10(25.5))


def test_psnr_equals_an_independent_formula():
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 256, (20, 30, 3)).astype(np.uint8) for _ in range(2))
    expected = metrics.peak_signal_noise_ratio(a, b)
    assert psnr(a / 255, b / 255) == pytest.approx(expected, abs=1e-9)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ImageError, match="the same shape"):
        psnr(np.zeros((4, 4, 3)), np.zeros((4, 5, 3)))
    with pytest.raises(ImageError, match="crop_border"):
        psnr(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), crop_border=2)
    with pytest.raises(ImageError, match=r"floating point in .*, not uint8"):
        psnr(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3)))
    with pytest.raises(ImageError, match=r"\(H, W, C\)"):
        psnr(np.zeros((4, 4)), np.zeros((4, 4)))
    with pytest.raises(ImageError, match="Y needs an RGB image"):
        psnr_y(np.zeros((4, 4, 2)), np.zeros((4, 4, 2)), crop_border=0)


@pytest.mark.parametrize("brightest", [255, 8])  # in the dark the first constant decides
@pytest.mark.parametrize("shape", [(40, 33, 3), (11, 11, 1), (64, 20, 1)])
def test_ssim_equals_an_independent_implementation(shape, brightest):
    random = np.random.default_rng(1)
    clean = random.integers(0, brightest + 1, shape)
    noisy = np.clip(clean + random.normal(3, 20, shape), 0, 255).round()
    expected = metrics.structural_similarity(
        noisy.astype(float),
        clean.astype(float),
        data_range=255,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(noisy / 255, clean / 255) == pytest.approx(expected, abs=1e-6)


def test_y_metrics_equal_an_independent_conversion():
    """Y by scikit-image's matrix, cropped, then its PSNR and SSIM: to 1e-6."""
    random = np.random.default_rng(2)
    clean = random.integers(0, 256, (30, 41, 3)) / 255
    noisy = np.clip(clean + random.normal(0, 0.05, clean.shape), 0, 1)
    noisy = np.round(noisy * 255) / 255
    a, b = (rgb2ycbcr(image)[3:-3, 3:-3, 0] for image in (noisy, clean))
    expected = metrics.peak_signal_noise_ratio(b, a, data_range=255)
    assert psnr_y(noisy, clean, crop_border=3) == pytest.approx(expected, abs=1e-6)
    expected = metrics.structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim_y(noisy, clean, crop_border=3) == pytest.approx(expected, abs=1e-6)


def test_ssim_needs_room_for_its_window():
    assert ssim(np.ones((11, 11, 1)), np.ones((11, 11, 1))) == pytest.approx(1)
    with pytest.raises(ImageError, match="SSIM needs 11x11"):
        ssim_y(np.ones((20, 20, 3)), np.ones((20, 20, 3)), crop_border=5)


def plain_ssim_volume(x, y):
    """MATLAB's ssim of a volume: one dense window of 11 x 11 x 11, edges repeated."""
    steps = np.mgrid[-5:6, -5:6, -5:6]
    window = np.exp(-(steps**2).sum(axis=0) / (2 * 1.5**2))
    window /= window.sum()

    def blurred(volume):
        return correlate(volume, window, mode="nearest")

    mean_x, mean_y = blurred(x), blurred(y)
    top = (2 * mean_x * mean_y + 1e-4) * (2 * (blurred(x * y) - mean_x * mean_y) + 9e-4)
    spread = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
    return (top / ((mean_x**2 + mean_y**2 + 1e-4) * (spread + 9e-4))).mean()


@pytest.mark.parametrize("channels", [3, 1, 5])
def test_ssim_of_a_volume_equals_a_dense_window(channels):
    rng = np.random.default_rng(0)
    x = rng.random((14, 17, channels))
    y = np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1)
    found = ssim_volume(x, y, crop_border=0, rounded=False)
    assert found == pytest.approx(plain_ssim_volume(x, y), abs=1e-9)
    cut = ssim_volume(x, y, crop_border=2, rounded=False)
    assert cut == pytest.approx(plain_ssim_volume(x[2:-2, 2:-2], y[2:-2, 2:-2]), abs=1e-9)
    levels = [np.round(image * 255) / 255 for image in (x, y)]
    assert ssim_volume(x, y, crop_border=0) == pytest.approx(plain_ssim_volume(*levels), abs=1e-9)
    assert ssim_volume(x, x, crop_border=0) == 1
    with pytest.raises(ImageError):
        ssim_volume(x, y[:, 1:], crop_border=0)
