"""Pixels without data: what marks them, band by band, from a file to its output."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import zoo
from tests.helpers.bands import KINDS, Remembers, get, marked, put, restored, values
from tests.helpers.networks import Nearest
from zoo.data import (
    Bicubic,
    Photo,
    load_training_photos,
    read_photo,
    tiff,
)
from zoo.data.testsets import find_test_set
from zoo.data.value_range import said_of_no_data, scaled
from zoo.errors import ImageError


class Constant(Nearest):
    """Returns one value."""

    value = 0.0

    def forward(self, image_BIHW):
        return torch.full_like(super().forward(image_BIHW), self.value)


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


def test_numbers_beyond_float32_are_no_data_and_not_a_warning_of_numpy(tmp_path):
    path = put(tmp_path / "a.npy", np.array([[1e300, 0.25], [0.5, -1e300]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo = read_photo(path)
    assert photo.no_data_HWC[..., 0].tolist() == [[True, False], [False, True]]


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
    assert tiff.directory((tmp_path / "b.tif").read_bytes()).entries[42113].number == 6


@pytest.mark.parametrize(
    ("count", "share"), [(1, "0.5"), (19, "9.5"), (20, "10"), (25, "12"), (199, "100")]
)
def test_a_share_without_data_has_two_digits(count, share):
    empty = np.zeros((200, 1, 1), bool)
    empty[:count] = True
    photo = Photo(np.zeros((200, 1, 1), np.float32), bit_depth=32, no_data_HWC=empty)
    assert said_of_no_data(photo).startswith(f"has {count} pixels without data ({share} %: NaN")


def test_values_outside_the_range_are_not_told_where_there_is_no_data(caplog):
    values = np.array([0.0, 5.0, 5.0, 1.0])
    outside = np.array([False, True, True, False])
    assert scaled(Path("a.npy"), values, (0, 1), outside).tolist() == [0, 1, 1, 1]
    assert not caplog.text
    scaled(Path("a.npy"), values, (0, 1), ~outside)
    assert "a.npy: 50 % of the values are outside (0, 1)" in caplog.text


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
    path = marked(tmp_path / "a.tif", array, "-1.7976931348623157e+308")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # NumPy's, of an overflow
        photo = read_photo(path)
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


@pytest.mark.parametrize(("suffix", "marks"), [(".png", False), (".tif", True), (".npy", True)])
def test_only_outputs_that_mark_no_data_are_said_to(tmp_path, caplog, suffix, marks):
    array = values((4, 5, 3), "float32")
    array[0, 0] = np.nan
    restored(Nearest(1, 3), put(tmp_path / "a.npy", array), suffix)
    assert ("the output has no data there either" in caplog.text) == marks
    assert (".png cannot mark pixels without data" in caplog.text) != marks


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_the_mark_of_a_tiff_is_nan_in_arrays(tmp_path, suffix):
    """Arrays have no tag that tells the mark, so it would be taken for data."""
    array = values((4, 5, 2), "float32")
    array[1, 2] = -9999
    found = get(restored(Nearest(1, 2), marked(tmp_path / "a.tif", array, "-9999"), suffix))
    assert np.isnan(found[1, 2]).all() and np.isnan(found).sum() == 2


def test_integers_of_arrays_cannot_mark_and_say_so(tmp_path, caplog):
    array = np.full((4, 5, 2), 9, np.uint16)
    array[1, 2] = 65535
    restored(Nearest(1, 2), marked(tmp_path / "a.tif", array, "65535"), ".npy")
    assert "integers of .npy cannot mark pixels without data" in caplog.text
    assert "has no data there either" not in caplog.text


def test_a_broken_number_is_no_mark_of_whole_ones(tmp_path):
    array = np.ones((4, 4, 2), np.uint8)
    assert read_photo(marked(tmp_path / "a.tif", array, "1.5")).no_data_HWC is None
    array[0, 0] = 2
    assert read_photo(marked(tmp_path / "b.tif", array, "2.0")).no_data_HWC.sum() == 2
