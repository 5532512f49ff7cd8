"""Images that are no photographs: any channels, floating point, ranges, and files of bands."""

from __future__ import annotations

import importlib.util
import io
import itertools
import logging
import re
import struct
import sys
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io as scipy_io
import tifffile
import torch

import zoo
from tests.helpers.bands import KINDS, Remembers, get, put, restored, values
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
    list_photos,
    load_training_photos,
    multiband,
    read_photo,
    tags,
    tiff,
    write_photo,
)
from zoo.data.arrays import blocks_of
from zoo.data.metadata import Metadata
from zoo.data.multiband import is_multiband
from zoo.data.photo import Saving
from zoo.data.pixels import quantise
from zoo.data.testsets import find_test_set
from zoo.data.value_range import check_range, in_range, range_of, scaled
from zoo.errors import ImageError, RecipeError
from zoo.inference import restore_photo
from zoo.recipe import Recipe


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


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_a_stated_range_is_black_and_white_and_is_written_back(tmp_path, suffix, caplog):
    array = np.array([[[-100.0, 0, 9900.0, 20000.0]]], np.float32)
    path = put(tmp_path / f"a{suffix}", array)
    photo = read_photo(path, (-100, 9900))
    np.testing.assert_allclose(photo.color_HWC, [[[0, 0.01, 1, 1]]], atol=1e-6)
    assert "25 % of the values are outside (-100, 9900)" in caplog.text
    assert (photo.bit_depth, photo.value_range) == (32, (-100, 9900))
    write_photo(tmp_path / f"b{suffix}", photo)
    found = get(tmp_path / f"b{suffix}").reshape(-1)
    np.testing.assert_allclose(found, [-100, 0, 9900, 9900], atol=1e-3)  # clipped to the range


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


def test_levels_may_have_a_range_of_their_own(tmp_path):
    """12 bits in a file of 16, and reflectances up to 10000; also in a PNG."""
    levels = np.array([[0, 1000, 4095]], np.uint16)
    for path in (put(tmp_path / "a.npy", levels), tmp_path / "a.png"):
        if path.suffix == ".png":
            cv2.imwrite(str(path), levels)
        photo = read_photo(path, (0, 4095))
        np.testing.assert_allclose(photo.color_HWC[..., 0], levels / 4095, atol=1e-6)
        write_photo(tmp_path / f"out{path.suffix}", photo)
        found = read_photo(tmp_path / f"out{path.suffix}").color_HWC[..., 0] * 65535
        np.testing.assert_array_equal(found.round(), levels)


def test_floats_of_an_unstated_range_are_an_error_that_names_what_they_are(tmp_path):
    path = put(tmp_path / "a.npy", np.array([[-3.0, 4523.0]]))
    message = r"a\.npy' has values from -3 to 4523; state which values are black and white"
    with pytest.raises(ImageError, match=message):
        read_photo(path)
    put(path, np.array([[0.0, 1.0005]]))
    assert read_photo(path).bit_depth == 32
    put(path, np.array([[0, 5]], np.int32))
    with pytest.raises(ImageError, match="state which values"):
        read_photo(path)
    np.testing.assert_allclose(read_photo(path, (0, 10)).color_HWC[..., 0], [[0, 0.5]])


@pytest.mark.parametrize("wrong", [(1, 1), (2, 1), (0, float("nan")), (0, float("inf"))])
def test_a_range_is_two_numbers_with_the_smaller_one_first(wrong):
    with pytest.raises(RecipeError, match=r"range is .*such as"):
        check_range(wrong)


@pytest.mark.parametrize("wrong", ["text", [1], [1, "2"], {"a": 1}])
def test_a_wrong_range_in_a_file_of_weights_is_one_sentence(wrong):
    recipe = trained_with({"range": wrong})
    with pytest.raises(RecipeError, match="must be two numbers"):
        range_of(recipe)
    assert range_of(None) is None
    assert range_of(trained_with({"range": [0, 5]})) == (0, 5)
    assert range_of(trained_with({})) is None


def trained_with(data):
    return Recipe(name="a", network={"type": "single_image"}, train={"data": data})


