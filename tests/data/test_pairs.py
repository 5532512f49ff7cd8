"""Prepared pairs: the same pixels as on the fly, whole files, resumed runs."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from zoo.data import BicubicJpeg, GaussianNoise, Photo, load_sample, read_photo, write_photo
from zoo.data.pairs import main, write_pairs
from zoo.data.pixels import to_array, to_tensor
from zoo.errors import ImageError

DEGRADATION = BicubicJpeg(scale=4, quality=10)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    color = load_sample("coffee").color_HWC
    write_photo(folder / "a.png", Photo(color[:50, :71]))
    write_photo(folder / "b.png", Photo(color[100:140, 100:144, :1]))
    return folder


def test_a_prepared_pair_is_what_the_degradation_computes(photos, tmp_path):
    pairs = write_pairs(photos, tmp_path / "out", DEGRADATION)
    assert [pair.degraded.name for pair in pairs] == ["a.png", "b.png"]
    for pair, path in zip(pairs, sorted(photos.iterdir()), strict=True):
        source = read_photo(path).color_HWC
        height, width = source.shape[0] // 4 * 4, source.shape[1] // 4 * 4
        clean = read_photo(pair.clean).color_HWC
        assert np.array_equal(clean, source[:height, :width])
        expected = DEGRADATION(to_tensor(clean), None)
        found = read_photo(pair.degraded).color_HWC
        assert found.shape[:2] == (height // 4, width // 4)
        assert np.array_equal(found, to_array(expected))


def test_an_interrupted_run_goes_on(photos, tmp_path):
    first, second = write_pairs(photos, tmp_path / "out", DEGRADATION)
    second.degraded.unlink()
    kept = first.degraded.stat().st_mtime_ns
    write_pairs(photos, tmp_path / "out", DEGRADATION)
    assert second.degraded.exists() and first.degraded.stat().st_mtime_ns == kept


def test_images_that_would_become_one_file_are_named(photos, tmp_path):
    write_photo(photos / "a.bmp", read_photo(photos / "a.png"))
    with pytest.raises(ImageError, match=r"a\.bmp' and .*a\.png' differ only in the ext"):
        write_pairs(photos, tmp_path / "out", DEGRADATION)
    assert not (tmp_path / "out").exists()


def test_each_image_is_degraded_by_a_seed_of_its_name_and_clipped(photos, tmp_path):
    write_photo(photos / "c.png", read_photo(photos / "a.png"))
    pairs = write_pairs(photos, tmp_path / "out", GaussianNoise(scale=1, sigma=80))
    first, _, last = (read_photo(pair.degraded).color_HWC for pair in pairs)
    assert not np.array_equal(first, last)
    rng = np.random.default_rng(zlib.crc32(b"a"))
    clean = read_photo(photos / "a.png").color_HWC
    noise = rng.standard_normal((3, *clean.shape[:2]), dtype=np.float32).transpose(1, 2, 0)
    expected = np.floor(np.clip(clean + noise * (80 / 255), 0, 1) * 255 + 0.5)
    assert np.abs(first * 255 - expected).max() < 1.01
    assert (np.abs(first * 255 - expected) > 0.01).mean() < 0.001


def test_an_image_smaller_than_the_scale_is_named(photos, tmp_path):
    write_photo(photos / "small.png", Photo(np.zeros((3, 9, 1), np.float32)))
    with pytest.raises(ImageError, match=r"small\.png: the image is smaller than 4 pixels"):
        write_pairs(photos, tmp_path / "out", DEGRADATION)


def test_prepared_pairs_never_replace_their_input(photos, tmp_path, monkeypatch):
    """The folder of clean images is the one to write, or a link to it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "clean").symlink_to(photos)
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    with pytest.raises(ImageError, match=r"a\.png: a pair would replace the input"):
        write_pairs(photos, tmp_path / "out", DEGRADATION)
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before


def test_the_command_line(photos, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(photos), "-o", str(out), "bicubic_jpeg", "scale=4"]
    assert main([*words, "quality=10"]) == 0
    assert len(list(out.rglob("*.png"))) == 4
    mixed = [str(photos), "bicubic_jpeg", "scale=4", "-o", str(tmp_path / "mixed"), "quality=10"]
    assert main(mixed) == 0
    for path in out.rglob("*.png"):
        again = tmp_path / "mixed" / path.relative_to(out)
        assert again.read_bytes() == path.read_bytes()
    assert main([str(photos), "-o", str(tmp_path / "plain"), "jpeg", "quality=10"]) == 0
    size = read_photo(photos / "a.png").color_HWC.shape
    assert read_photo(tmp_path / "plain" / "degraded" / "a.png").color_HWC.shape == size
    assert main([*words, "qualty=10"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'quality'" in said
    assert main([*words, "quality=10", "scale=x"]) == 2
    said = capsys.readouterr().err
    assert "scale: expected a whole number" in said


def test_a_bar_is_shown_to_a_person_only(photos, tmp_path, monkeypatch):
    shown = []

    def bar(items, **more):
        shown.append(more)
        return items

    monkeypatch.setattr("zoo.data.pairs.tqdm", bar)
    write_pairs(photos, tmp_path / "out", DEGRADATION)
    assert shown == [{"unit": "image", "disable": None}]  # tqdm hides it in a file
