"""Image files of every mode, and what is said of those that are none."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.damage import put
from zoo.data.images import Photo, list_photos, read_photo, write_photo
from zoo.errors import ImageError, WriteError


def random_photo(channels=3, alpha=False, bit_depth=8, height=6, width=9):
    random = np.random.default_rng(channels + bit_depth)
    top = 2**bit_depth - 1
    planes = random.integers(0, top + 1, (height, width, 4)).astype(np.float32) / np.float32(top)
    return Photo(
        np.ascontiguousarray(planes[..., :channels]),
        np.ascontiguousarray(planes[..., 3]) if alpha else None,
        bit_depth,
    )


@pytest.mark.parametrize("extension", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize(("channels", "alpha"), [(1, False), (3, False), (3, True)])
def test_lossless_files_come_back_unchanged(
    tmp_path, caplog, extension, bit_depth, channels, alpha
):
    photo = random_photo(channels, alpha, bit_depth)
    if alpha and extension != ".png":
        # Colour under full transparency is not kept by the decoder.
        photo = Photo(photo.color_HWC, np.ones_like(photo.alpha_HW), bit_depth)
    path = tmp_path / f"foto ü{extension}"
    write_photo(path, photo)
    back = read_photo(path)
    assert back.bit_depth == bit_depth
    assert np.array_equal(back.color_HWC, photo.color_HWC)
    assert (back.alpha_HW is None) == (photo.alpha_HW is None)
    if alpha:
        assert np.array_equal(back.alpha_HW, photo.alpha_HW)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert not caplog.text  # nothing was lost


def test_gray_with_alpha_is_read_as_gray(tmp_path):
    # A one-row gray + alpha PNG, written by hand: OpenCV cannot write one.
    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 2, 1, 8, 4, 0, 0, 0)
    pixels = zlib.compress(bytes([0, 51, 255, 102, 0]))
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(data)
    photo = read_photo(tmp_path / "a.png")
    assert photo.color_HWC.shape == (1, 2, 1)
    np.testing.assert_allclose(photo.color_HWC[0, :, 0], [0.2, 0.4], atol=1e-6)
    np.testing.assert_allclose(photo.alpha_HW[0], [1, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.zeros((16, 24, 3), np.float32)
    upright[:8, :8] = 1  # a mark in the top left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    path = tmp_path / "photo.jpg"
    write_photo(path, Photo(np.ascontiguousarray(stored)))
    tiff = b"II*\0" + struct.pack("<IHHHIHH", 8, 1, 274, 3, 1, orientation, 0) + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    data = path.read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    path.write_bytes(data[:2] + segment + data[2:])
    found = read_photo(path).color_HWC
    assert found.shape == upright.shape
    np.testing.assert_allclose(found, upright, atol=0.1)


def test_jpeg_drops_alpha_with_a_warning(tmp_path, caplog):
    write_photo(tmp_path / "a.jpg", random_photo(3, alpha=True))
    assert "alpha" in caplog.text
    assert read_photo(tmp_path / "a.jpg").alpha_HW is None


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.JPG"])
def test_jpeg_files_are_those_of_the_encoder_at_quality_95(tmp_path, name):
    photo = random_photo(bit_depth=16, height=40, width=30)
    write_photo(tmp_path / name, photo)
    levels = np.floor(photo.color_HWC * 255 + 0.5).astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95]
    expected = cv2.imencode(".jpg", levels[..., ::-1], options)[1].tobytes()
    assert (tmp_path / name).read_bytes() == expected


def test_webp_files_lose_nothing_but_the_bits_beyond_eight(tmp_path):
    photo = random_photo(alpha=True, height=20, width=30)
    photo = Photo(photo.color_HWC, np.maximum(photo.alpha_HW, np.float32(1 / 255)))
    write_photo(tmp_path / "a.webp", photo)
    back = read_photo(tmp_path / "a.webp")
    assert np.array_equal(back.color_HWC, photo.color_HWC)
    assert np.array_equal(back.alpha_HW, photo.alpha_HW)
    write_photo(tmp_path / "b.webp", random_photo(bit_depth=16))
    assert read_photo(tmp_path / "b.webp").bit_depth == 8


def test_gray_with_alpha_is_written_as_colour_with_alpha(tmp_path):
    photo = random_photo(1, alpha=True)
    write_photo(tmp_path / "a.png", photo)
    back = read_photo(tmp_path / "a.png")
    assert np.array_equal(back.color_HWC, photo.color_HWC.repeat(3, axis=2))
    assert np.array_equal(back.alpha_HW, photo.alpha_HW)


def tiff(samples_HWC, extra_sample):
    """An uncompressed TIFF file, by hand: OpenCV writes no tag that says what alpha means."""
    height, width, channels = samples_HWC.shape
    bits = samples_HWC.dtype.itemsize * 8
    pixels = samples_HWC.astype(samples_HWC.dtype.newbyteorder("<")).tobytes()
    depths_at = 8 + len(pixels)
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, depths_at), (259, 3, 1, 1),
        (262, 3, 1, 2 if channels > 2 else 1), (273, 4, 1, 8), (277, 3, 1, channels),
        (278, 4, 1, height), (279, 4, 1, len(pixels)), (284, 3, 1, 1), (338, 3, 1, extra_sample),
    ]  # fmt: skip
    if channels == 2:
        tags[2] = (258, 3, 2, bits | bits << 16)
    depths = struct.pack(f"<{channels}H", *[bits] * channels)
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    start = depths_at + len(depths)
    return b"II*\0" + struct.pack("<I", start) + pixels + depths + directory + bytes(4)


@pytest.mark.parametrize("extra_sample", [1, 2])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_of_a_tiff_are_those_before_alpha_was_multiplied_in(tmp_path, extra_sample, dtype):
    """With tag 338 of 1 the file holds products, with 2 the colours themselves."""
    top = np.iinfo(dtype).max
    color, alpha = np.array([[[0.8, 0.4, 0.2], [0.3, 0.9, 0.6]]]), np.array([[0.5, 0.75]])
    stored = color * alpha[..., None] if extra_sample == 1 else color
    samples = np.round(np.dstack([stored, alpha]) * top).astype(dtype)
    (tmp_path / "a.tif").write_bytes(tiff(samples, extra_sample))
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_allclose(photo.alpha_HW, alpha, atol=1 / 255)
    np.testing.assert_allclose(photo.color_HWC, color, atol=3 / 255)


def test_colours_brighter_than_their_alpha_become_white_at_most(tmp_path):
    samples = np.array([[[200, 90, 10, 100], [255, 255, 255, 1]]], np.uint16) * 257
    (tmp_path / "a.tif").write_bytes(tiff(samples, 1))
    color = read_photo(tmp_path / "a.tif").color_HWC
    np.testing.assert_allclose(color, [[[1, 0.9, 0.1], [1, 1, 1]]], atol=1e-4)


def test_what_a_gray_tiff_loses_is_told(tmp_path, caplog):
    (tmp_path / "a.tif").write_bytes(tiff(np.full((3, 4, 2), 100, np.uint8), 2))
    photo = read_photo(tmp_path / "a.tif")
    assert photo.color_HWC.shape == (3, 4, 1) and photo.alpha_HW is None
    assert "alpha channel of a gray TIFF" in caplog.text


def test_a_write_that_fails_in_the_middle_leaves_the_old_image_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_photo(path, random_photo())
    before, write = path.read_bytes(), Path.write_bytes

    def half(self, data):
        write(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises((WriteError, OSError)):
        write_photo(path, random_photo(1))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_opencv_may_log_again_after_reading(tmp_path):
    level = cv2.utils.logging.LOG_LEVEL_WARNING
    cv2.utils.logging.setLogLevel(level)
    write_photo(tmp_path / "a.png", random_photo())
    read_photo(tmp_path / "a.png")
    assert cv2.utils.logging.getLogLevel() == level


def test_rounding_is_to_the_nearest_level_and_of_halves_upwards(tmp_path):
    values = np.array([-1, 0.49 / 255, 0.51 / 255, 254.6 / 255, 7, 0.5, 2.5 / 255], np.float32)
    write_photo(tmp_path / "a.png", Photo(values.reshape(1, 7, 1)))
    levels = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert levels.reshape(-1).tolist() == [0, 0, 1, 255, 255, 128, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.png", b"this is no image\n" * 9, "cannot be decoded"),
        ("empty.png", b"", "is empty"),
        (None, None, "does not exist"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message):
    path = tmp_path / (name or "missing.png")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as error:
        read_photo(path)
    assert path.name in str(error.value)


def test_a_folder_a_truncated_file_and_floats_are_refused(tmp_path):
    with pytest.raises(ImageError, match="is a folder"):
        read_photo(tmp_path)
    write_photo(tmp_path / "a.png", random_photo(height=64, width=64))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[:40])
    with pytest.raises(ImageError, match="cut short"):
        read_photo(tmp_path / "cut.png")
    cv2.imwrite(str(tmp_path / "f.tiff"), np.full((3, 3), 255, np.float32))
    with pytest.raises(ImageError, match="values from 255 to 255; state which values"):
        read_photo(tmp_path / "f.tiff")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("dangling link", "is a link to a missing file"), ("link to itself", "cannot be read"),
        ("pipe", "is a pipe or a device"), ("folder", "is a folder"),
    ],
)  # fmt: skip
def test_other_things_at_the_path_of_an_image(tmp_path, place, message):
    put(tmp_path / "a.png", b"", place)
    with pytest.raises(ImageError, match=message):
        read_photo(tmp_path / "a.png")
    write_photo(tmp_path / "b.png", random_photo())
    names = ["b.png"] if place == "folder" else ["a.png", "b.png"]
    assert [path.name for path in list_photos(tmp_path)] == names


def test_what_is_too_large_for_the_memory_is_one_sentence(tmp_path, monkeypatch):
    write_photo(tmp_path / "a.png", random_photo())

    def full(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("zoo.data.raster.dequantise", full)
        with pytest.raises(ImageError, match="is larger than the free memory"):
            read_photo(tmp_path / "a.png")
    with (tmp_path / "a.png").open("r+b") as file:
        file.truncate(2**33 + 1)  # takes no space on the disk
    with pytest.raises(ImageError, match=r"has 8589934593 bytes, and at most \d+ can be right"):
        read_photo(tmp_path / "a.png")


def test_other_formats_are_not_decoded_whatever_their_names(tmp_path):
    for extension, start in ((".ppm", b"P6"), (".hdr", b"#?RADIANCE")):
        pixels = np.ones((4, 4, 3), np.float32 if extension == ".hdr" else np.uint8)
        data = cv2.imencode(extension, pixels)[1].tobytes()
        assert data.startswith(start)
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(ImageError, match=r"its content is none of \.avif, \.bmp, "):
            read_photo(tmp_path / "a.png")


@pytest.mark.parametrize("path", ["a\0.png", "a" * 300 + ".png"])
def test_paths_that_cannot_exist(path):
    with pytest.raises(ImageError, match=r"null character|File name too long"):
        read_photo(path)


def test_writing_where_one_cannot_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"a\.png: cannot write: Not a directory"):
        write_photo(tmp_path / "file" / "a.png", random_photo())
    with pytest.raises(ImageError, match="extension"):
        write_photo(tmp_path / "a.xyz", random_photo())
    with pytest.raises(ImageError, match="NaN"):
        write_photo(tmp_path / "a.png", Photo(np.full((2, 2, 1), np.nan, np.float32)))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folders_are_listed_in_natural_order(tmp_path):
    for name in ("b10.png", "b9.PNG", "a.jpg", "note.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_photos(tmp_path)] == ["a.jpg", "b9.PNG", "b10.png"]
    with pytest.raises(ImageError, match="does not exist"):
        list_photos(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no image"):
        list_photos(tmp_path / "empty")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 3), np.int32), "has int32 samples, whose range is not defined"),
        (np.zeros((2, 3, 2), np.uint8), "has 2 channels; only gray and RGB"),
        (np.zeros((2, 3, 5), np.uint8), "has 5 channels; only gray and RGB"),
    ],
    ids=["numbers", "two", "five"],
)
def test_samples_that_are_no_photograph_are_refused(tmp_path, monkeypatch, samples, message):
    """Whatever a decoder makes of a file."""
    write_photo(tmp_path / "a.png", random_photo())
    monkeypatch.setattr("zoo.data.raster.decode", lambda *_: samples)
    with pytest.raises(ImageError, match=rf"a\.png' {message}"):
        read_photo(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        ({"color_HWC": np.zeros((2, 3), np.float32)}, r"must have shape \(H, W, C\), not \(2, 3\)"),
        ({"color_HWC": np.zeros((2, 0, 3), np.float32)}, r"must have shape .*, not \(2, 0, 3\)"),
        ({"color_HWC": np.zeros((2, 3, 1))}, r"must be float32 in \[0, 1\], not float64"),
        ({"alpha_HW": np.zeros((2, 3))}, r"must be float32 in \[0, 1\], not float64"),
        ({"alpha_HW": np.zeros((3, 2), np.float32)}, r"alpha of shape \(2, 3\), not \(3, 2\)"),
        ({"no_data_HWC": np.zeros((2, 3), bool)}, r"marks of the same shape, not \(2, 3\)"),
        ({"bit_depth": 10}, "has 8, 16 or 32 bits per sample, not 10"),
    ],
)
def test_a_photo_of_a_wrong_shape_or_kind_is_refused(planes, message):
    with pytest.raises(ImageError, match=message):
        Photo(**{"color_HWC": np.zeros((2, 3, 1), np.float32), **planes})