def test_the_range_of_the_training_is_used_unless_another_is_given(tmp_path):
    path = put(tmp_path / "a.npy", np.full((4, 4), 50.0))
    network = Remembers(1, 1)
    network.recipe = trained_with({"range": [0, 100]})
    zoo.restore(network, path, tmp_path / "b.npy", progress=False)
    assert network.seen.unique().tolist() == [0.5]
    zoo.restore(network, path, tmp_path / "c.npy", value_range=(0, 200), progress=False)
    assert network.seen.unique().tolist() == [0.25]
    assert np.load(tmp_path / "c.npy").max() == 50


def test_float_colours_stay_colours_and_bands_stay_bands(tmp_path):
    for kind, photometric in itertools.product(("float32", "uint8"), ("rgb", "minisblack")):
        path = put(tmp_path / "a.tif", values((4, 5, 3), kind), photometric=photometric)
        with tifffile.TiffFile(restored(Nearest(1, 3), path)) as file:
            assert file.pages.first.photometric.name.lower() == photometric, kind


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4, 5)), "has the shape 2x3x4x5; an image is"),
        (np.zeros(3), "has the shape 3; an image is"), (np.zeros(()), "a single number"),
        (np.zeros((0, 4)), "has the shape 0x4"), (np.zeros((2, 2), complex), "complex128"),
        (np.zeros((2, 2), bool), "type bool"), (np.full((2, 2), "a"), "real numbers"),
        (np.full((2, 2), {}, object), "Python objects, which could run code"),
    ],
    ids=["blocks", "row", "number", "empty", "complex", "bool", "text", "objects"],
)  # fmt: skip
def test_arrays_that_are_no_image_are_one_sentence(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ImageError, match=message) as caught:
        read_photo(tmp_path / "a.npy")
    assert "a.npy" in str(caught.value) and "\n" not in str(caught.value)


def test_an_array_cannot_ask_for_more_memory_than_it_fills(tmp_path, monkeypatch):
    held = io.BytesIO()
    np.save(held, np.zeros((2, 2)))
    data = held.getvalue().replace(b"(2, 2)", b"(2**9)").replace(b"(2**9)", b"(9, 9)")
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ImageError, match="needs 648 bytes, but there are 32"):
        read_photo(tmp_path / "a.npy")
    monkeypatch.setenv("ZOO_MAX_PIXELS", "1000")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        zeros = io.BytesIO()
        np.save(zeros, np.zeros((300, 300)))
        file.writestr("image.npy", zeros.getvalue())
    with pytest.raises(ImageError, match="too many for the limit of 1,000 pixels"):
        read_photo(tmp_path / "a.npz")
    put(tmp_path / "a.mat", np.zeros((300, 300)))
    with pytest.raises(ImageError, match="ZOO_MAX_PIXELS"):
        read_photo(tmp_path / "a.mat")
    put(tmp_path / "a.tif", np.zeros((300, 200, 5), np.float32))
    with pytest.raises(ImageError, match=r"has 200x300 pixels of 20 bytes, .* ZOO_MAX_PIXELS"):
        read_photo(tmp_path / "a.tif")


def test_the_image_of_a_file_of_several_arrays_has_the_name_image(tmp_path):
    array = values((4, 5, 2), "uint16")
    np.savez(tmp_path / "a.npz", image=array, mask=np.zeros((4, 5)), scale=3)
    assert read_photo(tmp_path / "a.npz").color_HWC.shape == (4, 5, 2)
    np.savez(tmp_path / "a.npz", other=array, scale=3)
    assert read_photo(tmp_path / "a.npz").color_HWC.shape == (4, 5, 2)
    np.savez(tmp_path / "a.npz", other=array, mask=np.zeros((4, 5)))
    with pytest.raises(ImageError, match=r"has 2 arrays that may be the image \(mask, other\)"):
        read_photo(tmp_path / "a.npz")


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


def test_matlab_files_of_version_7_3_say_what_to_do(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(500))
    with pytest.raises(ImageError, match=r"version 7\.3, which is not read; in MATLAB, save it"):
        read_photo(tmp_path / "a.mat")


