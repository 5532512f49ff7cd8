"""Files of several pictures: animations, pages, and views in a JPEG."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.helpers.networks import Nearest
from tests.helpers.photographs import colours, exif, refused
from tests.helpers.tiffs import tiff_with_alpha
from zoo.cli import main
from zoo.data import headers, several, tags, tiff
from zoo.data.images import list_photos, read_frames, read_photo
from zoo.errors import ImageError


def frames(path, number=3, **more):
    """Write an animation of a square that moves, or pages."""
    pictures = [colours() for _ in range(number)]
    for k, picture in enumerate(pictures):
        picture[4:9, 5 + 6 * k : 10 + 6 * k] = (255, 0, 9)
    images = [Image.fromarray(picture) for picture in pictures]
    images[0].save(path, save_all=True, append_images=images[1:], **more)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif", "avif"])
def test_an_animation_and_pages_are_never_read_as_their_first_picture(tmp_path, kind):
    frames(tmp_path / f"a.{kind}")
    said = refused(tmp_path / f"a.{kind}")
    assert "has 3 frames or pages" in said
    assert f"run 'zoo data frames a.{kind} -o FOLDER', then restore the folder" in said
    frames(tmp_path / f"b.{kind}", number=1)
    alone = read_photo(tmp_path / f"b.{kind}")
    assert alone.color_HWC.shape == (24, 36, 3)
    (only,) = read_frames(tmp_path / f"b.{kind}")
    assert np.array_equal(only.color_HWC, alone.color_HWC)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_still_picture_beside_an_animation_is_a_frame_of_its_own(tmp_path, number):
    pictures = [Image.new("RGB", (8, 6), name) for name in ("red", "lime", "blue", "white")]
    more = {"save_all": True, "append_images": pictures[1 : number + 1], "default_image": True}
    pictures[0].save(tmp_path / "a.png", **more)
    assert f"has {number + 1} frames or pages" in refused(tmp_path / "a.png")
    found = [photo.color_HWC[2, 3].tolist() for photo in read_frames(tmp_path / "a.png")]
    assert found == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]][: number + 1]


def test_views_of_full_size_in_a_jpeg_are_pictures_and_a_smaller_one_is_a_preview(tmp_path):
    first, second = Image.new("RGB", (40, 24), "red"), Image.new("RGB", (40, 24), "blue")
    more = {"format": "MPO", "save_all": True}
    first.save(tmp_path / "a.jpg", append_images=[second, second.resize((20, 12))], **more)
    assert "has 2 frames or pages" in refused(tmp_path / "a.jpg")
    photos = read_frames(tmp_path / "a.jpg")
    assert [int(photo.color_HWC[5, 5].argmax()) for photo in photos] == [0, 2]
    for aside in (second.resize((20, 12)), second.convert("L")):
        first.save(tmp_path / "b.jpg", append_images=[aside], **more)
        assert read_photo(tmp_path / "b.jpg").color_HWC.shape == (24, 40, 3)
        assert len(read_frames(tmp_path / "b.jpg")) == 1


def test_a_damaged_list_of_pictures_in_a_jpeg_is_one_picture(tmp_path):
    picture = Image.new("RGB", (40, 24), "red")
    picture.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[picture])
    data = (tmp_path / "a.jpg").read_bytes()
    at = data.index(b"MPF\0") + 4
    for cut in range(0, 80, 7):
        (tmp_path / "a.jpg").write_bytes(data[: at + cut] + b"\xee" * 60 + data[at + cut + 60 :])
        assert headers.frames((tmp_path / "a.jpg").read_bytes()) in (1, 2)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif", "avif"])
def test_every_frame_of_an_animation_and_every_page_can_be_restored(tmp_path, kind, capsys):
    more = {"gif": {}, "webp": {"lossless": True}, "avif": {"quality": 95}}.get(kind, {})
    frames(tmp_path / f"a.{kind}", **more)
    folder = tmp_path / "frames"
    words = ["data", "frames", str(tmp_path / f"a.{kind}"), "-o", str(folder)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"wrote 3 frames to {folder}\n"
    names = ["a_0001.png", "a_0002.png", "a_0003.png"]
    assert [path.name for path in list_photos(folder)] == names
    right = Image.open(tmp_path / f"a.{kind}")
    for number, name in enumerate(names):
        right.seek(number)
        expected = np.asarray(right.convert("RGB"))
        photo = read_photo(folder / name)
        np.testing.assert_allclose(photo.color_HWC * 255, expected, atol=0.01)
        assert photo.alpha_HW is None
    zoo.restore(Nearest(), folder, tmp_path / "out", progress=False)
    assert [path.name for path in list_photos(tmp_path / "out")] == names
    assert main(words) == 2
    assert "a_0001.png: it exists" in capsys.readouterr().err


def test_pages_of_a_tiff_keep_their_bits_sizes_and_profiles(tmp_path):
    pages = [np.full((5, 6), 300, np.uint16), np.arange(42, dtype=np.uint16).reshape(6, 7) * 1000]
    images = [Image.fromarray(page) for page in pages]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:])
    found = read_frames(tmp_path / "a.tif")
    assert [photo.bit_depth for photo in found] == [16, 16]
    for photo, page in zip(found, pages, strict=True):
        np.testing.assert_allclose(photo.color_HWC[..., 0] * 65535, page, atol=0.01)


def test_pages_of_a_tiff_are_limited_together(tmp_path, monkeypatch):
    images = [Image.new("L", size) for size in ((2, 2), (30, 30), (30, 30))]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:])
    monkeypatch.setenv("ZOO_MAX_PIXELS", "1000")
    with pytest.raises(ImageError, match=r"3 frames has 1804x1 pixels, and the limit is 1,000"):
        read_frames(tmp_path / "a.tif")


def test_animations_of_too_many_pixels_and_damaged_ones_are_refused(tmp_path, monkeypatch):
    for kind in ("gif", "webp", "png", "avif"):
        path = tmp_path / f"a.{kind}"
        frames(path)
        monkeypatch.setenv("ZOO_MAX_PIXELS", str(2 * 24 * 36))
        with pytest.raises(ImageError, match=r"36x72 pixels, and the limit is 1,728"):
            read_frames(path)
        monkeypatch.delenv("ZOO_MAX_PIXELS")
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(ImageError, match="damaged or cut short"):
            read_frames(path)


def test_smaller_versions_and_masks_are_no_pages_but_a_preview_before_the_picture_is(tmp_path):
    data = tiff_with_alpha(np.full((2, 3, 4), 255), 2)
    link = tiff.directory(data).link
    for kind, pages in ((0, 2), (1, 1), (4, 1), (2, 2)):
        page = struct.pack("<HHHIII", 1, tiff.SUBFILE, tags.LONG, 1, kind, 0)
        both = data[:link] + struct.pack("<I", len(data)) + data[link + 4 :] + page
        assert tiff.pages(both) == pages == len(list(tiff.split(both)))
    preview = tags.Tag(tiff.SUBFILE, tags.LONG, struct.pack("<I", 1))
    place = tags.Tag(tiff.SUB_DIRECTORIES, tags.LONG, struct.pack("<I", 8))
    assert tiff.pages(tags.with_tags(data, [preview])) == 1  # nothing else is there
    (tmp_path / "a.tif").write_bytes(tags.with_tags(data, [preview, place]))  # as in a RAW photo
    assert "has 2 frames or pages" in refused(tmp_path / "a.tif")


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_each_page_of_a_tiff_becomes_a_file_with_one_directory(endian, big):
    data = tiff_with_alpha(np.full((2, 3, 4), 255), 2, endian=endian, big=big)
    place, start, first = ("Q", 8, 16) if big else ("I", 4, 8)
    link, size = tiff.directory(data).link, struct.calcsize(place)
    both = data[:link] + struct.pack(endian + place, len(data)) + data[link + size :]
    page = struct.pack(f"{endian}{'Q' if big else 'H'}HH{place}", 1, 256, 3, 1)
    page += struct.pack(endian + "H", 7).ljust(size, b"\0") + bytes(size)
    one, two = tiff.split(both + page)
    assert (tiff.value(one, 256), tiff.value(two, 256)) == (3, 7)
    assert one == data + page  # only the link is gone
    assert struct.unpack_from(endian + place, two, start) == (len(data),)
    assert two[first:] == (both + page)[first:]
    assert tiff.pages(one) == tiff.pages(two) == 1 and tiff.pages(both + page) == 2


def test_no_more_entries_of_a_directory_are_read_than_a_tiff_can_have():
    """A BigTIFF may claim any number, and its file may be large."""
    first, last = (struct.pack("<HHQQ", tag, 3, 1, 0) for tag in (1, 2))
    for number, found in ((2**16, {1, 2}), (2**16 + 1, {1})):
        data = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, number)
        data += first * (number - 1) + last + bytes(8)
        assert tiff.directory(data).entries.keys() == found


def test_pages_behind_a_large_picture_are_all_counted():
    data, number = tiff_with_alpha(np.full((2, 3, 4), 255), 2) + bytes(20_000), 5
    link = tiff.directory(data).link
    chain = data[:link] + struct.pack("<I", len(data)) + data[link + 4 :]
    for page in range(number):
        following = len(chain) + 18 if page + 1 < number else 0
        chain += struct.pack("<HHHIII", 1, tiff.SUBFILE, tags.LONG, 1, 0, following)
    assert tiff.pages(chain) == 1 + number


def test_pages_that_lead_to_themselves_are_counted_once():
    data = tiff_with_alpha(np.full((2, 3, 4), 255), 2)
    found = tiff.directory(data)
    loop = data[: found.link] + data[4:8] + data[found.link + 4 :]
    assert tiff.pages(loop) == tiff.pages(loop + bytes(9999)) == 2


def test_directories_that_overlap_take_no_time():
    """Each leads to the next, 18 bytes on, and claims to be almost as long as the file."""
    number, size = 3000, 120_000
    data = bytearray(b"II*\0" + struct.pack("<I", 8)) + bytes(size)
    entries = (size - 18 * number) // 12
    for k in range(number):
        at = 8 + 18 * k
        struct.pack_into("<H", data, at, entries)
        struct.pack_into("<I", data, at + 2 + 12 * entries, at + 18)
    seen = list(tiff._chain(bytes(data)))
    assert len(seen) <= 3


@pytest.mark.parametrize("mode", ["P", "interlaced", "transparent"])
def test_a_gif_of_one_picture_is_read(tmp_path, mode):
    image = Image.fromarray(colours()).quantize(32)
    more = {"interlaced": {"interlace": 1}, "transparent": {"transparency": 3}}.get(mode, {})
    image.save(tmp_path / "a.gif", **more)
    photo = read_photo(tmp_path / "a.gif")
    right = np.asarray(Image.open(tmp_path / "a.gif").convert("RGBA")) / np.float32(255)
    visible = right[..., 3] > 0
    np.testing.assert_allclose(photo.color_HWC[visible], right[visible][:, :3], atol=1e-6)
    assert (photo.alpha_HW is None) == (mode != "transparent")
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(data[: len(data) // 2])
    assert "damaged or cut short" in refused(tmp_path / "a.gif")
    assert headers.size(data) == (36, 24)


def test_frames_of_a_turned_animation_are_turned_and_lie_in_memory_row_by_row(tmp_path):
    frames(tmp_path / "a.png", exif=exif(6))
    for photo in read_frames(tmp_path / "a.png"):
        assert photo.color_HWC.shape == (36, 24, 3) and photo.color_HWC.flags.c_contiguous
        assert photo.metadata.orientation == 1


def test_pictures_in_a_jpeg_that_share_their_bytes_are_read_once(tmp_path):
    """A list of thousands of entries for one picture would take for ever."""
    first, second = (Image.new("RGB", (40, 24), name) for name in ("red", "blue"))
    small = [second.resize((20, 12))]
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second, *small])
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    start = data.index(b"MPF\0") + 4
    entry = tiff.directory(bytes(data[start:])).entries[0xB002]
    at = start + entry.place
    data[at + 36 : at + 44] = data[at + 20 : at + 28]  # the third is the second
    assert len(several.jpeg_pictures(bytes(data))) == 2
