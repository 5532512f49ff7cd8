"""What is read from an image file's own bytes: orientation, alpha, what pixels depend on."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from zoo.data import headers, tiff
from zoo.data.images import read_photo
from zoo.data.metadata import read_metadata


def orientation(data):
    return read_metadata(data).orientation


def exif(orientation, endian="<"):
    mark = b"II*\0" if endian == "<" else b"MM\0*"
    # Another tag comes first, and its value would be an orientation too.
    tags = struct.pack(f"{endian}HHIHH", 256, 3, 1, 5, 0)
    tags += struct.pack(f"{endian}HHIHH", 274, 3, 1, orientation, 0)
    return mark + struct.pack(f"{endian}IH", 8, 2) + tags + bytes(4)


def png_chunk(name, data):
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_with(*chunks):
    """A small PNG file with more chunks behind its header."""
    data = cv2.imencode(".png", np.zeros((2, 3, 3), np.uint8))[1].tobytes()
    return data[:33] + b"".join(chunks) + data[33:]


def riff(*chunks):
    parts = [
        name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks
    ]
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg(*segments):
    parts = [marker + struct.pack(">H", len(data) + 2) + data for marker, data in segments]
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xda\0\2"


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("value", [3, 8])
def test_the_orientation_is_found_in_every_format(endian, value):
    block = exif(value, endian)
    other = (b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\0" + exif(2))
    for data in (
        jpeg((b"\xff\xe0", b"JFIF\0"), other, (b"\xff\xe1", b"Exif\0\0" + block)),
        png_with(png_chunk(b"tEXt", b"a\0b"), png_chunk(b"eXIf", block)),
        riff((b"VP8X", bytes(10)), (b"ICCP", b"odd"), (b"EXIF", block)),
        riff((b"VP8X", bytes(10)), (b"EXIF", b"Exif\0\0" + block)),
    ):
        assert orientation(data) == value


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_out_of_range_is_none(value):
    assert orientation(png_with(png_chunk(b"eXIf", exif(value)))) == 1


@pytest.mark.parametrize("data", [b"", b"RIFF", b"\xff\xd8\xff\xe1\0", exif(3)[:9]])
def test_bytes_that_end_early_or_are_no_such_file_are_upright(data):
    assert orientation(data) == 1
    assert tiff.value(data[:9], 274) is None


def test_metadata_is_left_out_and_what_pixels_depend_on_is_kept():
    data = png_with()
    more = png_with(png_chunk(b"iCCP", b"broken"), png_chunk(b"eXIf", exif(3)))
    assert headers.without_png_metadata(more) == data == headers.without_png_metadata(data)
    kept = png_with(png_chunk(b"PLTE", b"abc"), png_chunk(b"tRNS", b"a"))
    assert headers.without_png_metadata(kept) == kept
    assert headers.without_png_metadata(b"no PNG") == b"no PNG"


@pytest.mark.parametrize("cut", [1, 4, 12, 13])
def test_a_png_without_its_whole_end_is_cut_short(cut):
    data = png_with()
    assert not headers.is_cut_short(data) and headers.is_cut_short(data[:-cut])


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_without_its_end_is_cut_short(progressive):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", pixels, options)[1].tobytes()
    # Cameras write more behind the end, and a small picture with its own end before the image.
    thumbnail = b"\xff\xe1\0\x09Exif\xff\xd8\xff\xd9\0"
    for whole in (
        data,
        data + b"more",
        data[:2] + thumbnail + data[2:],
        data[:2] + b"?\xff" + data[2:],
    ):
        assert not headers.is_cut_short(whole)
    for cut in (1, 2, len(data) // 2, len(data) - 3):
        assert headers.is_cut_short(data[:-cut])
    assert headers.is_cut_short(b"\xff\xd8\xff\xd9")


def test_a_size_that_the_bytes_cannot_fill_is_cut_short():
    """Otherwise the decoder reserves gigabytes, or fills an image of minutes with gray."""
    header = struct.pack(">IIBBBBB", 2**14, 2**14, 16, 6, 0, 0, 0)  # 2 GiB
    rows = zlib.compress(bytes(1000))
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(*each) for each in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
    assert headers.is_cut_short(bomb)
    data = cv2.imencode(".jpg", np.zeros((256, 256), np.uint8))[1].tobytes()
    assert not headers.is_cut_short(data)
    at = data.index(b"\xff\xc0") + 5
    assert headers.is_cut_short(data[:at] + struct.pack(">HH", 20_000, 20_000) + data[at + 4 :])


def test_the_emptiest_images_are_not_cut_short():
    for pixels in (np.zeros((2000, 3000), np.uint8), np.zeros((2000, 3000, 4), np.uint16)):
        assert not headers.is_cut_short(cv2.imencode(".png", pixels)[1].tobytes())
    for progressive in (0, 1):
        options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        small = cv2.imencode(".jpg", np.full((2000, 3000), 128, np.uint8), options)[1]
        assert not headers.is_cut_short(small.tobytes())


def test_transparent_colours_of_a_palette_are_read(tmp_path):
    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header), (b"PLTE", bytes([255, 0, 0, 0, 0, 255])), (b"tRNS", bytes([51])),
        (b"IDAT", zlib.compress(bytes([0, 0, 1]))), (b"IEND", b""),
    )  # fmt: skip
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    (tmp_path / "a.png").write_bytes(data)
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_allclose(photo.alpha_HW, [[0.2, 1]], atol=1e-6)
    np.testing.assert_allclose(photo.color_HWC[0], [[1, 0, 0], [0, 0, 1]])
