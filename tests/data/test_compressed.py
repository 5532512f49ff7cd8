"""Bicubic, then JPEG: the degradation that MambaCSR undoes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from zoo.data import Bicubic, BicubicJpeg, PatchDataset, load_sample
from zoo.data.pixels import to_array, to_tensor
from zoo.errors import RecipeError


@pytest.fixture(scope="module")
def photo():
    return load_sample("chelsea").color_HWC[:240, :304]


def rng():
    return np.random.default_rng(0)


def test_it_is_bicubic_then_an_opencv_jpeg(photo, tmp_path):
    clean = to_tensor(photo)
    small = Bicubic(scale=4)(clean, rng())
    levels = to_array((small * 255).round().byte())
    path = str(tmp_path / "a.jpg")
    # OpenCV's own default is 4:2:0.
    cv2.imwrite(path, levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 10])
    expected = cv2.imread(path, cv2.IMREAD_UNCHANGED)[..., ::-1]
    found = BicubicJpeg(scale=4, quality=10)(clean, rng())
    np.testing.assert_allclose(to_array(found) * 255, expected, atol=1e-3)
    assert np.abs(expected.astype(int) - levels).max() > 10


@pytest.mark.parametrize(("scale", "quality"), [(1, 10), (2, 30)])
def test_a_patch_is_a_cutting_of_the_whole_degraded_photo(photo, scale, quality):
    degradation, side = BicubicJpeg(scale=scale, quality=quality), 10
    patches = PatchDataset(
        [photo],
        degradation=degradation,
        patch=side,
        channels=3,
        augment=False,
        length=8,
        seed=5,
    )
    pixels = (photo * 65535).round() / 65535
    clean = to_tensor(pixels.astype(np.float32))
    whole = degradation(clean, rng())
    cuttings = whole.unfold(1, side, 1).unfold(2, side, 1)
    for degraded, wanted in patches:
        same = (cuttings - degraded[:, None, None]).abs().amax((0, 3, 4)) < 1e-6
        assert same.sum() == 1
        y, x = (scale * int(place) for place in same.nonzero()[0])
        there = clean[:, y : y + side * scale, x : x + side * scale]
        torch.testing.assert_close(there, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 2, "quality": 101}, "quality must be 1 to 100, not 101"),
        ({"scale": 9, "quality": 10}, "scale must be 1 to 8, not 9"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(RecipeError, match=message):
        BicubicJpeg(**options)
