"""Prepared pairs: the same pixels as on the fly, whole files, resumed runs."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.data import BicubicJpeg, Photo, load_sample, read_photo, write_photo
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
    with pytest.raises(ImageError, match=r"two images .* are named 'a'"):
        write_pairs(photos, tmp_path / "out", DEGRADATION)
    assert not (tmp_path / "out").exists()


def test_the_command_line(photos, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(photos), "-o", str(out), "bicubic_jpeg", "scale=4"]
    assert main([*words, "quality=10"]) == 0
    assert len(list(out.rglob("*.png"))) == 4
    assert main([*words, "qualty=10"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'quality'" in said
    assert main([*words, "quality=10", "scale=x"]) == 2
    said = capsys.readouterr().err
    assert "scale: expected a whole number" in said
