"""Quality, lossless files and metadata that is left out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.helpers.networks import Nearest
from tests.helpers.photographs import XMP, colours, exif, save
from tests.helpers.profiles import rgb_profile
from zoo.cli import main
from zoo.data.images import Photo, Saving, read_photo, write_photo
from zoo.errors import ImageError


def noise():
    return np.random.default_rng(0).random((40, 60, 3), np.float32)


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_a_lower_quality_makes_a_smaller_file(tmp_path, kind):
    sizes = []
    for quality in (None, 95, 60, 5):
        write_photo(tmp_path / f"a.{kind}", Photo(noise()), Saving(quality=quality))
        sizes.append((tmp_path / f"a.{kind}").stat().st_size)
    assert sizes[0] >= sizes[1] > sizes[2] > sizes[3]
    assert (sizes[0] == sizes[1]) == (kind == "jpg")  # WebP is lossless without a quality


@pytest.mark.parametrize(
    ("name", "saving", "message"),
    [
        ("a.jpg", {"lossless": True}, "a.jpg: JPEG cannot be lossless; write .png or .webp"),
        ("a.png", {"quality": 80}, "a.png: PNG has no quality, only JPEG and WebP have one"),
        ("a.npy", {"quality": 80}, "a.npy: NPY has no quality, only JPEG and WebP have one"),
        ("a.png", {"quality": 80, "lossless": True}, "cannot be lossless and have a quality"),
        ("a.jpg", {"quality": 101}, "quality is 101; it must be a whole number from 1 to 100"),
        ("a.jpg", {"quality": "80"}, "quality is '80'; it must be a whole number from 1 to 100"),
        ("a.jpg", {"quality": 50.5}, "quality is 50.5; it must be a whole number from 1 to 100"),
        ("a.jpg", {"quality": True}, "quality is True; it must be a whole number from 1 to 100"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(tmp_path, name, saving, message):
    save(tmp_path / "in.png", colours())
    network = Nearest()
    with pytest.raises(ImageError) as error:
        zoo.restore(network, tmp_path / "in.png", tmp_path / name, progress=False, **saving)
    assert message in str(error.value)
    assert not network.sizes


def test_in_a_folder_the_quality_is_for_the_formats_that_have_one(tmp_path):
    for name in ("a.png", "b.jpg"):
        save(tmp_path / name, colours())
    zoo.restore(Nearest(), tmp_path, tmp_path / "out", progress=False, quality=30)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.jpg"]
    tables = Image.open(tmp_path / "out" / "b.jpg").quantization
    assert max(tables[0]) > 100  # coarse steps


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_metadata_can_be_left_out(tmp_path, kind):
    save(tmp_path / "a.png", colours(), profile=rgb_profile(), block=exif(6), xmp=XMP, dpi=(9, 9))
    source, target = str(tmp_path / "a.png"), tmp_path / f"b.{kind}"
    options = ["-n", "mambair_tiny_x2", "--strip-metadata"]
    assert main(["restore", source, "-o", str(target), *options]) == 0
    image = Image.open(target)
    assert image.size == (48, 72)  # the orientation is applied all the same
    for name in ("icc_profile", "exif", "xmp", "XML:com.adobe.xmp"):
        assert name not in image.info
    assert image.info.get("dpi", (1, 1)) == (1, 1)
    data = target.read_bytes()
    assert rgb_profile() not in data and XMP not in data and b"camera" not in data


def test_options_of_the_command_reach_the_file(tmp_path):
    save(tmp_path / "a.png", colours())
    source, target = str(tmp_path / "a.png"), tmp_path / "b.webp"
    options = ["-n", "mambair_tiny_x2", "--overwrite"]
    sizes = []
    for more in (["--quality", "5"], ["--lossless"]):
        assert main(["restore", source, "-o", str(target), *options, *more]) == 0
        sizes.append(target.stat().st_size)
    assert sizes[0] < sizes[1]
    assert read_photo(target).color_HWC.shape == (48, 72, 3)
