"""Formats that are only read, photos of phones, printing colours, and what is missing."""

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
from tests.helpers.photographs import XMP, colours, exif, refused, save
from tests.helpers.profiles import rgb_profile
from zoo.cli import main
from zoo.data import heif, tiff
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
