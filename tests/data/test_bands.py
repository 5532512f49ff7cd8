"""Images of any number of channels, and TIFF files of bands: kept, refused, or told."""

from __future__ import annotations

import importlib.util
import io
import itertools
import logging
import re
import struct
import sys
import threading

import numpy as np
import pytest
import tifffile

import zoo
from tests.helpers.bands import KINDS, get, put, restored, values
from tests.helpers.networks import Nearest
from zoo.cli import main
from zoo.data import (
    DEGRADATIONS,
    Bicubic,
    BicubicJpeg,
    Blind,
    GaussianNoise,
    Jpeg,
    OnePass,
    PatchDataset,
    Photo,
    arrays,
    load_training_photos,
    multiband,
    read_photo,
    tags,
    tiff,
    write_photo,
)
from zoo.data.metadata import Metadata
from zoo.data.multiband import is_multiband
from zoo.data.photo import Saving
from zoo.errors import ImageError, RecipeError
from zoo.inference import restore_photo


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".tif"])
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("channels", [1, 2, 4, 8, 13])
def test_bands_are_restored_to_a_file_of_the_same_kind(tmp_path, suffix, kind, channels):
    """Through a network that repeats pixels, values come back as they were."""
    array = values((5, 7, channels) if channels > 1 else (5, 7), kind)
    path = put(tmp_path / f"in{suffix}", array)
    output = tmp_path / f"out{suffix}"
    network = Nearest(2, channels)
    assert zoo.restore(network, path, output, progress=False) == [output]
    found = get(output)
    assert found.dtype == array.dtype
    np.testing.assert_allclose(found, array.repeat(2, 0).repeat(2, 1), rtol=1e-6)


def test_overviews_of_a_geotiff_are_no_further_pages(tmp_path):
    """GDAL stores smaller copies behind the image, marked as such; other pages are refused."""
    array = values((8, 8, 5), "uint16")
    for name, kind in (("overviews", 1), ("pages", 0)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            for step in (1, 2, 4):
                file.write(
                    array[::step, ::step],
                    photometric="minisblack",
                    planarconfig="contig",
                    subfiletype=0 if step == 1 else kind,
                    metadata=None,
                )
    found = read_photo(tmp_path / "overviews.tif").color_HWC
    np.testing.assert_allclose(found * 65535, array, atol=0.1)
    with pytest.raises(ImageError, match="has 3 pages"):
        read_photo(tmp_path / "pages.tif")


def test_float_colours_stay_colours_and_bands_stay_bands(tmp_path):
    for kind, photometric in itertools.product(("float32", "uint8"), ("rgb", "minisblack")):
        path = put(tmp_path / "a.tif", values((4, 5, 3), kind), photometric=photometric)
        with tifffile.TiffFile(restored(Nearest(1, 3), path)) as file:
            assert file.pages.first.photometric.name.lower() == photometric, kind


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("cut", "is damaged or cut short; copy it again"),
        ("empty strip", "is damaged or cut short; copy it again"),
        ("declared", "is damaged: it declares more values than it holds"),
    ],
)
def test_a_damaged_tiff_of_bands_is_told(tmp_path, damage, told):
    path = put(tmp_path / "a.tif", values((40, 30, 5), "float32"))
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-100]
    elif damage == "empty strip":
        at = data.index((279).to_bytes(2, "little") + b"\x04\0\x01\0\0\0")
        data[at + 8 : at + 12] = bytes(4)
    else:
        at = data.index((256).to_bytes(2, "little"))
        data[at + 8 : at + 10] = (60000).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(ImageError, match=rf"a\.tif' {told}"):
        read_photo(path)