def test_a_damaged_matlab_file_is_told(tmp_path):
    path = put(tmp_path / "a.mat", values((20, 30), "uint8"))
    data = path.read_bytes()
    for wrong in (data[:140], data[:200], data[:128] + bytes(100)):
        path.write_bytes(wrong)
        with pytest.raises(ImageError, match=r"a\.mat'"):
            read_photo(path)
    big = data.replace((20).to_bytes(4, "little"), (2**30).to_bytes(4, "little"), 1)
    path.write_bytes(big)
    with pytest.raises(ImageError, match=r"declares .* more than the file can hold"):
        read_photo(path)


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


def test_arrays_of_a_folder_of_photographs_are_not_said_to_be_unreadable(tmp_path, caplog):
    write_photo(tmp_path / "in" / "a.png", Photo(values((4, 5, 3), "float32")))
    put(tmp_path / "in" / "labels.npy", np.zeros((4, 5)))
    (tmp_path / "in" / "notes.txt").write_text("")
    with caplog.at_level(logging.INFO):
        zoo.restore(Nearest(1, 3), tmp_path / "in", tmp_path / "out", progress=False)
    assert "skipped .npy files, as arrays beside photographs are: labels.npy" in caplog.text
    assert "skipped .txt files, which are not read: notes.txt" in caplog.text


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


def test_a_float_image_of_three_channels_becomes_a_picture(tmp_path):
    array = values((4, 5, 3), "float32") * 100
    path = put(tmp_path / "a.npy", array)
    write_photo(tmp_path / "a.png", read_photo(path, (0, 100)))
    found = read_photo(tmp_path / "a.png")
    assert found.bit_depth == 16
    np.testing.assert_allclose(found.color_HWC, array / 100, atol=0.6 / 65535)


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


def test_arrays_beside_photographs_are_left_out_and_said(tmp_path, caplog):
    write_photo(tmp_path / "a.png", Photo(values((4, 5, 3), "float32")))
    put(tmp_path / "labels.npy", np.zeros((4, 5)))
    with caplog.at_level(logging.INFO):
        assert list_photos(tmp_path) == [tmp_path / "a.png"]
    assert "1 files of arrays beside photographs are left out" in caplog.text
    zoo.restore(Nearest(1, 3), tmp_path, tmp_path / "out", progress=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    (tmp_path / "a.png").unlink()
    assert list_photos(tmp_path) == [tmp_path / "labels.npy"]


def test_training_keeps_floats_as_they_are_and_reads_them_again_alike(tmp_path):
    arrays = {f"{n}.npy": values((12, 12, 8), "float32", n) * 10_000 for n in range(2)}
    for name, array in arrays.items():
        put(tmp_path / name, array)
    for memory in (1.0, 0.0):  # kept, and read at each use
        photos = load_training_photos(tmp_path, memory=memory, value_range=(0, 10_000))
        data = PatchDataset(
            photos, degradation=Bicubic(scale=1, rounded=False), patch=4, channels=8,
            augment=False, length=4, seed=0,
        )  # fmt: skip
        _, clean = data[0]
        known = [torch.from_numpy(array / 10_000).permute(2, 0, 1) for array in arrays.values()]
        assert any(contains(image, clean) for image in known)


def contains(image_CHW, patch_CHW):
    side = patch_CHW.shape[1]
    windows = image_CHW.unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4)
    return bool(((windows - patch_CHW).abs().amax((2, 3, 4)) < 1e-6).any())


