"""Photos to train on, pairs, and sub-images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from zoo.cli import main
from zoo.data import (
    PairDataset,
    Photo,
    StoredPhoto,
    TrainingPhoto,
    list_photos,
    load_training_photos,
    read_photo,
    samples,
    write_photo,
)
from zoo.data.photos import _read
from zoo.data.prepare import prepare, starts
from zoo.errors import ImageError, ZooError


def random_photo(seed, height=40, width=48, bit_depth=8):
    pixels = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    return Photo(pixels, bit_depth=bit_depth)


def test_photos_beyond_the_memory_are_read_again_and_again(tmp_path):
    for index in range(3):
        write_photo(tmp_path / f"{index}.png", random_photo(index))
    kept = load_training_photos(tmp_path)
    mixed = load_training_photos(tmp_path, memory=40 * 48 * 3 * 1.5 / 1e9)
    assert [isinstance(photo, StoredPhoto) for photo in mixed] == [False, True, True]
    assert not any(isinstance(photo, StoredPhoto) for photo in kept)
    for a, b in zip(kept, mixed, strict=True):
        assert a.shape == b.shape and np.array_equal(a.pixels_HWC, b.pixels_HWC)
    write_photo(tmp_path / "2.png", random_photo(0, 20))
    with pytest.raises(ImageError, match="changed during training"):
        _ = mixed[2].pixels_HWC
    assert len(load_training_photos([str(tmp_path), str(tmp_path)])) == 6


def test_pairs_that_do_not_match_are_named():
    def photos(names, side):
        return [TrainingPhoto(name, np.zeros((side, side, 3), np.uint8)) for name in names]

    options = {"scale": 2, "patch": 6, "channels": 3, "length": 1, "seed": 0}
    clean = photos("abcdefgh", 24)
    with pytest.raises(ImageError, match=r"8 of 8 .*'e' has no degraded.*; and 3 more$"):
        PairDataset(clean, photos("xyz", 12), **options)
    with pytest.raises(
        ImageError, match=r"'a' has 24x24 pixels and 'a' 13x13, .* 1/2 of that size"
    ):
        PairDataset(clean[:1], photos("a", 13), **options)
    assert len(PairDataset(photos("a", 25), photos("a", 12), **options)) == 1


def test_pairs_and_photos_keep_16_bits(tmp_path):
    write_photo(tmp_path / "a.png", random_photo(0, bit_depth=16))
    [photo] = load_training_photos(tmp_path)
    assert photo.pixels_HWC.dtype == np.uint16


def test_sub_images_cover_the_photo_and_resume(tmp_path, capsys):
    assert starts(100, 48, 24) == [0, 24, 48, 52] and starts(40, 48, 24) == [0]
    source, target = tmp_path / "photos", tmp_path / "parts"
    source.mkdir()
    photo = random_photo(0, 50, 70, bit_depth=16)
    write_photo(source / "a.png", photo)
    write_photo(source / "b.png", random_photo(1, 20, 30))
    words = ["data", "prepare", source, "-o", target, "--size", 32, "--step", 16]
    assert main([str(word) for word in words]) == 0
    assert "13 sub-images" in capsys.readouterr().out
    names = sorted(path.name for path in list_photos(target))
    assert len(names) == 13 and names[0] == "a_s001.png" and names[-1] == "b_s001.png"
    second = read_photo(target / "a_s002.png")  # numbers run along rows
    np.testing.assert_allclose(second.color_HWC, photo.color_HWC[:32, 16:48], atol=1e-4)
    last = read_photo(target / "a_s012.png")
    assert last.bit_depth == 16
    np.testing.assert_allclose(last.color_HWC, photo.color_HWC[-32:, -32:], atol=1e-4)
    before = (target / "a_s001.png").stat().st_mtime_ns
    (target / "a_s002.png").unlink()
    assert prepare(source, target, size=32, step=16, progress=False) == 13
    assert (target / "a_s001.png").stat().st_mtime_ns == before
    assert (target / "a_s002.png").exists()


@pytest.mark.parametrize("by_command", [False, True])
def test_sub_images_are_480_wide_and_240_apart_unless_told_otherwise(tmp_path, by_command):
    write_photo(tmp_path / "a.png", Photo(np.zeros((1, 800, 1), np.float32)))
    if by_command:
        assert main(["data", "prepare", str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    else:
        prepare(tmp_path, tmp_path / "out", progress=False)
    widths = [read_photo(path).color_HWC.shape[1] for path in list_photos(tmp_path / "out")]
    assert widths == [480] * 3  # at 0, 240 and 320


def test_a_range_of_floats_only_is_not_that_of_levels(tmp_path):
    write_photo(tmp_path / "a.png", random_photo(0))
    levels = _read(tmp_path / "a.png", (0, 100), True)
    scaled = _read(tmp_path / "a.png", (0, 100), False)
    assert levels.pixels_HWC.dtype == np.uint8 and scaled.pixels_HWC.dtype == np.float32


def test_parts_of_floating_point_pictures_are_arrays(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 3), np.float32))
    assert prepare(tmp_path, tmp_path / "out", size=4, step=4, progress=False) == 1
    assert [path.name for path in list_photos(tmp_path / "out")] == ["a_s001.npy"]


def test_photos_without_data_somewhere_are_not_cut(tmp_path):
    pixels = np.zeros((8, 8, 3), np.float32)
    pixels[1, 2] = np.nan
    np.save(tmp_path / "a.npy", pixels)
    with pytest.raises(ImageError, match=r"a\.npy' has 1 pixels without data .*; cut them off"):
        prepare(tmp_path, tmp_path / "out", size=4, step=4, progress=False)
    assert not list((tmp_path / "out").glob("a_*"))


def test_preparing_names_what_is_wrong(tmp_path, monkeypatch):
    write_photo(tmp_path / "a.png", random_photo(0))
    (tmp_path / "b.png").write_text("none")
    with pytest.raises(ImageError, match=r"1 of 2 photos failed.*b\.png"):
        prepare(tmp_path, tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "a_s001.png").exists()
    with pytest.raises(ImageError, match="among the photos"):
        prepare(tmp_path, tmp_path, progress=False)
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ImageError, match="among the photos"):
        prepare(tmp_path, tmp_path.name, progress=False)
    with pytest.raises(ZooError, match="leaves gaps"):
        prepare(tmp_path, tmp_path / "out", size=10, step=20)
    with pytest.raises(ZooError, match="step is 0 and size is 10 pixels"):
        prepare(tmp_path, tmp_path / "out", size=10, step=0)


def test_sub_images_may_be_a_pixel_apart_and_beside_each_other(tmp_path):
    write_photo(tmp_path / "a.png", random_photo(0, 3, 4))
    assert prepare(tmp_path, tmp_path / "near", size=2, step=1, progress=False) == 6
    assert prepare(tmp_path, tmp_path / "far", size=2, step=2, progress=False) == 4


def test_a_sample_that_its_package_lacks_is_told(monkeypatch):
    gone = replace(samples.SAMPLE_PHOTOS[0], name="gone", file="data/gone.png")
    monkeypatch.setattr(samples, "SAMPLE_PHOTOS", (gone,))
    with pytest.raises(ZooError, match="'gone' is missing from the installed package 'skimage'"):
        samples.load_sample("gone")


@pytest.mark.parametrize("sample", samples.SAMPLE_PHOTOS, ids=lambda sample: sample.name)
def test_a_sample_has_the_channels_that_are_stated(sample):
    assert samples.load_sample(sample.name).color_HWC.shape[2] == sample.channels


def test_bars_are_shown_unless_they_are_not_wanted(tmp_path, monkeypatch):
    """None leaves it to tqdm, which shows a bar to a person and none in a file."""
    shown = []

    def bar(items, *_, disable, **more):
        shown.append(disable)
        return items

    monkeypatch.setattr("zoo.data.prepare.tqdm", bar)
    monkeypatch.setattr("zoo.data.photos.tqdm", bar)
    write_photo(tmp_path / "a.png", random_photo(0))
    prepare(tmp_path, tmp_path / "out")
    prepare(tmp_path, tmp_path / "out", progress=False)
    load_training_photos(tmp_path, progress=True)
    load_training_photos(tmp_path)
    assert shown == [None, True, None, True]


@pytest.mark.parametrize(
    ("name", "package"), [("coins", "scikit-image"), ("china", "scikit-learn")]
)
def test_a_sample_without_its_package_says_what_to_install(monkeypatch, name, package):
    monkeypatch.setattr(samples, "find_spec", lambda _: None)
    with pytest.raises(ZooError, match=rf"run: pip install {package}, or name a folder"):
        samples.load_sample(name)
