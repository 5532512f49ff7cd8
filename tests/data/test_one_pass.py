"""The one-pass degradation: each step alone against its definition, and how often it happens."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from zoo.data import OnePass, PatchDataset, load_sample, resize_bicubic
from zoo.data.degradations import compress
from zoo.data.pixels import round_to_levels, to_array, to_tensor
from zoo.errors import ImageError, RecipeError


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def clean():
    return to_tensor(load_sample("chelsea").color_HWC[:96, :120])


def levels(image):
    return torch.from_numpy(round_to_levels(image.numpy()) / np.float32(255)).float()


def test_without_steps_it_is_the_bicubic_of_matlab_in_8_bits(clean):
    found = OnePass(scale=2)(clean, rng())
    expected = levels(resize_bicubic(clean.double(), 0.5))
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-6
    assert torch.equal(OnePass(scale=1)(clean, rng()), levels(clean))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    ("way", "interpolation"),
    [("area", cv2.INTER_AREA), ("cubic", cv2.INTER_CUBIC), ("linear", cv2.INTER_LINEAR)],
)
def test_it_downscales_in_the_way_that_is_named(clean, scale, way, interpolation):
    found = OnePass(scale=scale, resampling=(way,))(clean, rng())
    size = (120 // scale, 96 // scale)
    expected = cv2.resize(to_array(clean), size, interpolation=interpolation)
    assert torch.equal(found, levels(to_tensor(expected)))


def test_every_way_to_downscale_is_drawn(clean):
    ways = ("bicubic", "area", "cubic", "linear")
    mixed = OnePass(scale=4, resampling=ways)
    alone = [OnePass(scale=4, resampling=(way,))(clean, rng()) for way in ways]
    drawn = [
        [torch.equal(mixed(clean, rng(seed)), image) for image in alone].index(True)
        for seed in range(40)
    ]
    assert {drawn.count(way) >= 3 for way in range(4)} == {True}


def test_blur_has_the_sigma_that_is_drawn():
    point = torch.zeros(1, 41, 41)
    point[:, 20, 20] = 1
    y, x = np.mgrid[:41, :41] - 20.0
    found = to_array(OnePass(scale=1, blur=(2.0, 2.0))(point, rng()))[..., 0]
    bell = np.exp(-(x**2 + y**2) / 8) / (8 * np.pi)
    assert np.abs(found - bell).max() < 0.6 / 255
    # No blur at the lower end of a range from zero.
    assert torch.equal(OnePass(scale=1, blur=(0.0, 0.0))(point, rng()), point)
    # A blur keeps a flat image flat up to its border.
    flat = torch.full((3, 20, 20), 0.4)
    assert torch.equal(OnePass(scale=1, blur=(1.0, 3.0))(flat, rng()), levels(flat))


def test_noise_is_uniform_in_its_range_of_sigma():
    flat = torch.full((3, 64, 64), 0.5)
    noise = OnePass(scale=1, noise=(0, 50))
    sigmas = np.array([float(noise(flat, rng(seed)).std()) * 255 for seed in range(400)])
    assert sigmas.min() < 1.5 and 48.5 < sigmas.max() < 51.5
    assert sigmas.mean() == pytest.approx(25, abs=2.2)  # three standard errors
    assert np.quantile(sigmas, [0.25, 0.75]) == pytest.approx([12.5, 37.5], abs=4)


def test_noise_differs_between_channels_and_is_white():
    flat = torch.full((3, 256, 256), 0.5)
    found = (OnePass(scale=1, noise=(20, 20))(flat, rng()) - flat).reshape(3, -1).double()
    assert torch.corrcoef(found).sub(torch.eye(3)).abs().max() < 0.02
    row = found.reshape(3, 256, 256)
    assert (row[..., 1:] * row[..., :-1]).mean().abs() < 0.02 * row.var()


def test_jpeg_comes_last_with_a_quality_of_its_range(clean):
    found = OnePass(scale=2, quality=(40, 43))
    small = OnePass(scale=2)(clean, rng())
    expected = [to_tensor(compress(to_array(small), quality)) for quality in range(40, 44)]
    drawn = {
        [torch.equal(found(clean, rng(seed)), image) for image in expected].index(True)
        for seed in range(40)
    }
    assert drawn == {0, 1, 2, 3}
    # Noise is compressed, too: a heavy JPEG leaves little of it.
    flat = torch.full((3, 64, 64), 0.5)
    noisy = OnePass(scale=1, noise=(8, 8), quality=(5, 5))(flat, rng())
    assert noisy.std() * 255 < 4


@pytest.mark.parametrize("step", ["blur", "noise", "quality"])
def test_each_step_has_its_share(clean, step):
    strength = {"blur": (2.0, 2.0), "noise": (30, 30), "quality": (5, 5)}[step]
    degradation = OnePass(scale=1, share=0.3, **{step: strength})
    changed = [
        not torch.equal(degradation(clean[:, :32, :32], rng(seed)), levels(clean[:, :32, :32]))
        for seed in range(300)
    ]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.08)


def test_steps_are_left_out_independently(clean):
    degradation = OnePass(scale=1, share=0.5, blur=(3.0, 3.0), quality=(20, 20))
    image = clean[:, :32, :32]
    blurred = OnePass(scale=1, blur=(3.0, 3.0))(image, rng())
    cases = [image, blurred]
    cases += [to_tensor(compress(to_array(case), 20)) for case in cases]
    draws = rng()
    found = [degradation(image, draws) for _ in range(400)]
    nearest = [min(range(4), key=lambda case: (one - cases[case]).abs().max()) for one in found]
    assert all(70 <= nearest.count(case) <= 130 for case in range(4))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_patches_of_gray_and_colour(clean, channels, scale):
    degradation = OnePass(scale=scale, blur=(0.2, 1.2), noise=(0, 25), quality=(30, 95), share=0.5)
    photos = [to_array(clean)]
    patches = PatchDataset(
        photos, degradation=degradation, patch=16, channels=channels, length=8, seed=3
    )
    for degraded, whole in patches:
        assert degraded.shape == (channels, 16, 16)
        assert whole.shape == (channels, 16 * scale, 16 * scale)
        assert degraded.min() >= 0 and degraded.max() <= 1
        assert (degraded * 255 - (degraded * 255).round()).abs().max() < 1e-3
    again = PatchDataset(
        photos, degradation=degradation, patch=16, channels=channels, length=8, seed=3
    )
    assert all(torch.equal(a, b) for a, b in zip(patches[5], again[5], strict=True))


def test_sizes_that_are_no_multiple_of_the_scale_are_refused():
    with pytest.raises(ImageError, match="crop it to multiples of 2"):
        OnePass(scale=2)(torch.zeros(3, 7, 8), rng())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 9}, "scale must be 1 to 8, not 9"),
        ({"scale": 2, "share": 1.5}, "share must be 0 to 1, not 1.5"),
        ({"scale": 2, "resampling": ()}, "resampling is empty"),
        ({"scale": 2, "blur": (3, 1)}, "blur must be two numbers from 0 to 20, the lower first"),
        ({"scale": 2, "noise": (-1, 5)}, "noise must be two numbers from 0 to 255"),
        ({"scale": 2, "quality": (0, 50)}, "quality must be two numbers from 1 to 100"),
        ({"scale": 2, "quality": (50, 101)}, "quality must be two numbers from 1 to 100"),
        ({"scale": 2, "blur": (0, 21)}, r"'one_pass': blur must .*, not \[0, 21\]"),
        ({"scale": 2, "noise": (0, 256)}, "'one_pass': noise must be two numbers from 0 to 255"),
        ({"scale": 0}, "'one_pass': scale must be 1 to 8, not 0"),
        ({"scale": 2, "share": -0.1}, "'one_pass': share must be 0 to 1, not -0.1"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(RecipeError, match=message):
        OnePass(**options)


def test_noise_is_drawn_after_its_share_and_its_strength(clean):
    """So that a seed gives the same patches in every version."""
    draws = rng(4)
    draws.random()
    sigma = draws.uniform(5, 50) / 255
    noise = torch.from_numpy(draws.standard_normal((96, 120, 3), dtype=np.float32))
    expected = levels(clean + sigma * noise.permute(2, 0, 1))
    found = OnePass(scale=1, noise=(5, 50))(clean, rng(4))
    assert ((found - expected).abs() > 1e-6).float().mean() < 1e-3
