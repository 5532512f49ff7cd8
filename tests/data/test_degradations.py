"""Degradations, sample photographs and training patches."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from zoo.data import (
    DEGRADATIONS,
    Bicubic,
    BicubicJpeg,
    Blind,
    GaussianNoise,
    Jpeg,
    OnePass,
    PatchDataset,
    TrainingPhoto,
    load_sample,
    resize_bicubic,
    sample_names,
)
from zoo.data.pixels import to_array, to_tensor
from zoo.errors import ImageError, RecipeError, ZooError


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def photo():
    return load_sample("chelsea").color_HWC[:96, :128]


def test_every_degradation_is_registered():
    assert DEGRADATIONS.names() == [
        "bicubic",
        "bicubic_jpeg",
        "blind",
        "jpeg",
        "noise",
        "one_pass",
    ]


def test_bicubic_is_the_one_resize_rounded_to_8_bits_after_each_side(photo):
    clean = to_tensor(photo)
    found = Bicubic(scale=2)(clean, rng())
    exact = resize_bicubic(clean.double()[None], 0.5)[0].clamp(0, 1)
    assert found.dtype == torch.float32
    assert torch.equal(found, (found * 255).round() / 255)
    # Half a level after the rows can become a little more after the columns, and another half.
    assert (found - exact).abs().max() <= 1.1 / 255
    assert torch.equal(found.double(), resize_bicubic(clean.double(), 0.5, bits=8).float().double())


def test_bicubic_rounds_what_is_computed_in_float64():
    """In float32 some of many values fall to the other of two levels."""
    clean = torch.from_numpy(rng().integers(0, 256, (3, 700, 700)) / np.float32(255)).float()
    rows = resize_bicubic(clean.double() * 255, (350, 700)).clamp(0, 255)
    columns = resize_bicubic((rows + 0.5).floor(), (350, 350)).clamp(0, 255)
    expected = (columns + 0.5).floor().float() / 255
    different = (Bicubic(scale=2)(clean, rng()) != expected).double().mean()
    assert different < 1e-3  # levels of float32 are not whole, so exact halves differ here
    with pytest.raises(ImageError, match="7x6 pixels cannot be downscaled 3 times; crop it"):
        Bicubic(scale=3)(clean[:, :6, :7], rng())
    with pytest.raises(ImageError, match="6x7 pixels cannot be downscaled 3 times; crop it"):
        Bicubic(scale=3)(clean[:, :7, :6], rng())


def test_noise_has_its_sigma_and_is_not_clipped():
    clean = torch.ones(3, 200, 200)
    noise = GaussianNoise(scale=1, sigma=25)(clean, rng()) - clean
    assert noise.std() == pytest.approx(25 / 255, rel=0.01)
    assert noise.max() > 0.3


def test_noise_is_the_generators_times_sigma_in_levels_of_255():
    clean = torch.full((3, 8, 9), 0.5)
    found = GaussianNoise(scale=1, sigma=25)(clean, rng(3)).numpy()
    draw = rng(3).standard_normal((3, 8, 9), dtype=np.float32)
    np.testing.assert_allclose(found, 0.5 + draw * (25 / 255), rtol=1e-6)


def test_noise_depends_on_the_generator_alone():
    clean = torch.zeros(1, 8, 8)
    noise = GaussianNoise(scale=1, sigma=25)
    assert torch.equal(noise(clean, rng(1)), noise(clean, rng(1)))
    assert not torch.equal(noise(clean, rng(1)), noise(clean, rng(2)))


def test_noise_of_test_sets_is_the_authors_draw():
    """Seeded with 0 for every image; (H, W, C), blue, green, red; added in float64."""
    clean = torch.rand(3, 5, 7)
    found = GaussianNoise(scale=1, sigma=25).for_test(clean, seed=9)
    np.random.seed(0)
    bgr = to_array(clean)[..., ::-1].copy()
    bgr += np.random.normal(0, 25 / 255.0, bgr.shape)
    assert np.array_equal(to_array(found), bgr[..., ::-1])
    assert found.min() < 0 or found.max() > 1  # neither clipped


@pytest.mark.parametrize("scale", [1, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_blind_degradation_is_drawn_anew_and_repeats_by_seed(photo, scale, channels):
    pixels = photo[: 96 // scale * scale, : 120 // scale * scale, :channels]
    clean = to_tensor(pixels)
    blind = Blind(scale=scale)
    found = [blind(clean, rng(seed)) for seed in range(6)]
    for image in found:
        assert image.shape == (channels, 96 // scale, 120 // scale)
        assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1
        assert (image * 255 - (image * 255).round()).abs().max() < 1e-3  # 8 bits
    assert torch.equal(found[3], blind(clean, rng(3)))
    assert len({float(image.mean()) for image in found}) == 6
    # Spoilt, but still the same picture.
    small = resize_bicubic(clean[None], (96 // scale, 120 // scale))[0]
    errors = [float((image - small).abs().mean()) for image in found]
    assert min(errors) > 0.005 and max(errors) < 0.25


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_equals_a_file_written_and_read(photo, channels, tmp_path):
    levels = np.round(photo[..., :channels] * 255).astype(np.uint8)
    clean = to_tensor(levels.astype(np.float32) / 255)
    found = Jpeg(scale=1, quality=20)(clean, rng())
    path = str(tmp_path / "a.jpg")
    cv2.imwrite(path, levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 20])
    expected = np.atleast_3d(cv2.imread(path, cv2.IMREAD_UNCHANGED))[..., ::-1]
    np.testing.assert_allclose(to_array(found) * 255, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bicubic(scale=9), "'bicubic': scale must be 1 to 8, not 9"),
        (lambda: Bicubic(scale=0), "'bicubic': scale must be 1 to 8, not 0"),
        (lambda: GaussianNoise(scale=2, sigma=5), "'noise' does not change the size, .*, not 2;"),
        (lambda: GaussianNoise(scale=1, sigma=256), "'noise': sigma must be 0 to 255, not 256"),
        (lambda: GaussianNoise(scale=1, sigma=-1), "'noise': sigma must be 0 to 255, not -1"),
        (lambda: Jpeg(scale=2, quality=9), "'jpeg' does not change the size, .*, not 2; use 'bic"),
        (lambda: Jpeg(scale=1, quality=0), "'jpeg': quality must be 1 to 100, not 0"),
        (lambda: Jpeg(scale=1, quality=101), "'jpeg': quality must be 1 to 100, not 101"),
        (lambda: Blind(scale=2, quality=(90, 30)), r"the lower first, not \(90, 30\)"),
        (lambda: Blind(scale=2, quality=(0, 30)), "'blind': quality must be two numbers from 1"),
        (lambda: Blind(scale=2, quality=(30, 101)), "'blind': quality must be two numbers from 1"),
        (lambda: Blind(scale=9), "'blind': scale must be 1 to 8, not 9"),
        (lambda: Blind(scale=0), "'blind': scale must be 1 to 8, not 0"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


def test_settings_may_be_the_smallest_and_the_largest():
    for scale in (1, 8):
        for kind in (Bicubic, Blind, OnePass):
            assert kind(scale=scale).scale == scale
        assert BicubicJpeg(scale=scale, quality=1).quality == 1
    for quality in (1, 100):
        assert Jpeg(scale=1, quality=quality).quality == quality
    assert Blind(scale=2, quality=(1, 100)).quality == (1, 100)
    assert [GaussianNoise(scale=1, sigma=sigma).sigma for sigma in (0, 255)] == [0, 255]
    ends = {"blur": (0, 20), "noise": (0, 255), "quality": (1, 100), "share": 0}
    assert OnePass(scale=1, **ends).blur == (0, 20) and OnePass(scale=1, share=1).share == 1


def test_samples_are_real_photos_of_which_four_are_held_out_for_good():
    held_out, trained = sample_names(held_out=True), sample_names(held_out=False)
    # Those that the shipped weights never saw, and are measured on.
    assert held_out == ["camera", "chelsea", "coffee", "rocket"]
    assert sorted(held_out + trained) == sorted(sample_names()) and len(trained) == 10
    for name in sample_names():
        assert min(load_sample(name).color_HWC.shape[:2]) >= 256
    with pytest.raises(ZooError, match="did you mean 'coffee'"):
        load_sample("cofee")


def dataset(photos, **changes):
    settings = {
        "degradation": Bicubic(scale=2),
        "patch": 12,
        "channels": 3,
        "length": 20,
        "seed": 5,
        **changes,
    }
    return PatchDataset(photos, **settings)


@pytest.mark.parametrize(
    "degradation", [Bicubic(scale=2), Bicubic(scale=3), Jpeg(scale=1, quality=30)]
)
def test_a_patch_is_a_cutting_of_the_whole_degraded_photo(photo, degradation):
    patches = dataset([photo], degradation=degradation, augment=False, length=6)
    scale = degradation.scale
    pixels = (photo[: 96 // scale * scale, : 128 // scale * scale] * 65535).round() / 65535
    clean = to_tensor(pixels.astype(np.float32))
    whole = degradation(clean, rng())
    for degraded, wanted in patches:
        places = [
            (y, x)
            for y in range(whole.shape[1] - 11)
            for x in range(whole.shape[2] - 11)
            if (whole[:, y : y + 12, x : x + 12] - degraded).abs().max() < 1e-6
        ]
        assert len(places) == 1
        y, x = (scale * side for side in places[0])
        there = clean[:, y : y + 12 * scale, x : x + 12 * scale]
        torch.testing.assert_close(there, wanted, atol=1e-5, rtol=0)


def test_a_pair_depends_on_seed_and_index_alone(photo):
    first, again = dataset([photo]), dataset([photo], length=50)
    for index in (0, 7, 19):
        assert all(map(torch.equal, first[index], again[index]))
    assert not torch.equal(first[0][0], first[1][0])
    assert not torch.equal(first[0][0], dataset([photo], seed=6)[0][0])


def test_too_small_a_photo_is_named_with_the_size_needed():
    small = TrainingPhoto("holiday.png", np.zeros((20, 90, 3), np.uint8))
    with pytest.raises(ImageError, match=r"need 24x24.*'holiday.png' has 90x20 pixels"):
        dataset([small])
    with pytest.raises(ImageError, match="no photo"):
        dataset([])
