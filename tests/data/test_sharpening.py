"""Unsharp masking against its definition by loops, and patches of sharpened photos."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from zoo.data import Bicubic, GaussianNoise, PairDataset, PatchDataset
from zoo.data.photos import TrainingPhoto
from zoo.data.pixels import dequantise
from zoo.data.sharpening import Sharpening
from zoo.errors import RecipeError


def mirrored(index, side):
    """The pixel that stands for one outside: the border is mirrored, the edge pixel once."""
    if side == 1:
        return 0
    index = abs(index) % (2 * side - 2)
    return min(index, 2 * side - 2 - index)


def blurred(image, reach, sigma):
    weights = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-reach, reach + 1)]
    weights = [weight / sum(weights) for weight in weights]
    for axis in (0, 1):
        side = image.shape[axis]
        image = np.stack(
            [
                sum(
                    weight * image.take(mirrored(place + offset - reach, side), axis)
                    for offset, weight in enumerate(weights)
                )
                for place in range(side)
            ],
            axis,
        )
    return image


def plain(image, amount, reach, threshold):
    """Real-ESRGAN's unsharp masking, in float64; OpenCV's sigma for a kernel of this size."""
    side = 2 * reach + 1
    sigma = 0.3 * ((side - 1) * 0.5 - 1) + 0.8
    image = image.astype(np.float64)
    difference = image - blurred(image, reach, sigma)
    mask = blurred((np.abs(difference) * 255 > threshold).astype(np.float64), reach, sigma)
    sharp = np.clip(image + amount * difference, 0, 1)
    return mask * sharp + (1 - mask) * image


def picture(height, width, bands=3, seed=0):
    """Steps and a soft slope: some differences are above the threshold, others are not."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    steps = 0.3 + 0.4 * ((x // 7 + y // 9) % 2) + 0.002 * x
    return np.stack([steps * w for w in random.uniform(0.2, 1.2, bands)], 2).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((30, 41, 3), {}),
        ((60, 70, 1), {}),
        ((9, 1, 5), {"reach": 4}),
        ((20, 17, 3), {"amount": 2.0, "reach": 3, "threshold": 30.0}),
    ],
)
def test_sharpening_is_its_definition(size, options):
    image = picture(*size)
    settings = {"amount": 0.5, "reach": 25, "threshold": 10.0, **options}
    found = Sharpening(**options)(image)
    expected = plain(image, **settings)
    assert found.dtype == np.float32 and found.shape == image.shape
    np.testing.assert_allclose(found, expected, atol=2e-6)
    if min(size[:2]) > 1:
        assert np.abs(expected - image).max() > 0.01  # it does something here


def test_noise_below_the_threshold_stays_and_results_stay_in_range():
    soft = 0.5 + 0.01 * np.random.default_rng(0).standard_normal((40, 40, 3)).astype(np.float32)
    np.testing.assert_array_equal(Sharpening(threshold=40.0)(soft), soft)
    edge = np.zeros((40, 40, 1), np.float32)
    edge[:, 20:] = 1
    found = Sharpening(amount=5.0)(edge)
    assert found.min() == 0 and found.max() == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"amount": -0.1}, "amount"),
        ({"amount": 100.1}, "amount"),
        ({"reach": 0}, "reach"),
        ({"reach": 10**6}, "reach"),
        ({"threshold": 256.0}, "threshold"),
        ({"amount": math.nan}, "amount"),
    ],
)
def test_wrong_settings_are_named(wrong, named):
    with pytest.raises(RecipeError, match=f"{named} is"):
        Sharpening(**wrong)


SHARPENING = Sharpening(amount=1.0, reach=5, threshold=5.0)


def photo():
    return TrainingPhoto("a", (picture(120, 136, seed=1) * 255).round().astype(np.uint8))


def places(whole, patch):
    """Where a patch lies in an image."""
    height, width = patch.shape[1:]
    return [
        (y, x)
        for y in range(whole.shape[0] - height + 1)
        for x in range(whole.shape[1] - width + 1)
        if np.abs(whole[y, x] - patch[:, 0, 0]).max() < 1e-6
        and np.abs(whole[y : y + height, x : x + width] - patch.transpose(1, 2, 0)).max() < 2e-6
    ]


@pytest.mark.parametrize("reach", [5, 18])  # the margin of the degradation alone is too small
def test_patches_are_cut_from_the_sharpened_photo_and_the_clean_one_comes_last(reach):
    """The input is made of the sharpened photo, too; so is the target, at the same place."""
    sharpening = Sharpening(amount=1.0, reach=reach, threshold=5.0)
    clean_HWC = dequantise(photo().pixels_HWC)
    sharp_HWC = sharpening(clean_HWC)
    whole = Bicubic(scale=2, rounded=False)
    low_HWC = whole(torch.from_numpy(sharp_HWC.transpose(2, 0, 1)), np.random.default_rng(0))
    low_HWC = low_HWC.numpy().transpose(1, 2, 0)
    patches = PatchDataset(
        [photo()],
        degradation=whole,
        patch=12,
        channels=3,
        augment=False,
        length=12,
        seed=0,
        sharpen=sharpening,
    )
    differs = 0
    for degraded, target, clean in (patches[number] for number in range(12)):
        found = places(clean_HWC, clean.numpy())
        assert set(found) & set(places(sharp_HWC, target.numpy()))
        assert {(2 * y, 2 * x) for y, x in places(low_HWC, degraded.numpy())} & set(found)
        differs += not np.allclose(target.numpy(), clean.numpy(), atol=1e-3)
    assert differs == 12


def test_pairs_of_files_have_sharpened_targets_and_their_own_input():
    clean = photo()
    low = TrainingPhoto("a", clean.pixels_HWC[::2, ::2].copy())
    sharp_HWC = SHARPENING(dequantise(clean.pixels_HWC))
    pairs = PairDataset(
        [clean],
        [low],
        scale=2,
        patch=12,
        channels=3,
        augment=False,
        length=8,
        seed=0,
        sharpen=SHARPENING,
    )
    for degraded, target, original in (pairs[number] for number in range(8)):
        np.testing.assert_array_equal(degraded.numpy(), original.numpy()[:, ::2, ::2])
        assert places(sharp_HWC, target.numpy())


def test_gray_targets_are_sharpened_as_gray():
    patches = PatchDataset(
        [photo()],
        degradation=GaussianNoise(scale=1, sigma=0),
        patch=16,
        channels=1,
        length=2,
        seed=0,
        sharpen=SHARPENING,
    )
    degraded, target, clean = patches[0]
    assert degraded.shape == target.shape == clean.shape == (1, 16, 16)
    np.testing.assert_allclose(degraded.numpy(), target.numpy(), atol=1e-6)