def test_bands_are_cut_into_files_with_the_values_that_they_had(tmp_path):
    array = values((10, 14, 5), "float32") * 9000
    (tmp_path / "in").mkdir()
    put(tmp_path / "in" / "a.tif", array)
    words = ["data", "prepare", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--size", "8"]
    assert main([*words, "--step", "6"]) == 2
    assert main([*words, "--step", "6", "--range", "0", "10000"]) == 0
    names = [path.name for path in sorted((tmp_path / "out").iterdir())]
    assert names == [f"a_s00{n}.npy" for n in range(1, 5)]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a_s004.npy"), array[2:, 6:], atol=1e-2)


def test_floats_have_16_bits_where_levels_are_needed():
    assert quantise(np.array([0, 0.5, 1.0]), 32).tolist() == [0, 32768, 65535]


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


def test_bicubic_rounds_to_8_bits_only_if_it_should():
    clean = torch.rand(2, 8, 8)
    rng = np.random.default_rng(0)
    rounded = Bicubic(scale=2)(clean, rng) * 255
    assert torch.equal(rounded, rounded.round())
    exact = Bicubic(scale=2, rounded=False)(clean, rng)
    assert (exact * 255 - (exact * 255).round()).abs().max() > 0.1
    torch.testing.assert_close(exact, rounded / 255, atol=1.2 / 255, rtol=0)  # rounded twice


def test_the_matlab_files_of_sidd_are_a_test_set(tmp_path):
    """(photos, blocks, H, W, 3), noisy and clean, in one file each."""
    clean, noisy = (values((2, 3, 6, 7, 3), "uint8", seed) for seed in (1, 2))
    folder = tmp_path / "SIDD"
    folder.mkdir()
    put(folder / "ValidationGtBlocksSrgb.mat", clean)
    put(folder / "ValidationNoisyBlocksSrgb.mat", noisy)
    images = find_test_set(tmp_path, "SIDD", None, 1)
    assert [image.name for image in images] == [f"{n:04d}" for n in range(6)]
    for number, image in enumerate(images):
        row, column = divmod(number, 3)
        for found, array in ((image.read_clean(), clean), (image.read_degraded(), noisy)):
            expected = torch.from_numpy(array[row, column]).permute(2, 0, 1) / 255
            torch.testing.assert_close(found, expected)
    put(folder / "ValidationNoisyBlocksSrgb.mat", noisy[:1])
    with pytest.raises(ImageError, match=r"holds 6 images and .* 3; give files that belong"):
        find_test_set(tmp_path, "SIDD", None, 1)
    with pytest.raises(ImageError, match="0 arrays of blocks"):
        blocks_of(put(tmp_path / "a.mat", np.zeros((3, 3))))


def test_a_range_also_holds_in_memory():
    photo = Photo(np.array([[[0.2, 0.6]]], np.float32), bit_depth=16)
    found = in_range(Path("a"), photo, (0, 32767.5))
    np.testing.assert_allclose(found.color_HWC, [[[0.4, 1.0]]], rtol=1e-6)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_a_range_of_more_levels_than_the_output_is_shown_from_black_to_white(
    tmp_path, suffix, caplog
):
    """12 bits became the 8 highest of 16: nearly black."""
    levels = np.full((16, 16, 3), 4095, np.uint16)
    levels[:8] = 0
    path = put(tmp_path / "a.npy", levels)
    zoo.restore(Nearest(), path, tmp_path / f"b{suffix}", value_range=(0, 4095), progress=False)
    found = cv2.imread(str(tmp_path / f"b{suffix}"))
    assert found[:8].max() < 9 and found[-8:].min() > 246
    assert f"16 bits become 8 bits, because {suffix} cannot hold it" in caplog.text


@pytest.mark.parametrize("suffix", [".webp", ".bmp"])
def test_lossless_refuses_to_lose_bits_and_alpha(tmp_path, suffix):
    deep = Photo(np.zeros((4, 4, 3), np.float32), bit_depth=16)
    with pytest.raises(ImageError, match="without loss: 16 bits become 8 bits"):
        write_photo(tmp_path / f"a{suffix}", deep, Saving(lossless=True))
    floats = Photo(np.zeros((4, 4, 3), np.float32), bit_depth=32)
    with pytest.raises(ImageError, match="without loss: floating-point values become 8 bits"):
        write_photo(tmp_path / f"a{suffix}", floats, Saving(lossless=True))
    with pytest.raises(ImageError, match="without loss: floating-point values become 16 bits"):
        write_photo(tmp_path / "a.png", floats, Saving(lossless=True))
    clear = Photo(np.zeros((4, 4, 3), np.float32), np.ones((4, 4), np.float32))
    if suffix == ".bmp":
        with pytest.raises(ImageError, match="without loss: alpha is dropped"):
            write_photo(tmp_path / f"a{suffix}", clear, Saving(lossless=True))
    write_photo(tmp_path / "a.png", deep, Saving(lossless=True))
    assert not (tmp_path / f"a{suffix}").exists()


def test_alpha_that_an_array_cannot_hold_is_said(tmp_path, caplog):
    photo = Photo(np.zeros((4, 4, 3), np.float32), np.ones((4, 4), np.float32))
    write_photo(tmp_path / "a.npy", photo)
    assert "alpha is dropped, because arrays have none" in caplog.text


def test_a_tiff_of_bands_is_turned_as_its_orientation_says(tmp_path):
    stored = values((4, 6, 2), "float32")
    path = put(tmp_path / "a.tif", stored, extratags=[(274, 3, 1, 6, True)])
    photo = read_photo(path)
    assert np.array_equal(photo.color_HWC, np.rot90(stored, -1))
    zoo.restore(Nearest(2, 2), path, tmp_path / "b.tif", progress=False)
    with tifffile.TiffFile(tmp_path / "b.tif") as written:
        tag = written.pages[0].tags.get(274)
        assert written.pages[0].shape[:2] == (12, 8) and (tag is None or tag.value == 1)


def test_another_range_than_that_of_the_weights_is_said(tmp_path, caplog):
    small = {"type": "single_image", "dim": 30, "depths": [1], "block": "rlmb"}

    def of_range(*stated):
        data = {"data": {"range": list(stated)}} if stated else {}
        return {"name": "a", "network": small, "train": data}

    zoo.save(zoo.build(of_range(0, 4095)), tmp_path / "a.safetensors")
    zoo.load(tmp_path / "a.safetensors", recipe=of_range(0, 4095))
    assert "data.range" not in caplog.text
    zoo.load(tmp_path / "a.safetensors", recipe=of_range())
    assert "was trained with data.range [0, 4095], but a, which is used, has None" in caplog.text


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_arrays_in_files_that_can_be_compressed_are(tmp_path, suffix):
    write_photo(tmp_path / f"a{suffix}", Photo(np.zeros((100, 100, 4), np.float32), None, 32))
    assert (tmp_path / f"a{suffix}").stat().st_size < 5_000  # of 160,000


def test_more_than_one_value_in_a_hundred_outside_the_range_is_said(caplog):
    values_N = np.linspace(0, 1, 100)
    for outside, said in ((1, False), (2, True)):
        given = values_N.copy()
        given[:outside] = -5
        assert scaled(Path("a"), given, (0.0, 1.0)).min() == 0
        assert ("a: 2 % of the values are outside (0.0, 1.0)" in caplog.text) == said
    assert caplog.text.count("outside") == 1


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


def test_texts_and_lines_of_numbers_beside_the_only_image_are_none(tmp_path):
    array = values((4, 5, 2), "uint16")
    np.savez(tmp_path / "a.npz", other=array, line=np.ones(2), scale=3)
    scipy_io.savemat(tmp_path / "a.mat", {"other": array, "note": "a text", "more": {"a": 1}})
    for suffix in ("npz", "mat"):
        assert read_photo(tmp_path / f"a.{suffix}").color_HWC.shape == (4, 5, 2)


def test_memory_is_that_of_the_values_and_of_their_copy_in_float32(tmp_path, monkeypatch):
    """1000 pixels are 20,000 bytes; a value takes 8 and 4, and an npy file has a head of 128."""
    monkeypatch.setenv("ZOO_MAX_PIXELS", "1000")
    for count, fits in ((1656, True), (1657, False)):
        np.save(tmp_path / "a.npy", np.zeros((1, count)))
        if fits:
            assert read_photo(tmp_path / "a.npy").color_HWC.shape == (1, count, 1)
            continue
        with pytest.raises(ImageError, match=r"1,657 values are too many .* 1,000 pixels, which"):
            read_photo(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", image=np.zeros((1, 900)), other=np.zeros((1, 900)))
    with pytest.raises(ImageError, match=r"900 values are too many .*; .* with numpy\.savez$"):
        read_photo(tmp_path / "a.npz")  # each alone is not
    np.savez(tmp_path / "a.npz", image=np.zeros((1, 900)))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as file:
        file.writestr("README", "no array")
    assert read_photo(tmp_path / "a.npz").color_HWC.shape == (1, 900, 1)


def test_a_damaged_npy_file_says_what_writes_it_again(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x09\0")
    with pytest.raises(ImageError, match=r"version \(9, 0\) .*; write it again with numpy\.save$"):
        read_photo(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".tif"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_of_a_network_that_has_diverged_are_not_written(tmp_path, suffix, wrong):
    """NaN would be taken for pixels without data."""
    array = values((4, 5, 2), "float32")
    array[1, 2, 0] = wrong
    with pytest.raises(ImageError, match="has NaN or infinite values; the network that made it"):
        write_photo(tmp_path / f"a{suffix}", Photo(array, bit_depth=32))
    assert list(tmp_path.iterdir()) == []


def test_the_range_of_a_test_set_is_that_of_its_levels_too(tmp_path):
    """12 bits in a file of 16; of guides it is that of floating-point values only."""
    levels = np.arange(48, dtype=np.uint16).reshape(6, 8) * 85
    for folder in ("HR", "input", "pan"):
        (tmp_path / "Set" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "Set" / folder / "a.png"), levels)
    [image] = find_test_set(tmp_path, "Set", None, 1, guides=["pan"], value_range=(0, 4095))
    for found in (image.read_clean(), image.read_degraded()):
        np.testing.assert_allclose(found[0].numpy(), levels / 4095, atol=1e-6)
    [guide] = image.read_guides()
    np.testing.assert_allclose(guide[..., 0], levels / 65535, atol=1e-6)


def test_bands_have_no_alpha_and_may_be_compressed_a_thousand_times(tmp_path):
    photo = Photo(np.zeros((4, 4, 3), np.float32), np.ones((4, 4), np.float32), 32)
    with pytest.raises(ImageError, match=r"a\.tif': bands have no alpha channel"):
        write_photo(tmp_path / "a.tif", photo)
    path = put(tmp_path / "b.tif", np.zeros((300, 300, 5), np.uint16), compression="zlib")
    assert path.stat().st_size < 10_000 and read_photo(path).color_HWC.shape == (300, 300, 5)


def test_arrays_of_matlab_have_the_class_that_they_have_there(tmp_path, monkeypatch):
    """Its files store whole numbers in fewer bytes, and SciPy returns those unless told."""
    path, seen, load = put(tmp_path / "a.mat", values((4, 5), "uint8")), [], scipy_io.loadmat

    def noted(*given, **options):
        seen.append(options)
        return load(*given, **options)

    monkeypatch.setattr(scipy_io, "loadmat", noted)
    read_photo(path)
    assert seen == [{"variable_names": ["found"], "mat_dtype": True}]


def test_an_array_of_matlab_may_be_as_much_larger_than_its_file_as_deflate_allows(monkeypatch):
    found = [("a", (4, 2580), "uint8"), ("b", (0, 7), "double"), ("c", (2, -1), "uint8")]
    monkeypatch.setattr(arrays, "_scipy", lambda *_: found)
    assert arrays.mat_shapes(Path("a.mat"), bytes(10)) == {"a": (4, 2580), "b": (0, 7)}
    found.append(("d", (10_321,), "uint8"))
    with pytest.raises(ImageError, match="'d' declares 10321 bytes, more than the file can hold"):
        arrays.mat_shapes(Path("a.mat"), bytes(10))


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


def test_an_archive_of_another_compression_than_numpys_is_refused(tmp_path):
    held = io.BytesIO()
    np.save(held, np.zeros((4, 4), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("image.npy", held.getvalue())
    with pytest.raises(ImageError, match="image has compression method 14; write it again"):
        read_photo(tmp_path / "a.npz")


@pytest.mark.parametrize("module", ["scipy", "tifffile"])
def test_what_to_install_is_said_of_what_is_missing(monkeypatch, module):
    missing = {"scipy": arrays.missing_mat, "tifffile": multiband.missing}[module]
    assert missing() == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else name)
    assert re.fullmatch(r"pip install .*", missing())


def test_blocks_are_the_array_of_four_dimensions_and_other_arrays_are_said(tmp_path):
    blocks = values((2, 3, 4, 5, 3), "uint8")
    scipy_io.savemat(tmp_path / "a.mat", {"photo": blocks[0, 0], "blocks": blocks})
    assert np.array_equal(blocks_of(tmp_path / "a.mat"), blocks.reshape(6, 4, 5, 3))
    scipy_io.savemat(tmp_path / "b.mat", {"image": blocks[0, 0], "other": np.zeros(3)})
    photo = read_photo(tmp_path / "b.mat")
    assert photo.dropped == ("the array 'other'",) and photo.color_HWC.shape == (4, 5, 3)


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
