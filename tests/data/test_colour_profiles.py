"""Colour profiles, and what else a file says of its colours: kept, or told where dropped."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageCms
from skimage.color import deltaE_ciede2000, rgb2lab

import zoo
from tests.helpers.networks import Nearest
from tests.helpers.photographs import FORMATS, XMP, colours, exif, opened, restored, save, xmp_of
from tests.helpers.profiles import gray_profile, rgb_profile
from zoo.data import embedding
from zoo.data.containers import jpeg_segment, png_chunk
from zoo.data.images import Photo, read_photo, write_photo
from zoo.data.metadata import Metadata, read_metadata


@pytest.mark.parametrize("kind", FORMATS)
def test_colours_of_a_photo_with_a_profile_look_the_same(tmp_path, kind):
    """A viewer converts input and output to sRGB; the difference is below what one can see."""
    path = tmp_path / f"a.{kind}"
    save(path, colours(120, 160), profile=rgb_profile())
    target = tmp_path / f"b.{kind}"
    zoo.restore(Nearest(1), path, target, progress=False)
    before, after = (rgb2lab(as_srgb(opened(each))) for each in (path, target))
    wrong = rgb2lab(as_srgb(opened(path), ImageCms.createProfile("sRGB")))
    assert deltaE_ciede2000(before, after).mean() < 1
    assert deltaE_ciede2000(before, wrong).mean() > 3  # the test would notice a lost profile


def as_srgb(image, profile=None):
    held = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    rgb = ImageCms.profileToProfile(
        image, profile or held, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    return np.asarray(rgb) / 255


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_deep_photos_keep_their_profile_too(tmp_path, kind):
    color = colours().astype(np.float32) / 255
    photo = Photo(color, bit_depth=16, metadata=Metadata(rgb_profile()))
    write_photo(tmp_path / f"a.{kind}", photo)
    again = read_photo(tmp_path / f"a.{kind}")
    assert again.bit_depth == 16 and again.metadata.profile == rgb_profile()
    np.testing.assert_allclose(again.color_HWC, color, atol=1 / 65535)


@pytest.mark.parametrize("kind", FORMATS)
def test_photos_with_alpha_keep_their_profile_and_alpha(tmp_path, kind):
    alpha = None if kind == "jpg" else np.full((24, 36), 0.2, np.float32)
    said = Metadata(rgb_profile(), exif(), XMP)
    photo = Photo(colours().astype(np.float32) / 255, alpha, metadata=said)
    write_photo(tmp_path / f"a.{kind}", photo)
    image = opened(tmp_path / f"a.{kind}")
    assert image.info["icc_profile"] == rgb_profile() and xmp_of(image) == XMP
    assert image.mode == ("RGB" if alpha is None else "RGBA")


def test_a_gray_profile_stays_with_gray_pixels_only(tmp_path, caplog):
    photo = Photo(colours(channels=1).astype(np.float32) / 255, metadata=Metadata(gray_profile()))
    for kind in ("png", "jpg", "tif"):
        write_photo(tmp_path / f"a.{kind}", photo)
        assert opened(tmp_path / f"a.{kind}").info["icc_profile"] == gray_profile()
    assert caplog.text == ""
    write_photo(tmp_path / "a.webp", photo)  # WebP has no gray
    assert "icc_profile" not in opened(tmp_path / "a.webp").info
    assert "is for GRAY and the picture is RGB" in caplog.text


def test_a_damaged_profile_and_one_that_the_format_cannot_hold_are_told(tmp_path, caplog):
    color = colours().astype(np.float32) / 255
    write_photo(tmp_path / "a.png", Photo(color, metadata=Metadata(b"no profile")))
    assert "a.png: the colour profile is damaged" in caplog.text
    write_photo(tmp_path / "a.bmp", Photo(color, metadata=Metadata(rgb_profile())))
    assert "a.bmp: dropped, because the format cannot hold it: colour profile" in caplog.text


GAMMA = (b"gAMA", struct.pack(">I", 50_000))

USUAL = (b"gAMA", struct.pack(">I", 45_455))

PRIMARIES = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([GAMMA], "gAMA"),
        ([PRIMARIES, USUAL], "cHRM"),
        ([(b"cICP", bytes([9, 16, 0, 1]))], "cICP"),
        ([(b"cICP", bytes([1, 13, 0, 1])), GAMMA], ""),
        ([(b"sRGB", b"\0"), USUAL], ""),
        ([USUAL], ""),
        ([(b"gAMA", b"?")], ""),
    ],
    ids=["gamma", "primaries", "codes", "usual codes", "srgb", "usual gamma", "damaged"],
)
def test_colours_that_only_a_png_can_name_are_told_by_other_formats(tmp_path, caplog, chunks, said):
    photo = Photo(colours() / np.float32(255), metadata=Metadata(png_chunks=tuple(chunks)))
    write_photo(tmp_path / "a.png", photo)
    assert not caplog.text
    write_photo(tmp_path / "a.jpg", photo)
    assert caplog.text.count("\n") == bool(said)
    assert (f"a.jpg: dropped, because the format cannot hold it: the meaning of colours ({said} of"
            in caplog.text) == bool(said)  # fmt: skip


def test_a_profile_of_a_jpeg_counts_with_all_its_pieces_in_any_sequence():
    def pieces(*each):
        head = b"ICC_PROFILE\0"
        parts = [jpeg_segment(0xE2, head + bytes(numbers) + body) for *numbers, body in each]
        return read_metadata(b"\xff\xd8" + b"".join(parts)).profile

    assert pieces((2, 2, b"b"), (1, 2, b"a")) == b"ab" and pieces((1, 1, b"a")) == b"a"
    for wrong in (((1, 2, b"a"),), ((1, 2, b"a"), (3, 2, b"b")), ((1, 1, b"a"), (2, 2, b"b"))):
        assert pieces(*wrong) is None
    assert pieces((1, 1, b"")) is None


def test_colours_of_a_png_that_says_srgb_are_usual_whatever_else_it_says():
    odd = (b"gAMA", struct.pack(">I", 100_000))
    for chunks, found in (
        ((odd,), "gAMA"), ((odd, (b"sRGB", b"\0")), ""), (((b"cICP", b"\1\2\0\1"), odd), "cICP"),
        (((b"cICP", b"\1\r\0\1"), odd), ""), (((b"gAMA", struct.pack(">I", 45455)),), ""),
        (((b"gAMA", struct.pack(">I", 45955)),), ""),
        (((b"gAMA", struct.pack(">I", 45956)),), "gAMA"),
    ):  # fmt: skip
        assert embedding._colours(Metadata(png_chunks=chunks)) == found
    assert embedding._colours(Metadata(profile=b"p", png_chunks=(odd,))) == ""


def test_a_profile_of_many_segments_and_a_block_that_is_too_long(tmp_path, caplog):
    long = rgb_profile(bytes(200_000))
    said = Metadata(profile=long, exif=exif() + bytes(70_000), xmp=XMP + b" " * 70_000)
    write_photo(tmp_path / "a.jpg", Photo(colours().astype(np.float32) / 255, metadata=said))
    assert opened(tmp_path / "a.jpg").info["icc_profile"] == long
    assert "EXIF of 70" in caplog.text and "XMP of 70" in caplog.text
    assert read_metadata((tmp_path / "a.jpg").read_bytes()).exif is None


def test_what_a_png_says_of_its_colours_and_its_texts_are_kept(tmp_path):
    save(tmp_path / "a.png", colours())
    data = (tmp_path / "a.png").read_bytes()
    chunks = [png_chunk(b"gAMA", struct.pack(">I", 50_000)), png_chunk(b"tEXt", b"prompt\0a cat")]
    (tmp_path / "a.png").write_bytes(data[:33] + b"".join(chunks) + data[33:])
    image = restored(tmp_path / "a.png", tmp_path / "b.png")
    assert image.info["gamma"] == 0.5 and image.info["prompt"] == "a cat"


SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def test_colours_are_those_of_srgb_up_to_what_nobody_sees():
    """Each number of both chunks, and 0.005 more or less."""

    def lost(name, numbers):
        chunk = name, struct.pack(f">{len(numbers)}I", *numbers)
        return bool(embedding._colours(Metadata(png_chunks=(chunk,))))

    for name, usual in ((b"gAMA", (45455,)), (b"cHRM", SRGB)):
        assert not lost(name, usual)
        for place in range(len(usual)):
            for more in (-501, -500, 500, 501):
                numbers = list(usual)
                numbers[place] += more
                assert lost(name, numbers) == (abs(more) > 500), (name, place, more)


def test_a_profile_is_cut_into_segments_that_are_as_long_as_they_can_be():
    for length, number in ((65519, 1), (65520, 2), (2 * 65519, 2), (2 * 65519 + 1, 3)):
        parts = embedding._profile_segments(Path("a.jpg"), (bytes(range(256)) * 520)[:length])
        assert len(parts) == number
        assert all(part[:2] == b"\xff\xe2" and len(part) <= 65537 for part in parts)
        body = b"".join(part[18:] for part in parts)
        assert body == (bytes(range(256)) * 520)[:length]


def test_a_profile_too_long_for_a_jpeg_is_dropped_and_told(caplog):
    assert embedding._profile_segments(Path("a.jpg"), bytes(255 * 65519 + 1)) == []
    assert "a.jpg: the colour profile is dropped: JPEG holds at most 16 MB" in caplog.text
    assert len(embedding._profile_segments(Path("a.jpg"), bytes(255 * 65519))) == 255


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (bytes(36) + b"acsp" + bytes(60), "is damaged"),  # shorter than its header
        (bytes(128), "is damaged"),
        (bytes(16) + b"CMYK" + bytes(16) + b"acsp" + bytes(88), "for CMYK and the picture is RGB"),
        (bytes(16) + b"GRAY" + bytes(16) + b"acsp" + bytes(88), "for GRAY and the picture is RGB"),
        (bytes(16) + b"RGB " + bytes(16) + b"acsp" + bytes(88), ""),
    ],
    ids=["short", "no mark", "inks", "gray", "good"],
)
def test_only_a_whole_profile_of_the_pictures_colours_is_kept(caplog, profile, message):
    kept = embedding._fitting(Path("a.png"), profile, 3)
    assert kept == (None if message else profile)
    assert message in caplog.text and bool(caplog.text) == bool(message)
