"""TIFF photographs of unusual layout: read right, or refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.helpers.photographs import colours
from zoo.data.decoding import _sort
from zoo.data.images import read_photo
from zoo.errors import ImageError


def test_gray_tiffs_where_zero_is_white_are_no_negatives(tmp_path):
    gray = colours()[..., 0]
    for levels in (gray, gray.astype(np.uint16) * 257):
        tifffile.imwrite(tmp_path / "a.tif", levels, photometric="miniswhite")
        color_HWC = read_photo(tmp_path / "a.tif").color_HWC
        np.testing.assert_allclose(color_HWC[..., 0], 1 - gray / 255, atol=1e-6)


def test_printing_colours_have_no_alpha(tmp_path):
    Image.fromarray(colours()).convert("CMYK").save(tmp_path / "a.tif")
    assert read_photo(tmp_path / "a.tif").alpha_HW is None


def planes(pixels):
    return np.ascontiguousarray(np.moveaxis(pixels, 2, 0))


UNDECODABLE = {
    "planes": (planes(colours().astype(np.uint16)), "separate planes", "rgb"),
    "planes with alpha": (planes(colours(channels=4).astype(np.uint16)), "separate planes", "rgb"),
    "lab": (colours(), "CIELab", "cielab"),
    "deep inks": (colours(channels=4).astype(np.uint16), "CMYK colours of 16 bits", "separated"),
    "tiles": (colours(), "tiles", "rgb"),
}


@pytest.mark.parametrize("name", UNDECODABLE)
def test_a_good_tiff_that_cannot_be_decoded_is_not_called_damaged(tmp_path, name, capfd):
    pixels, said, photometric = UNDECODABLE[name]
    more = {"tile": (16, 16)} if name == "tiles" else {}
    config = "separate" if name.startswith("planes") else "contig"
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric=photometric, planarconfig=config, **more
    )
    with pytest.raises(ImageError) as error:
        read_photo(tmp_path / "a.tif")
    message = str(error.value)
    assert said in message and "damaged" not in message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, 32])
def test_planes_and_tiles_of_8_bits_are_read(tmp_path, planarconfig, tile):
    stored = planes(colours()) if planarconfig == "separate" else colours()
    more = {"tile": tile and (tile, tile), "planarconfig": planarconfig}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **more)
    np.testing.assert_allclose(read_photo(tmp_path / "a.tif").color_HWC * 255, colours(), atol=0.1)


def test_deep_tiles_are_read(tmp_path):
    pixels = colours().astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(16, 16))
    color_HWC = read_photo(tmp_path / "a.tif").color_HWC
    np.testing.assert_allclose(color_HWC * 65535, pixels, atol=0.1)


def test_the_log_of_opencv_does_not_reach_the_user(capfd):
    message = (
        b"[ERROR:0@3.7] global loadsave.cpp:1355 imdecode_ can't read header\n"
        b"> Unsupported number of channels:\n>     'channels <= 4'\n> where\n\n"
    )
    said = []
    _sort(b"mine\n" + message + b"> of mine\n", said)
    assert said == [] and capfd.readouterr().err == "mine\n> of mine\n"