def test_a_tiff_of_several_pages_and_one_of_another_compression_say_what_to_do(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values((4, 20, 30), "float32"), photometric="minisblack")
    with pytest.raises(ImageError, match=r"4 (pages|frames)"):
        read_photo(path)
    put(path, values((20, 30, 5), "float32"))
    data = path.read_bytes()
    tag = (259).to_bytes(2, "little") + b"\x03\0\x01\0\0\0"
    path.write_bytes(data.replace(tag + b"\x01\0", tag + b"\x05\0"))  # LZW
    has_codecs = importlib.util.find_spec("imagecodecs") is not None
    told = r"a\.tif' (cannot|is damaged)" if has_codecs else "library; pip install imagecodecs, or"
    with pytest.raises(ImageError, match=told):
        read_photo(path)


@pytest.mark.parametrize("compression", ["zlib", None])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_files_of_other_programs_are_read(tmp_path, compression, planar):
    array = values((33, 21, 6), "uint16")
    stored = array if planar == "contig" else array.transpose(2, 0, 1)
    options = {"planarconfig": planar, "compression": compression, "rowsperstrip": 8}
    path = put(tmp_path / "a.tif", stored, **options)
    found = (read_photo(path).color_HWC * 65535).round()
    np.testing.assert_array_equal(found, array)


def test_only_tiff_files_that_are_no_photographs_are_read_as_bands(tmp_path):
    """OpenCV takes four gray bands for one, and more than four for none."""
    path = tmp_path / "a.tif"
    for shape, kind, options, bands in (
        ((4, 5), "uint8", {}, False), ((4, 5), "uint16", {}, False),
        ((4, 5), "float32", {}, True), ((4, 5, 2), "uint8", {}, True),
        ((4, 5, 2), "uint8", {"extrasamples": ["unassalpha"]}, False),
        ((4, 5, 4), "uint16", {}, True), ((4, 5, 5), "uint8", {}, True),
        ((4, 5, 3), "uint8", {"photometric": "rgb"}, False),
        ((4, 5, 3), "float32", {"photometric": "rgb"}, True),
        ((4, 5, 4), "uint8", {"photometric": "rgb", "extrasamples": ["assocalpha"]}, False),
        ((4, 5, 4), "uint16", {"photometric": "rgb", "extrasamples": ["unspecified"]}, True),
    ):  # fmt: skip
        put(path, values(shape, kind), **options)
        assert is_multiband(path.read_bytes()) == bands, (shape, kind, options)
    assert not is_multiband(b"II*\0") and not is_multiband(b"\x89PNG")


@pytest.mark.parametrize(
    ("module", "suffix", "extra"), [("tifffile", ".tif", "tiff"), ("scipy", ".mat", "mat")]
)
def test_a_missing_library_names_its_extra(tmp_path, monkeypatch, module, suffix, extra):
    path = put(tmp_path / f"a{suffix}", values((4, 5, 6), "float32"))
    photo = read_photo(path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageError, match=rf"the extra \[{extra}\]"):
        read_photo(path)
    with pytest.raises(ImageError, match=rf"the extra \[{extra}\]"):
        write_photo(tmp_path / f"b{suffix}", photo)


def test_formats_of_photographs_refuse_bands(tmp_path):
    for channels in (2, 4, 8):
        photo = Photo(values((4, 5, channels), "float32"))
        with pytest.raises(ImageError, match=rf"holds 1 or 3 channels, not {channels}; use \.tif"):
            write_photo(tmp_path / "a.png", photo)
    assert list(tmp_path.iterdir()) == []


class Untouched(Nearest):
    """Fails when it is called."""

    def forward(self, image_BIHW):
        raise AssertionError("the work was done in vain")


@pytest.mark.parametrize("channels", [1, 8])
def test_bands_to_a_png_are_refused_before_the_work(tmp_path, channels):
    path = put(tmp_path / "a.npy", values((4, 5, 8), "float32"))
    with pytest.raises(ImageError, match=r"\.png holds 1 or 3 channels, not 8; use \.tif"):
        zoo.restore(Untouched(2, channels), path, tmp_path / "b.png", progress=False)


