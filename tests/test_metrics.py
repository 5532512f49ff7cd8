"""PSNR by hand, and its conventions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zoo.errors import ImageError
from zoo.metrics import psnr, psnr_y, rgb_to_y


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
    skimage = pytest.importorskip("skimage.metrics")
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 256, (20, 30, 3)).astype(np.uint8) for _ in range(2))
    expected = skimage.peak_signal_noise_ratio(a, b)
    assert psnr(a / 255, b / 255) == pytest.approx(expected, abs=1e-9)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ImageError, match="one shape"):
        psnr(np.zeros((4, 4, 3)), np.zeros((4, 5, 3)))
    with pytest.raises(ImageError, match="crop_border"):
        psnr(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), crop_border=2)
