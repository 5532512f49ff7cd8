"""Images that are no photographs: any channels, floating point, ranges, pixels without data."""

from __future__ import annotations

import io
import itertools
import logging
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import tifffile
import torch

import zoo
from tests.helpers.networks import Nearest
from zoo.cli import main
from zoo.data import (
    Bicubic,
    Jpeg,
    PatchDataset,
    Photo,
    list_photos,
    load_training_photos,
    read_photo,
    write_photo,
)
from zoo.data.arrays import blocks_of
from zoo.data.multiband import is_multiband
from zoo.data.pixels import quantise
from zoo.data.testsets import find_test_set
from zoo.data.value_range import check_range, in_range, range_of
from zoo.errors import ImageError, RecipeError
from zoo.inference import restore_photo
from zoo.recipe import Recipe

KINDS = {"uint8": 255, "uint16": 65535, "float32": 1}
"""Types that files keep, with the value that is 1."""


def values(shape, kind, seed=0):
    """Random values of a type, over its whole range."""
    random = np.random.default_rng(seed)
    if kind == "float32":
        return random.random(shape, np.float32)
    return random.integers(0, KINDS[kind] + 1, shape).astype(kind)


def put(path, array, **options):
    """Write an array with the usual library of its format, not with ours."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, array)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"found": array})
    else:
        shape = {"photometric": "minisblack", "metadata": None}
        if array.ndim == 3:
            shape["planarconfig"] = "contig"
        tifffile.imwrite(path, array, **{**shape, **options})
    return path


def get(path):
    """Read an array with the usual library of its format."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".npz":
        return np.load(path)["image"]
    if path.suffix == ".mat":
        return scipy.io.loadmat(path)["image"]
    if not is_multiband(path.read_bytes()):  # compressed as photographs are
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return tifffile.imread(path)


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


class Remembers(Nearest):
    """Keeps what it is given."""

    def forward(self, image_BIHW):
        self.seen = image_BIHW
        return super().forward(image_BIHW)


def test_the_range_of_the_training_is_used_unless_another_is_given(tmp_path):
    path = put(tmp_path / "a.npy", np.full((4, 4), 50.0))
    network = Remembers(1, 1)
    network.recipe = trained_with({"range": [0, 100]})
    zoo.restore(network, path, tmp_path / "b.npy", progress=False)
    assert network.seen.unique().tolist() == [0.5]
    zoo.restore(network, path, tmp_path / "c.npy", value_range=(0, 200), progress=False)
    assert network.seen.unique().tolist() == [0.25]
    assert np.load(tmp_path / "c.npy").max() == 50


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
@pytest.mark.parametrize("empty", [np.nan, np.inf, -np.inf])
def test_pixels_without_data_are_said_and_stay_so(tmp_path, caplog, suffix, empty):
    """The network sees the nearest values, or one NaN would spread over the whole image."""
    array = values((6, 6, 3), "float32")
    array[2, 3, 1] = empty
    path = put(tmp_path / f"a{suffix}", array)
    network = Remembers(2, 3)
    with caplog.at_level(logging.WARNING):
        zoo.restore(network, path, tmp_path / f"b{suffix}", progress=False)
    assert f"a{suffix} has 1 pixels without data (2.8 %" in caplog.text
    assert torch.isfinite(network.seen).all()
    assert network.seen[0, 1, 2, 3].item() in array[1:4, 2:5, 1].reshape(-1).tolist()
    found = get(tmp_path / f"b{suffix}")
    expected = np.where(np.isfinite(array), array, np.nan).repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # the other bands keep their values


def test_the_mark_of_no_data_in_a_geotiff_is_heeded_and_kept(tmp_path):
    array = values((6, 6, 4), "uint16")
    array[0, 0] = 65535
    array[array == 65535] = 65534
    array[0, 0] = 65535
    path = put(tmp_path / "a.tif", array, extratags=[(42113, 2, 6, "65535", False)])
    photo = read_photo(path)
    assert photo.no_data_HWC.sum() == 4 and photo.no_data_HWC[0, 0].all()
    assert photo.no_data == 65535
    zoo.restore(Nearest(2, 4), path, tmp_path / "b.tif", progress=False)
    again = read_photo(tmp_path / "b.tif")
    assert again.no_data_HWC.sum() == 16 and (get(tmp_path / "b.tif")[:2, :2] == 65535).all()


def marked(path, array, mark, **options):
    """Write a GeoTIFF with a mark of pixels without data, as GDAL does."""
    return put(path, array, extratags=[(42113, 2, len(mark) + 1, mark, False)], **options)


def restored(network, path, suffix=".tif"):
    output = path.with_name(f"out{suffix}")
    zoo.restore(network, path, output, progress=False, overwrite=True)
    return output


def test_each_band_is_marked_by_itself(tmp_path, caplog):
    array = values((6, 6, 4), "uint16") // 2 + 1
    array[..., 1] = 0  # no data at all
    array[2, 3, 2] = 0
    network = Remembers(2, 4)
    output = restored(network, marked(tmp_path / "a.tif", array, "0"))
    np.testing.assert_array_equal(get(output), array.repeat(2, 0).repeat(2, 1))
    assert "has 36 pixels without data (100 %" in caplog.text
    assert "; other bands have data there)" in caplog.text
    seen_HWC = network.seen[0].permute(1, 2, 0).numpy()
    assert seen_HWC[2, 3, 2] > 0 and (seen_HWC[..., 1] == 0).all()
    again = read_photo(output).no_data_HWC
    np.testing.assert_array_equal(again, (array == 0).repeat(2, 0).repeat(2, 1))


