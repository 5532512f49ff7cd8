"""Paths are given as text or as ``Path``; what is said of one that cannot be written."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests.helpers.networks import Nearest
from zoo.data import Photo, list_photos, load_training_photos, read_photo, write_photo
from zoo.data.burst.reading import read_burst
from zoo.data.degradations import GaussianNoise
from zoo.data.prepare import prepare
from zoo.data.testsets import find_test_set, set_names
from zoo.errors import ImageError
from zoo.files import write_error
from zoo.recipe import load_recipe


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_are_text_or_paths(kind, tmp_path):
    folder, file = tmp_path / "photos", tmp_path / "photos" / "a.png"
    write_photo(kind(file), Photo(np.full((16, 16, 3), 0.5, np.float32)))
    assert read_photo(kind(file)).color_HWC.shape == (16, 16, 3)
    assert list_photos(kind(folder)) == [file]
    assert len(load_training_photos(kind(folder))) == 1
    assert prepare(kind(folder), kind(tmp_path / "cut"), size=8, step=8, progress=False) == 4
    assert set_names(kind(tmp_path)) == ["cut", "photos"]
    noise = GaussianNoise(scale=1, sigma=25)
    assert len(find_test_set(kind(tmp_path), "photos", noise, 1)) == 1
    written = zoo.restore(Nearest(), kind(file), kind(tmp_path / "big.png"), progress=False)
    assert written == [tmp_path / "big.png"]

    network = zoo.build("mambair_tiny_x2", dim=30, depths=[1])
    zoo.save(network, kind(tmp_path / "w.safetensors"))
    assert zoo.load(kind(tmp_path / "w.safetensors")).scale == 2
    assert zoo.convert(kind(tmp_path / "w.safetensors"), kind(tmp_path / "w.pth")).scale == 2
    (tmp_path / "r.yaml").write_text("extends: mambair_tiny_x2\n")
    assert load_recipe(kind(tmp_path / "r.yaml")).name == "r"
    np.savez(tmp_path / "burst.npz", frames=np.zeros((2, 4, 4, 4), np.float32))
    assert len(read_burst(kind(tmp_path / "burst.npz")).frames_TIHW) == 2


@pytest.mark.parametrize("name", ["EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG"])
def test_a_lack_of_permission_or_space_is_what_to_check(name):
    number = getattr(errno, name)
    said = write_error(Path("a.png"), OSError(number, "the reason"))
    assert said.errno == number
    assert str(said).startswith(
        "a.png: cannot write: the reason; check that the folder is writable"
    )
    other = write_error(Path("a.png"), OSError(errno.ENOTDIR, "Not a directory"))
    assert str(other) == "a.png: cannot write: Not a directory; choose another place"


def test_an_image_too_large_for_its_format_is_told_with_its_size(tmp_path):
    wide = Photo(np.zeros((2, 16_384, 3), np.float32))
    with pytest.raises(ImageError, match="webp cannot hold an image of 16384x2 pixels"):
        write_photo(tmp_path / "a.webp", wide)
