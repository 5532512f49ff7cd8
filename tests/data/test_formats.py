"""Formats that are only read, files of several pictures, printing colours, and what is missing."""

from __future__ import annotations

import io
import re
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pillow_heif
import pytest
from PIL import Image

import zoo
from tests.helpers.networks import Nearest
from tests.helpers.photographs import XMP, colours, exif, save
from tests.helpers.profiles import rgb_profile
from tests.helpers.tiffs import tiff_with_alpha
from zoo.cli import main
from zoo.data import headers, heif, several, tags, tiff
from zoo.data.formats import (
    ARRAY_EXTENSIONS,
    EXTENSIONS,
    FORMATS,
    PHOTO_EXTENSIONS,
    WRITE_EXTENSIONS,
)
from zoo.data.images import list_photos, read_frames, read_photo
from zoo.data.metadata import Metadata
from zoo.errors import ImageError


def refused(path):
    with pytest.raises(ImageError) as error:
        read_photo(path)
    assert str(path) in str(error.value)
    return str(error.value)


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


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_a_transparent_level_of_a_gray_png_is_alpha(tmp_path, mode):
    gray = np.array([[0, 255, 90], [255, 0, 0]], np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(gray).convert("1", dither=0) if mode == "1" else Image.fromarray(gray)
    level = 1 if mode == "1" else 255
    image.save(tmp_path / "a.png", transparency=level)
    photo = read_photo(tmp_path / "a.png")
    assert photo.alpha_HW.tolist() == [[1, 0, 1], [0, 1, 1]] and photo.color_HWC.shape[2] == 1
    zoo.restore(Nearest(1), tmp_path / "a.png", tmp_path / "b.png", progress=False)
    assert read_photo(tmp_path / "b.png").alpha_HW.tolist() == [[1, 0, 1], [0, 1, 1]]


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


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_printing_colours_become_rgb_and_that_is_said(tmp_path, ending, caplog):
    inks = Image.fromarray(colours()).convert("CMYK")
    inks.save(tmp_path / f"a.{ending}", icc_profile=rgb_profile())
    photo = read_photo(tmp_path / f"a.{ending}")
    assert f"a.{ending}: CMYK became RGB" in caplog.text
    assert photo.color_HWC.shape == (24, 36, 3) and photo.metadata.profile is None
    expected = np.asarray(inks.convert("RGB")) / 255
    np.testing.assert_allclose(photo.color_HWC, expected, atol=0.1)


def avif(path, **more):
    Image.fromarray(colours()).save(path, quality=95, subsampling="4:4:4", **more)


def heic(path, pixels, **more):
    mode = {2: "RGB;16", 1: "RGBA" if pixels.shape[2] == 4 else "RGB"}[pixels.dtype.itemsize]
    size = pixels.shape[1::-1]
    pillow_heif.from_bytes(mode, size, pixels.tobytes()).save(path, quality=-1, chroma=444, **more)


@pytest.mark.parametrize("kind", ["avif", "heic"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_photos_of_phones_are_read_with_what_they_say(tmp_path, kind, orientation):
    said = {"exif": exif(orientation), "xmp": XMP, "icc_profile": rgb_profile()}
    path = tmp_path / f"a.{kind}"
    if kind == "avif":
        avif(path, **said)
    else:
        heic(path, colours(), **said)
    photo = read_photo(path)
    expected = np.rot90(colours(), 3) if orientation == 6 else colours()
    np.testing.assert_allclose(photo.color_HWC * 255, expected, atol=14)
    assert abs(photo.color_HWC * 255 - expected).mean() < 2
    assert photo.metadata.profile == rgb_profile() and photo.metadata.xmp == XMP
    assert tiff.value(photo.metadata.exif, tiff.ORIENTATION) in (None, 1)
    assert photo.metadata.resolution.per_inch() == ((200, 300) if orientation == 6 else (300, 200))


def test_the_kind_of_a_phones_photo_is_that_of_any_of_its_brands():
    for brand, others, kinds in (
        (b"mif1", b"miafavif", (False, True)), (b"mif1", b"miafheic", (True, False)),
        (b"heic", b"", (True, False)), (b"isom", b"mp42", (False, False)),
    ):  # fmt: skip
        data = struct.pack(">I", 16 + len(others)) + b"ftyp" + brand + bytes(4) + others + b"heic"
        assert (heif.is_heic(data), heif.is_avif(data)) == kinds


def test_a_deep_heic_keeps_its_bits_and_white_stays_white(tmp_path):
    pixels = np.linspace(0, 65535, 24 * 36 * 3).reshape(24, 36, 3).astype(np.uint16)
    pixels[:4] = 65535
    heic(tmp_path / "a.heic", pixels)
    photo = read_photo(tmp_path / "a.heic")
    assert photo.bit_depth == 16 and photo.color_HWC[0, 0].min() > 0.999


def test_a_heic_with_alpha(tmp_path):
    heic(tmp_path / "a.heic", np.dstack([colours(), np.full((24, 36), 100, np.uint8)]))
    photo = read_photo(tmp_path / "a.heic")
    np.testing.assert_allclose(photo.alpha_HW, 100 / 255, atol=0.01)


@pytest.mark.parametrize("kind", ["avif", "heic"])
def test_every_picture_in_a_file_of_a_phone_is_read(tmp_path, kind):
    pictures, path = [colours(), colours()[::-1].copy()], tmp_path / f"a.{kind}"
    if kind == "avif":
        first, second = map(Image.fromarray, pictures)
        first.save(path, save_all=True, append_images=[second], quality=95, subsampling="4:4:4")
    else:
        both = pillow_heif.from_pillow(Image.fromarray(pictures[0]))
        both.add_from_pillow(Image.fromarray(pictures[1]))
        both.save(path, quality=-1, chroma=444)
    assert "has 2 frames or pages" in refused(path)
    found = read_frames(path)
    assert len(found) == 2
    for photo, pixels in zip(found, pictures, strict=True):
        assert abs(photo.color_HWC * 255 - pixels).mean() < 2


def test_frames_of_a_turned_animation_are_turned_and_lie_in_memory_row_by_row(tmp_path):
    frames(tmp_path / "a.png", exif=exif(6))
    for photo in read_frames(tmp_path / "a.png"):
        assert photo.color_HWC.shape == (36, 24, 3) and photo.color_HWC.flags.c_contiguous
        assert photo.metadata.orientation == 1


def test_a_damaged_and_a_large_photo_of_a_phone(tmp_path, monkeypatch):
    avif(tmp_path / "a.avif")
    heic(tmp_path / "a.heic", colours())
    monkeypatch.setenv("ZOO_MAX_PIXELS", "500")
    assert "36x24 pixels, and the limit is 500" in refused(tmp_path / "a.heic")
    monkeypatch.setenv("ZOO_MAX_PIXELS", "500")
    assert "36x24 pixels, and the limit is 500" in refused(tmp_path / "a.avif")
    monkeypatch.delenv("ZOO_MAX_PIXELS")
    data = (tmp_path / "a.avif").read_bytes()
    for end in (100, len(data) // 2, len(data) - 10):
        (tmp_path / "a.avif").write_bytes(data[:end])
        assert "damaged or cut short" in refused(tmp_path / "a.avif")


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_without_the_extra_it_is_said_what_to_install(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", None)
    brand = {"heic": b"heic", "avif": b"avif"}[kind]
    data = struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1" + brand
    (tmp_path / f"a.{kind}").write_bytes(data + bytes(40))
    assert "pip install pillow pillow-heif" in refused(tmp_path / f"a.{kind}")
    found = {each.name: each.missing() for each in FORMATS}
    assert found["HEIC"] == found["AVIF"] == heif.INSTALL and found["PNG"] == ""


def test_doctor_lists_what_this_installation_reads_and_writes(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("cv2.haveImageWriter", lambda name: name != ".webp")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    lines = {line.split()[1]: line for line in said.splitlines() if line}
    assert re.fullmatch(r"  yes +PNG +read and written: \.png", lines["PNG"])
    assert re.fullmatch(r"  yes +GIF +read: \.gif", lines["GIF"])
    assert lines["WebP"].startswith("  no ") and lines["WebP"].endswith("opencv-python-headless")
    assert lines["HEIC"].startswith("  no ") and lines["HEIC"].endswith(heif.INSTALL)
    assert [each.name for each in FORMATS if f" {each.name} " not in said] == []


def test_outputs_of_what_is_only_read_are_png_and_replace_no_other(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.gif", "b.gif", "b.png"):
        save(folder / name, colours())
    assert [path.name for path in list_photos(folder)] == ["a.gif", "b.gif", "b.png"]
    zoo.restore(Nearest(), folder, out, progress=False)
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.gif.png", "b.png"]
    with pytest.raises(ImageError, match="not written as"):
        zoo.restore(Nearest(), folder / "a.gif", tmp_path / "x.gif", progress=False)


def test_what_is_written_is_also_read():
    assert set(WRITE_EXTENSIONS) < set(EXTENSIONS)
    assert {".heic", ".heif", ".avif", ".gif"} == set(EXTENSIONS) - set(WRITE_EXTENSIONS)


def test_a_picture_named_after_another_format_is_read_by_its_content(tmp_path):
    held = io.BytesIO()
    Image.fromarray(colours()).save(held, "PNG")
    (tmp_path / "a.heic").write_bytes(held.getvalue())
    assert read_photo(tmp_path / "a.heic").color_HWC.shape == (24, 36, 3)


def test_endings_are_listed_in_the_sequence_of_the_alphabet():
    arrays = [".mat", ".npy", ".npz"]
    photos = [".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff"]
    photos.append(".webp")
    assert list(PHOTO_EXTENSIONS) == photos and list(ARRAY_EXTENSIONS) == arrays
    assert list(EXTENSIONS) == sorted(photos + arrays)
    assert list(WRITE_EXTENSIONS) == sorted(WRITE_EXTENSIONS)


def test_what_only_looks_like_a_photo_of_a_phone_is_none():
    data = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"
    assert heif.is_heic(data) and not heif.is_heic(data.replace(b"ftyp", b"free"))
    # Brands end with their box, and what says that it is longer than a box of brands is not read.
    other = struct.pack(">I", 16) + b"ftypisom" + bytes(4) + b"heic"
    assert not heif.is_heic(other)
    long = struct.pack(">I", 2**31) + b"ftypisom" + bytes(400) + b"heic"
    assert not heif.is_heic(long)


def test_an_avif_whose_file_ends_in_its_description_of_depth_is_read_by_the_decoder(
    tmp_path, monkeypatch
):
    avif(tmp_path / "a.avif")
    image = Image.open(tmp_path / "a.avif")
    image.load()
    plugin = SimpleNamespace(SUPPORTED=True, AvifImageFile=lambda _: image)
    monkeypatch.setattr(heif, "_module", lambda _: plugin)
    data = (tmp_path / "a.avif").read_bytes()
    whole = data.index(b"av1C") + 6
    for length in (whole, whole + 1):
        assert len(heif.read_all_avif(tmp_path / "a.avif", data[:length])) == 1


@pytest.mark.parametrize("deep", [False, True])
def test_an_avif_of_more_than_8_bits_says_that_it_loses_some(tmp_path, monkeypatch, caplog, deep):
    avif(tmp_path / "a.avif")
    image = Image.open(tmp_path / "a.avif")
    image.load()
    if deep:  # Pillow writes none; so the property is changed, and the decoder is not asked
        data = bytearray((tmp_path / "a.avif").read_bytes())
        data[data.index(b"av1C") + 6] |= 0x40
        (tmp_path / "a.avif").write_bytes(data)
        plugin = SimpleNamespace(SUPPORTED=True, AvifImageFile=lambda _: image)
        monkeypatch.setattr(heif, "_module", lambda _: plugin)
    assert read_photo(tmp_path / "a.avif").bit_depth == 8
    assert ("a.avif: its colours of more than 8 bits are read as 8 bits" in caplog.text) == deep
    assert caplog.text.count("\n") == deep


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


def test_a_pillow_without_avif_is_one_that_is_missing(monkeypatch):
    for plugin, said in (
        (None, heif.INSTALL), (SimpleNamespace(SUPPORTED=False), heif.INSTALL),
        (SimpleNamespace(SUPPORTED=True), ""),
    ):  # fmt: skip
        monkeypatch.setattr(heif, "_module", lambda _, plugin=plugin: plugin)
        assert heif.missing_avif() == said


def test_blocks_of_a_phones_photo_that_are_empty_say_nothing():
    assert heif._metadata({"exif": b"", "xmp": b"", "icc_profile": b""}) == Metadata()
    found = heif._metadata({"exif": exif(), "xmp": b"<a>", "icc_profile": b"p"})
    assert (found.exif, found.xmp, found.profile) == (exif(), b"<a>", b"p")


def test_the_usual_ending_of_a_format_is_its_first():
    found = {each.name: each.extensions for each in FORMATS}
    assert found["JPEG"] == (".jpg", ".jpeg") and found["HEIC"] == (".heic", ".heif")
    assert found["TIFF"] == found["TIFF of bands"] == (".tif", ".tiff")


def test_what_a_format_can_and_what_it_loses():
    def those(quality):
        return [each.name for each in FORMATS if getattr(each, quality)]

    arrays = [f"arrays (.{kind})" for kind in ("npy", "npz", "mat")]
    assert those("lossy") == ["JPEG", "WebP"]
    assert [each.name for each in FORMATS if not each.lossless] == ["JPEG"]
    assert [each.name for each in FORMATS if not each.photographs] == arrays
    assert those("bands") == ["TIFF of bands", *arrays]
    assert those("marks_levels") == ["TIFF of bands"]
