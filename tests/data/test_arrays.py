"""Images in files of NumPy and MATLAB: which array is the image, damage, memory."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io as scipy_io
import torch

import zoo
from tests.helpers.bands import put, values
from tests.helpers.networks import Nearest
from zoo.data import Photo, arrays, list_photos, read_photo, write_photo
from zoo.data.arrays import blocks_of
from zoo.data.testsets import find_test_set
from zoo.errors import ImageError


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


def test_arrays_of_a_folder_of_photographs_are_not_said_to_be_unreadable(tmp_path, caplog):
    write_photo(tmp_path / "in" / "a.png", Photo(values((4, 5, 3), "float32")))
    put(tmp_path / "in" / "labels.npy", np.zeros((4, 5)))
    (tmp_path / "in" / "notes.txt").write_text("")
    with caplog.at_level(logging.INFO):
        zoo.restore(Nearest(1, 3), tmp_path / "in", tmp_path / "out", progress=False)
    assert "skipped .npy files, as arrays beside photographs are: labels.npy" in caplog.text
    assert "skipped .txt files, which are not read: notes.txt" in caplog.text


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


def test_alpha_that_an_array_cannot_hold_is_said(tmp_path, caplog):
    photo = Photo(np.zeros((4, 4, 3), np.float32), np.ones((4, 4), np.float32))
    write_photo(tmp_path / "a.npy", photo)
    assert "alpha is dropped, because arrays have none" in caplog.text


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_arrays_in_files_that_can_be_compressed_are(tmp_path, suffix):
    write_photo(tmp_path / f"a{suffix}", Photo(np.zeros((100, 100, 4), np.float32), None, 32))
    assert (tmp_path / f"a{suffix}").stat().st_size < 5_000  # of 160,000


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


def test_an_archive_of_another_compression_than_numpys_is_refused(tmp_path):
    held = io.BytesIO()
    np.save(held, np.zeros((4, 4), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("image.npy", held.getvalue())
    with pytest.raises(ImageError, match="image has compression method 14; write it again"):
        read_photo(tmp_path / "a.npz")


def test_blocks_are_the_array_of_four_dimensions_and_other_arrays_are_said(tmp_path):
    blocks = values((2, 3, 4, 5, 3), "uint8")
    scipy_io.savemat(tmp_path / "a.mat", {"photo": blocks[0, 0], "blocks": blocks})
    assert np.array_equal(blocks_of(tmp_path / "a.mat"), blocks.reshape(6, 4, 5, 3))
    scipy_io.savemat(tmp_path / "b.mat", {"image": blocks[0, 0], "other": np.zeros(3)})
    photo = read_photo(tmp_path / "b.mat")
    assert photo.dropped == ("the array 'other'",) and photo.color_HWC.shape == (4, 5, 3)
