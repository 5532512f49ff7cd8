"""What is read from an image file's own bytes: orientation, alpha, what pixels depend on."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from zoo.data import headers, tiff
from zoo.data.containers import jpeg_segments, png_chunks, riff_chunks
from zoo.data.images import read_photo
from zoo.data.metadata import read_metadata
from zoo.errors import ImageError


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


def test_a_png_that_is_whole_but_says_no_size_is_cut_short():
    for length in (0, 5, 6):  # up to 26 bytes, of which the last says the kind of colours
        data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IEND", bytes(length))
        assert headers.is_cut_short(data) == (len(data) < 26)


@pytest.mark.parametrize(
    ("width", "height", "bits", "kind", "size"),
    [
        (1, 1032, 1, 0, 1032), (1032 * 8, 1, 1, 0, 1032), (9, 516, 1, 0, 1032),
        (43, 8, 8, 2, 1032), (43, 4, 16, 2, 1032), (129, 2, 8, 6, 1032), (129, 4, 8, 4, 1032),
    ],
)  # fmt: skip
def test_a_png_may_be_a_thousand_times_larger_than_its_data(width, height, bits, kind, size):
    def cut(height):
        head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
        parts = ((b"IHDR", head), (b"IDAT", b"1"), (b"IEND", b""))
        chunks = b"".join(png_chunk(*part) for part in parts)
        return headers.is_cut_short(b"\x89PNG\r\n\x1a\n" + chunks)

    assert not cut(height) and cut(height + 1)


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


def test_a_jpeg_has_at_most_200_passes():
    for number in (1, 200, 201):
        data = jpeg(*[(b"\xff\xda", bytes(10))] * (number - 1)) + b"\xff\xd9"
        assert headers.is_cut_short(data) == (number > 200)


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


@pytest.mark.parametrize("marker", range(0xC0, 0xD0))
def test_the_size_of_a_jpeg_is_in_the_header_of_its_kind_and_in_no_table(marker):
    """Of 16 markers, three are tables or reserved, which may come before the header."""
    header = struct.pack(">BHHB", 8, 5, 301, 3) + bytes(9)
    data = jpeg((b"\xff" + bytes([marker]), header))
    is_table = marker in (0xC4, 0xC8, 0xCC)
    assert (headers.size(data) is None) == is_table
    table = (b"\xff" + bytes([marker]), struct.pack(">BHHB", 0, 2000, 3000, 1) + bytes(9))
    data = jpeg(table, (b"\xff\xc0", header))
    assert headers.size(data) == ((301, 5) if is_table else (3000, 2000))


@pytest.mark.parametrize("marker", [0x01, 0xD0, 0xD7, 0xD8])
def test_markers_without_a_length_hide_nothing(marker):
    header = struct.pack(">BHHB", 8, 5, 301, 3) + bytes(9)
    data = jpeg((b"\xff\xc0", header))
    assert headers.size(data[:2] + b"\xff" + bytes([marker]) + data[2:]) == (301, 5)


def whole_files():
    pixels = np.arange(5 * 30 * 3, dtype=np.uint8).reshape(5, 30, 3)
    files = {
        name: cv2.imencode(name, pixels)[1].tobytes()
        for name in (".png", ".jpg", ".bmp", ".tif", ".webp")
    }
    files["gray"] = cv2.imencode(".png", pixels[..., 0])[1].tobytes()
    files["lossy"] = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 50])[1].tobytes()
    colours = io.BytesIO()
    Image.fromarray(pixels).save(
        colours, "GIF", save_all=True, append_images=[Image.new("L", (30, 5))]
    )
    files["gif"] = colours.getvalue()
    return files


@pytest.mark.parametrize("name", [".png", ".jpg", ".bmp", ".tif", ".webp", "gray", "lossy", "gif"])
def test_files_that_end_anywhere_say_what_they_can(name):
    """No function fails; the decoder is to say what is wrong."""
    data = whole_files()[name]
    for end in range(len(data) + 1):
        cut = data[:end]
        assert headers.size(cut) in (None, (30, 5))
        assert headers.frames(cut) in (1, 2)
        assert headers.is_cut_short(cut) in (True, False)
        assert headers.transparent_level(cut) is None
        assert headers.is_gray_png(cut) == (name == "gray" and end > 25)
        assert headers.inks(cut) == headers.undecodable(cut) == ""
        assert read_metadata(cut).orientation == 1
    assert headers.size(data) == (30, 5) and headers.frames(data) == 1 + (name == "gif")


def test_the_size_of_the_oldest_bitmaps_is_read(tmp_path):
    """Their header has 12 bytes, and numbers of 16 bits. OpenCV makes gray of their colours."""
    head = b"BM" + struct.pack("<IIIIHHHH", 26 + 5 * 24, 0, 26, 12, 7, 5, 1, 24)
    (tmp_path / "a.bmp").write_bytes(head + bytes([10, 20, 30] * 7 + [0] * 3) * 5)
    assert headers.size(head) == (7, 5)
    large = head[:18] + struct.pack("<HH", 1000, 1000) + head[22:]
    assert not headers.is_cut_short(large + b"\1" * 40)  # it says nothing of compression
    with pytest.raises(ImageError, match=r"a\.bmp' has colours behind a header of OS/2, which"):
        read_photo(tmp_path / "a.bmp")
    gray = b"BM" + struct.pack("<IIIIHHHH", 794 + 5 * 8, 0, 794, 12, 7, 5, 1, 8)
    palette = bytes(level for level in range(256) for _ in range(3))
    (tmp_path / "b.bmp").write_bytes(gray + palette + bytes([9] * 7 + [0]) * 5)
    photo = read_photo(tmp_path / "b.bmp")
    np.testing.assert_allclose(photo.color_HWC * 255, np.full((5, 7, 1), 9), atol=1e-3)


def test_segments_have_their_marker_start_and_end():
    data = jpeg((b"\xff\xe0", b"JFIF\0"), (b"\xff\xe1", b"abc")) + b"\x12\xff\0\xff\xd9more"
    places = [(0xE0, 2, 11), (0xE1, 11, 18), (0xDA, 18, 22), (0xD9, 25, 27)]
    assert list(jpeg_segments(data)) == places
    for length in (0, 1, 2):  # it counts its own two bytes
        data = b"\xff\xd8\xff\xe0" + struct.pack(">H", length) + b"\xff\xe1\0\2\xff\xd9"
        assert [(marker, start) for marker, start, _ in jpeg_segments(data)] == [
            (0xE0, 2), (0xE1, 6), (0xD9, 10),
        ]  # fmt: skip


def test_chunks_without_a_body_count_up_to_the_last_byte_of_a_file():
    data = riff((b"odd ", b"abc"), (b"none", b""))
    assert list(riff_chunks(data)) == [(b"odd ", 12, 23), (b"none", 24, 32)]
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"some", b"abc") + png_chunk(b"none", b"")
    assert list(png_chunks(data)) == [(b"some", 8, 23), (b"none", 23, 35)]


def test_sizes_of_webp_files_have_all_their_bits():
    canvas = bytes(4) + (2**24 - 1).to_bytes(3, "little") + (2**17).to_bytes(3, "little")
    assert headers.size(riff((b"VP8X", canvas))) == (2**24, 2**17 + 1)
    assert headers.size(riff((b"VP8X", canvas))[:29]) is None
    bits = (2**14 - 1) | 2**13 << 14 | 1 << 28  # alpha is the bit above
    assert headers.size(riff((b"VP8L", b"\x2f" + bits.to_bytes(4, "little")))) == (2**14, 2**13 + 1)
    assert headers.size(riff((b"VP8L", b"\x2f" + bits.to_bytes(4, "little")))[:24]) is None
    lossy = bytes(6) + struct.pack("<HH", 2**14 - 1 | 1 << 14, 2**13 | 2 << 14)  # with factors
    assert headers.size(riff((b"VP8 ", lossy))) == (2**14 - 1, 2**13)


def test_only_a_gray_png_has_a_transparent_level():
    """Of a palette, two bytes are the alpha of two colours."""
    data = cv2.imencode(".png", np.zeros((2, 3), np.uint8))[1].tobytes()
    chunk = png_chunk(b"tRNS", b"\0\7")
    gray = data[:33] + chunk + data[33:]
    assert headers.transparent_level(data) is None and headers.transparent_level(gray) == 7
    for kind in (2, 3, 6):
        assert headers.transparent_level(gray[:25] + bytes([kind]) + gray[26:]) is None
    long = data[:33] + png_chunk(b"tRNS", b"\0\7\0") + data[33:]
    assert headers.transparent_level(long) is None


def test_a_chunk_that_is_as_long_as_that_of_an_animation_is_none():
    data = png_with(png_chunk(b"prVt", struct.pack(">II", 7, 0)))
    assert headers.frames(data) == 1
    animated = png_with(png_chunk(b"acTL", struct.pack(">II", 7, 0)), png_chunk(b"fcTL", bytes(26)))
    assert headers.frames(animated) == 7


def test_samples_of_a_tiff_that_says_nothing_of_them_have_one_bit():
    """64 lines of 8 bytes are not the 1024 that can be read; 64 of 16 are."""
    for bits, fault in ((None, "uncompressed tiles"), (1, "uncompressed tiles"), (2, "")):
        held = {322: 64, 323: 64, 259: 1} | ({} if bits is None else {258: bits})
        entries = b"".join(struct.pack("<HHII", tag, 3, 1, held[tag]) for tag in sorted(held))
        data = b"II*\0" + struct.pack("<IH", 8, len(held)) + entries + bytes(4)
        found = headers.undecodable(data)
        assert fault in found and bool(fault) == bool(found)


@pytest.mark.parametrize(("planes", "odd"), [(1, False), (2, True)])
def test_samples_of_a_tile_are_together_or_in_separate_planes(planes, odd):
    """16 x 16 samples of 8 bits are 1024 bytes where there are four of them."""
    held = {258: 8, 259: 1, 277: 4, 284: planes, 322: 16, 323: 16}
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, held[tag]) for tag in held)
    data = b"II*\0" + struct.pack("<IH", 8, len(held)) + entries + bytes(4)
    assert bool(headers.undecodable(data)) == odd
    assert tiff.bytes_of_pixel(data) == 4


@pytest.mark.parametrize(
    ("bits", "samples", "size"), [(1, 1, 1), (12, 1, 2), (16, 3, 6), (1, 9, 2)]
)
def test_bytes_of_a_pixel_of_a_tiff(bits, samples, size):
    entries = struct.pack("<HHIIHHII", 258, 3, 1, bits, 277, 3, 1, samples)
    assert tiff.bytes_of_pixel(b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)) == size
    assert tiff.bytes_of_pixel(b"no TIFF") == 1


def test_a_page_beyond_the_end_of_a_tiff_is_none():
    data = cv2.imencode(".tif", np.zeros((2, 3), np.uint8))[1].tobytes()
    link = tiff.directory(data).link
    lost = data[:link] + struct.pack("<I", len(data) + 100) + data[link + 4 :]
    assert tiff.pages(data) == tiff.pages(lost) == 1 and len(list(tiff.split(lost))) == 1