def test_a_colour_is_without_data_where_all_its_channels_are(tmp_path):
    """Pure red has two channels of 0, the usual mark."""
    array = np.full((5, 5, 3), 90, np.uint8)
    array[0, 0], array[1, 1] = (255, 0, 0), (0, 0, 0)
    path = marked(tmp_path / "a.tif", array, "0", photometric="rgb")
    photo = read_photo(path)
    assert np.argwhere(photo.no_data_HWC.any(axis=2)).tolist() == [[1, 1]]
    output = restored(Nearest(1, 3), path)
    np.testing.assert_array_equal(get(output), array)
    with tifffile.TiffFile(output) as file:
        assert file.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
        assert not file.pages.first.extrasamples


def test_float_colours_stay_colours_and_bands_stay_bands(tmp_path):
    for kind, photometric in itertools.product(("float32", "uint8"), ("rgb", "minisblack")):
        path = put(tmp_path / "a.tif", values((4, 5, 3), kind), photometric=photometric)
        with tifffile.TiffFile(restored(Nearest(1, 3), path)) as file:
            assert file.pages.first.photometric.name.lower() == photometric, kind


class Constant(Nearest):
    """Returns one value."""

    value = 0.0

    def forward(self, image_BIHW):
        return torch.full_like(super().forward(image_BIHW), self.value)


@pytest.mark.parametrize(
    ("kind", "mark", "beside"), [("uint8", 0, 1), ("uint16", 65535, 65534), ("float32", 1, None)]
)
def test_an_output_that_equals_the_mark_is_not_taken_for_no_data(tmp_path, kind, mark, beside):
    array = np.full((4, 4, 2), 0.5 if kind == "float32" else 9, kind)
    array[0, 0] = mark
    network = Constant(1, 2)
    network.value = mark / KINDS[kind]
    output = restored(network, marked(tmp_path / "a.tif", array, str(mark)))
    np.testing.assert_array_equal(read_photo(output).no_data_HWC, array == mark)
    beside = np.nextafter(np.float32(1), np.float32(0)) if beside is None else beside
    assert get(output)[3, 3].tolist() == [beside, beside]


@pytest.mark.parametrize("mark", ["-3.4028234663852886e+38", "-3.40282346638529e+38"])
def test_the_usual_float_marks_are_heeded(tmp_path, mark):
    array = values((4, 4, 2), "float32")
    array[1, 1] = np.finfo(np.float32).min
    photo = read_photo(marked(tmp_path / "a.tif", array, mark))
    np.testing.assert_array_equal(photo.no_data_HWC, array < 0)
    found = get(restored(Nearest(1, 2), tmp_path / "a.tif"))
    np.testing.assert_allclose(found, array, rtol=1e-6)


@pytest.mark.parametrize("mark", ["-9999", "abc", "1.5", "1e400", "70000", "nan", ""])
@pytest.mark.parametrize("kind", ["uint16", "uint8", "float32"])
def test_a_mark_that_no_value_can_equal_has_no_effect(tmp_path, mark, kind):
    array = values((4, 4, 2), kind)
    photo = read_photo(marked(tmp_path / "a.tif", array, mark))
    assert photo.no_data_HWC is None
    np.testing.assert_allclose(photo.color_HWC, array / KINDS[kind], rtol=1e-6)


def test_a_mark_beyond_float32_becomes_nan(tmp_path):
    array = np.full((4, 4), 0.5)
    array[0, 0] = -1.7976931348623157e308
    photo = read_photo(marked(tmp_path / "a.tif", array, "-1.7976931348623157e+308"))
    assert photo.no_data_HWC.sum() == 1 and photo.no_data is None
    assert np.isnan(get(restored(Nearest(1, 1), tmp_path / "a.tif"))).sum() == 1


def test_an_image_without_any_data_is_refused(tmp_path):
    path = put(tmp_path / "a.npy", np.full((3, 3), np.nan))
    with pytest.raises(ImageError, match="no pixel with data"):
        read_photo(path)


def test_training_and_scores_refuse_pixels_without_data(tmp_path):
    array = values((8, 8, 2), "float32")
    array[0, 0, 0] = np.nan
    (tmp_path / "set").mkdir()
    put(tmp_path / "set" / "a.npy", array)
    with pytest.raises(ImageError, match=r"a\.npy' has 1 pixels without data .*cut them off first"):
        load_training_photos(tmp_path / "set")
    [image] = find_test_set(tmp_path, "set", Bicubic(scale=1), 1)
    with pytest.raises(ImageError, match="has 1 pixels without data"):
        image.read_clean()


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
    put(tmp_path / "a.tif", np.zeros((300, 300, 5), np.float32))
    with pytest.raises(ImageError, match="ZOO_MAX_PIXELS"):
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


@pytest.mark.parametrize("damage", ["cut", "empty strip", "declared"])
def test_a_damaged_tiff_of_bands_is_told(tmp_path, damage):
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
    with pytest.raises(ImageError, match=r"a\.tif' (is damaged|cannot be read|has .* pixels)"):
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
    with pytest.raises(ImageError, match=r"pip install imagecodecs|cannot be read|is damaged"):
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


@pytest.mark.parametrize(("suffix", "marks"), [(".png", False), (".tif", True), (".npy", True)])
def test_only_outputs_that_mark_no_data_are_said_to(tmp_path, caplog, suffix, marks):
    array = values((4, 5, 3), "float32")
    array[0, 0] = np.nan
    restored(Nearest(1, 3), put(tmp_path / "a.npy", array), suffix)
    assert ("the output has no data there either" in caplog.text) == marks
    assert (".png cannot mark pixels without data" in caplog.text) != marks


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
    with pytest.raises(RecipeError, match="Jpeg degrades gray and RGB photographs only"):
        PatchDataset(photos, degradation=Jpeg(scale=1, quality=50), channels=4, **options)


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