@pytest.mark.parametrize(("kind", "channels"), [("uint16", 8), ("float32", 3)])
def test_bands_keep_their_resolution_times_the_scale(tmp_path, kind, channels):
    options = {"resolution": (300, 150), "resolutionunit": "INCH"}
    path = put(tmp_path / "a.tif", values((4, 5, channels), kind), **options)
    output = restored(Nearest(2, channels), path)
    found = read_photo(output).metadata.resolution
    assert (found.x, found.y, found.unit) == (600, 300, "inch")
    np.testing.assert_allclose(get(output), get(path).repeat(2, 0).repeat(2, 1), rtol=1e-6)


def test_what_is_not_kept_is_said(tmp_path, caplog):
    pixel_size = (33550, 12, 3, (10.0, 10.0, 0.0), False)
    path = put(tmp_path / "a.tif", values((4, 5, 8), "uint16"), extratags=[pixel_size])
    restored(Nearest(2, 8), path)
    assert caplog.messages == [f"{path}: not kept in the output: the georeference"]
    caplog.clear()
    np.savez(tmp_path / "a.npz", image=values((4, 5), "uint8"), mask=np.ones(3), lines=np.ones(2))
    restored(Nearest(2, 1), tmp_path / "a.npz", ".npz")
    said = "not kept in the output: the array 'mask', the array 'lines'"
    assert caplog.messages == [f"{tmp_path / 'a.npz'}: {said}"]
    caplog.clear()
    restored(Nearest(2, 1), put(tmp_path / "b.npz", values((4, 5), "uint8")), ".npz")
    assert caplog.messages == []


def test_other_numbers_of_channels_than_the_networks_are_one_sentence(tmp_path):
    photo = Photo(values((4, 5, 8), "float32"))
    data = io.BytesIO()
    np.save(data, values((4, 5, 8), "float32"))
    assert zoo.restore(Nearest(2, 8), data.getvalue(), progress=False)[:6] == b"\x93NUMPY"
    with pytest.raises(ImageError, match=r"8 channels cannot become one of 3.*channels=8"):
        restore_photo(Nearest(2, 3), photo)
    with pytest.raises(ImageError, match=r"channels seem to be first: move them last"):
        restore_photo(Nearest(2, 4), photo)
    found = restore_photo(Nearest(2, 1), photo)  # a gray network takes channels one by one
    np.testing.assert_array_equal(found.color_HWC, photo.color_HWC.repeat(2, 0).repeat(2, 1))


def test_bands_are_cut_into_files_with_the_values_that_they_had(tmp_path):
    array = values((10, 14, 5), "float32") * 9000
    (tmp_path / "in").mkdir()
    put(tmp_path / "in" / "a.tif", array)
    words = ["data", "prepare", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--size", "8"]
    assert main([*words, "--step", "6"]) == 2
    assert main([*words, "--step", "6", "--range", "0", "10000"]) == 0
    names = [path.name for path in sorted((tmp_path / "out").glob("[!.]*"))]
    assert names == [f"a_s00{n}.npy" for n in range(1, 5)]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a_s004.npy"), array[2:, 6:], atol=1e-2)


def test_training_on_other_channels_than_the_networks_is_refused_before_it_starts(tmp_path):
    put(tmp_path / "a.npy", values((12, 12, 4), "float32"))
    photos = load_training_photos(tmp_path)
    options = {"patch": 4, "length": 1, "seed": 0}
    with pytest.raises(ImageError, match=r"must have shape \(H, W, 8\), not \(12, 12, 4\)"):
        PatchDataset(photos, degradation=Bicubic(scale=1), channels=8, **options)
    of_photographs = [
        *(Jpeg(scale=1, quality=50), BicubicJpeg(scale=1, quality=50)),
        *(Blind(scale=2), OnePass(scale=2)),
    ]
    for degradation in of_photographs:
        name = type(degradation).__name__
        with pytest.raises(RecipeError, match=f"{name} degrades gray and RGB photographs only"):
            PatchDataset(photos, degradation=degradation, channels=4, **options)
    others = {Bicubic, GaussianNoise}
    assert {entry.target for entry in DEGRADATIONS.entries()} == {
        *others,
        *map(type, of_photographs),
    }


def test_a_tiff_of_bands_is_turned_as_its_orientation_says(tmp_path):
    stored = values((4, 6, 2), "float32")
    path = put(tmp_path / "a.tif", stored, extratags=[(274, 3, 1, 6, True)])
    photo = read_photo(path)
    assert np.array_equal(photo.color_HWC, np.rot90(stored, -1))
    zoo.restore(Nearest(2, 2), path, tmp_path / "b.tif", progress=False)
    with tifffile.TiffFile(tmp_path / "b.tif") as written:
        tag = written.pages[0].tags.get(274)
        assert written.pages[0].shape[:2] == (12, 8) and (tag is None or tag.value == 1)


def test_a_tiff_without_the_meaning_of_its_samples_is_gray():
    for samples, bands in ((1, False), (2, True), (3, True), (4, True)):
        block = tags.with_tags(
            tags.EMPTY, [tags.Tag(tiff.SAMPLES, tags.SHORT, struct.pack("<H", samples))]
        )
        assert is_multiband(block) == bands


def test_reading_bands_leaves_no_listener_behind_and_nothing_on_the_screen(tmp_path, capfd):
    path = put(tmp_path / "a.tif", values((4, 5, 6), "float32"))
    log = logging.getLogger("tifffile")
    before = list(log.handlers)
    read_photo(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageError):
        read_photo(path)
    assert log.handlers == before and not log.propagate
    assert capfd.readouterr() == ("", "")


def test_bands_have_no_alpha_and_may_be_compressed_a_thousand_times(tmp_path):
    photo = Photo(np.zeros((4, 4, 3), np.float32), np.ones((4, 4), np.float32), 32)
    with pytest.raises(ImageError, match=r"a\.tif': bands have no alpha channel"):
        write_photo(tmp_path / "a.tif", photo)
    path = put(tmp_path / "b.tif", np.zeros((300, 300, 5), np.uint16), compression="zlib")
    assert path.stat().st_size < 10_000 and read_photo(path).color_HWC.shape == (300, 300, 5)


def test_bands_say_their_new_size_and_nothing_if_asked_to(tmp_path):
    said = Metadata(xmp=b'<a exif:PixelXDimension="3" exif:PixelYDimension="3">')
    photo = Photo(np.zeros((5, 7, 4), np.float32), bit_depth=32, metadata=said)
    write_photo(tmp_path / "a.tif", photo)
    assert read_photo(tmp_path / "a.tif").dropped == ()
    found = read_photo(tmp_path / "a.tif").metadata
    assert found.xmp == b'<a exif:PixelXDimension="7" exif:PixelYDimension="5">'
    write_photo(tmp_path / "b.tif", photo, Saving(metadata=False))
    assert read_photo(tmp_path / "b.tif").metadata == Metadata()
    assert read_photo(tmp_path / "b.tif").color_HWC.shape == (5, 7, 4)


@pytest.mark.parametrize("module", ["scipy", "tifffile"])
def test_what_to_install_is_said_of_what_is_missing(monkeypatch, module):
    missing = {"scipy": arrays.missing_mat, "tifffile": multiband.missing}[module]
    assert missing() == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else name)
    assert re.fullmatch(r"pip install .*", missing())


def test_what_tifffile_says_is_heard_in_the_thread_that_reads():
    log = logging.getLogger("tifffile")
    with multiband._heard() as said:
        thread = threading.Thread(target=log.warning, args=("of another file",))
        thread.start()
        thread.join()
        log.info("no fault")
        log.warning("%s of this file", "damage")
    log.warning("later")
    assert said == ["damage of this file"]
