"""Colour profile, EXIF, XMP and resolution on their way through a network, in every format.

Pillow writes the files and reads the results, so our readers and writers are not their own judges.
"""

from __future__ import annotations

import io
import struct
import time
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000, rgb2lab

import zoo
from tests.helpers.networks import Nearest
from tests.helpers.photographs import EXPOSURE, LATITUDE, MAKER, XMP, colours, exif, save
from tests.helpers.profiles import gray_profile, rgb_profile
from zoo.data import embedding, tags, tiff
from zoo.data.containers import jpeg_segment, png_chunk
from zoo.data.images import Photo, Saving, read_photo, write_photo
from zoo.data.metadata import Metadata, Resolution, read_metadata

FORMATS = ["png", "jpg", "tif", "webp"]


def restored(source, target, scale=2):
    zoo.restore(Nearest(scale), source, target, progress=False)
    return opened(target)


def opened(path):
    image = Image.open(path)
    image.load()
    return image


def xmp_of(image):
    if image.format == "TIFF":
        return image.tag_v2.get(700)
    text = image.info.get("XML:com.adobe.xmp")
    return image.info.get("xmp") if text is None else text.encode()


def dpi_of(image):
    found = image.getexif()
    return image.info.get("dpi") or (found.get(282), found.get(283))


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_what_a_photo_says_survives_all_formats(tmp_path, source, target):
    path = tmp_path / f"in.{source}"
    dpi = None if source == "webp" else (300, 200)
    save(path, colours(), profile=rgb_profile(), block=exif(), xmp=XMP, dpi=dpi)
    image = restored(path, tmp_path / f"out.{target}")
    assert image.info["icc_profile"] == rgb_profile()
    assert xmp_of(image) == XMP
    assert dpi_of(image) == pytest.approx((600, 400), rel=1e-3)
    found = image.getexif()
    assert found[MAKER] == "camera"
    below = found.get_ifd(0x8769)
    assert below[EXPOSURE] == 1 / 125 and below[0x927C] == b"note of the maker"
    assert (below[0xA002], below[0xA003]) == image.size == (72, 48)
    assert found.get_ifd(0x8825)[LATITUDE] == (48.0, 8.0, 14.0)


@pytest.mark.parametrize("target", ["png", "jpg", "webp"])
@pytest.mark.parametrize("source", ["png", "jpg", "webp"])
def test_exif_is_kept_byte_for_byte_where_nothing_in_it_is_wrong_now(tmp_path, source, target):
    save(tmp_path / f"a.{source}", colours(), block=exif())
    restored(tmp_path / f"a.{source}", tmp_path / f"b.{target}", scale=1)
    assert read_metadata((tmp_path / f"b.{target}").read_bytes()).exif == exif()
    assert exif() in (tmp_path / f"b.{target}").read_bytes()


@pytest.mark.parametrize("kind", [*FORMATS, "deep.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_once_and_reset(tmp_path, kind, orientation):
    path, target = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    xmp = XMP.replace(b'dc:title="a photo"', b'tiff:Orientation="%d"' % orientation)
    block, dpi = exif(orientation), None if kind == "webp" else (300, 200)
    save(path, colours(), block=block, xmp=xmp, dpi=dpi)
    if kind == "deep.tif":  # Pillow writes none of 16 bits
        deep = Photo((colours() / np.float32(255)).astype(np.float32), bit_depth=16)
        write_photo(tmp_path / "deep.tif", deep)
        data = (tmp_path / "deep.tif").read_bytes()
        turn = tags.Tag(tiff.ORIENTATION, tags.SHORT, struct.pack("<H", orientation))
        resolution = tags.copied(path.read_bytes(), (282, 283, 296, tags.XMP), "<")
        path.write_bytes(tags.with_tags(data, [turn, *resolution]))
    image = restored(path, target, scale=1)
    turned = {
        1: colours(), 2: colours()[:, ::-1], 3: colours()[::-1, ::-1], 4: colours()[::-1],
        5: np.rot90(colours()[::-1], 3), 6: np.rot90(colours(), 3),
        7: np.rot90(colours()[::-1], 1), 8: np.rot90(colours(), 1),
    }[orientation]  # fmt: skip
    pixels = np.round(read_photo(target).color_HWC * 255)
    tolerance = 12 if kind == "jpg" else 0
    np.testing.assert_allclose(pixels, turned, atol=tolerance)
    assert image.getexif().get(274, 1) == 1
    assert b'tiff:Orientation="1"' in xmp_of(image)
    expected = (200, 300) if orientation > 4 else (300, 200)
    assert dpi_of(image) == pytest.approx(expected, rel=1e-3)


def test_the_preview_of_a_turned_photo_is_left_out_and_that_of_an_upright_one_stays(tmp_path):
    for orientation in (1, 6):
        block = bytearray(exif(orientation))
        found = tiff.directory(bytes(block))
        preview, at = struct.pack("<HI", 0, 0), len(block)
        struct.pack_into(found.endian + "I", block, found.link, at)
        save(tmp_path / "a.png", colours(), block=bytes(block) + preview)
        restored(tmp_path / "a.png", tmp_path / "b.png", scale=1)
        kept = read_metadata((tmp_path / "b.png").read_bytes()).exif
        place = struct.unpack_from(found.endian + "I", kept, found.link)[0]
        assert place == (at if orientation == 1 else 0)
        (tmp_path / "b.png").unlink()


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


def test_all_that_a_bmp_drops_is_told_in_one_line(tmp_path, caplog):
    save(tmp_path / "a.png", colours(), block=exif(), xmp=XMP, dpi=(300, 200))
    restored(tmp_path / "a.png", tmp_path / "a.bmp")
    assert caplog.text.count("dropped, because the format cannot hold it") == 1
    assert "cannot hold it: EXIF, XMP, resolution\n" in caplog.text
    caplog.clear()
    zoo.restore(
        Nearest(), tmp_path / "a.png", tmp_path / "b.bmp", strip_metadata=True, progress=False
    )
    assert not caplog.text


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


PACKET = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>
<rdf:Description xmlns:t="http://ns.adobe.com/tiff/1.0/" xmlns:exif = 'http://ns.adobe.com/exif/1.0/'
 t:XResolution="72/1" tiff:YResolution = ' 3000000/10000 ' exif:PixelXDimension="36"
 my:Orientation="6">
<t:Orientation xml:lang="x"> 6 </t:Orientation>
<exif:PixelYDimension>24</exif:PixelYDimension><t:ImageWidth>36</t:ImageWidth>
<tiff:ImageLength a="b">24</tiff:ImageLength><t:Orientations>6</t:Orientations>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def test_numbers_in_xmp_fit_the_new_picture_under_any_prefix(tmp_path):
    save(tmp_path / "a.png", colours(), xmp=PACKET)
    expected = PACKET
    for old, new in (
        (b'"72/1"', b'"144/1"'),
        (b"3000000/10000", b"600/1"),
        (b'sion="36"', b'sion="72"'),
        (b"> 6 <", b"> 1 <"),
        (b">24</exif", b">48</exif"),
        (b">36<", b">72<"),
        (b'a="b">24', b'a="b">48'),
    ):
        assert expected.count(old) == 1
        expected = expected.replace(old, new)
    image = restored(tmp_path / "a.png", tmp_path / "b.png")
    assert xmp_of(image) == expected


@pytest.mark.parametrize(
    "part",
    [b" tiff:Orientation ", b'xmlns:a="http://ns.adobe.com/tiff/1.0/" ', b"<tiff:Orientation="],
)
def test_a_hostile_packet_takes_time_that_grows_with_its_length_only(part):
    packet = part * 30_000
    start = time.perf_counter()
    said = Metadata(xmp=packet).upright().enlarged(2).of_size(1, 1)
    assert said.xmp == packet
    assert time.perf_counter() - start < 10  # 0.5 s; without bounds, a minute


@pytest.mark.parametrize("name", [b"exif", b"APP1", b"xmp"])
@pytest.mark.parametrize("packed", [False, True])
def test_raw_profiles_of_a_png_are_exif_and_xmp(tmp_path, name, packed):
    block = PACKET if name == b"xmp" else b"Exif\0\0" + exif(6)
    digits = block.hex().encode()
    lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    text = b"\n%s\n%8d\n%s\n" % (name, len(block), lines)
    body = b"Raw profile type " + name + b"\0" + (b"\0" + zlib.compress(text) if packed else text)
    save(tmp_path / "a.png", colours())
    data = (tmp_path / "a.png").read_bytes()
    chunk = png_chunk(b"zTXt" if packed else b"tEXt", body)
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    photo = read_photo(tmp_path / "a.png")
    assert photo.metadata.png_chunks == ()
    if name == b"xmp":
        assert photo.metadata.xmp == PACKET.replace(b"> 6 <", b"> 1 <")
    else:
        assert photo.metadata.exif is not None and photo.color_HWC.shape == (36, 24, 3)
        np.testing.assert_allclose(photo.color_HWC * 255, np.rot90(colours(), 3), atol=1e-3)


def test_what_stands_behind_the_start_of_a_jpegs_image_data_is_no_metadata():
    """The bytes of an image, or of another picture, may look like a segment."""
    late = jpeg_segment(0xE1, b"Exif\0\0" + exif(6)) + jpeg_segment(0xE0, JFIF_OF_72)
    early = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    scan = jpeg_segment(0xDA, bytes(10))
    found = read_metadata(b"\xff\xd8" + early + scan + late + b"\xff\xd9")
    assert found == Metadata(xmp=XMP) == read_metadata(b"\xff\xd8" + early)
    assert read_metadata(b"\xff\xd8" + early[:-1]) == Metadata()
    found = read_metadata(b"\xff\xd8" + early + late + scan + b"\xff\xd9")
    assert found.orientation == 6 and found.resolution == Resolution(72, 72, "inch")


def test_a_block_that_is_no_exif_is_left_out():
    for body, kept in ((exif(), exif()), (b"MM\0+" + exif()[4:], None), (b"", None)):
        found = read_metadata(b"\xff\xd8" + jpeg_segment(0xE1, b"Exif\0\0" + body))
        assert found.exif == kept


def test_a_profile_of_a_jpeg_counts_with_all_its_pieces_in_any_sequence():
    def pieces(*each):
        head = b"ICC_PROFILE\0"
        parts = [jpeg_segment(0xE2, head + bytes(numbers) + body) for *numbers, body in each]
        return read_metadata(b"\xff\xd8" + b"".join(parts)).profile

    assert pieces((2, 2, b"b"), (1, 2, b"a")) == b"ab" and pieces((1, 1, b"a")) == b"a"
    for wrong in (((1, 2, b"a"),), ((1, 2, b"a"), (3, 2, b"b")), ((1, 1, b"a"), (2, 2, b"b"))):
        assert pieces(*wrong) is None
    assert pieces((1, 1, b"")) is None


def test_of_several_blocks_of_a_png_the_first_counts():
    def profile(body, name=b"name\0\0"):
        return png_chunk(b"iCCP", name + zlib.compress(body))

    def text(body):
        return png_chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + body)

    blocks = [png_chunk(b"eXIf", exif(turn)) for turn in (3, 6)]
    data = [profile(b"one"), profile(b"two"), *blocks, text(b"<a>"), text(b"<b>")]
    found = read_metadata(b"\x89PNG\r\n\x1a\n" + b"".join(data))
    assert (found.profile, found.exif, found.xmp) == (b"one", exif(3), b"<a>")
    for nameless in (profile(b"one", b""), png_chunk(b"iCCP", b"name")):
        found = read_metadata(b"\x89PNG\r\n\x1a\n" + nameless)
        assert found.profile is None


def test_the_bytes_of_a_tag_are_all_of_its_values():
    held = {9: (tags.BYTE, b"abc"), 7: (tags.RATIONAL, bytes(range(16))), 8: (tags.SHORT, b"ab")}
    block = tags.with_tags(tags.EMPTY, [tags.Tag(tag, *said) for tag, said in held.items()])
    assert {tag: tags.value_bytes(block, tag) for tag in held} == {
        tag: data for tag, (_, data) in held.items()
    }
    assert list(tiff.directory(block).entries) == [7, 8, 9]  # as TIFF demands
    assert tags.value_bytes(block, 10) is None and tags.value_bytes(block[:20], 7) is None


def test_quotients_are_those_of_32_bits_and_stay_where_none_was():
    for value, above, below in (
        (Fraction(2**32 - 1), 2**32 - 1, 1), (Fraction(2**32), 2**32 - 1, 1),
        (Fraction(2**32 - 1, 2), 2**32 - 1, 2), (Fraction(2**33 + 1, 2), 2**32 - 1, 1),
        (Fraction(1, 10_000), 1, 10_000), (Fraction(1, 30_000), 0, 1),
    ):  # fmt: skip
        assert tags.rational(value, ">") == struct.pack(">II", above, below)
    new = [tags.Tag(282, tags.RATIONAL, struct.pack("<II", 3, 2))]
    block = bytearray(tags.with_tags(tags.EMPTY, new))
    found, before = tiff.directory(bytes(block)), bytes(block)
    for tag, value in ((282, 2**32), (283, 7)):
        tags.set_fraction(block, found, tag, Fraction(value))
        assert block == before
    tags.set_fraction(block, found, 282, Fraction(2**32 - 1))
    assert tags.fraction_at(bytes(block), found, 282) == 2**32 - 1


def test_a_block_of_a_png_that_is_cut_off_or_damaged_is_left_out():
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"eXIf", exif(6))
    assert read_metadata(data).orientation == 6
    for end in (1, 4, 5, 30):
        assert read_metadata(data[:-end]).exif is None
    assert read_metadata(data[:-1] + bytes([data[-1] ^ 1])).exif is None


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


def test_a_text_of_a_png_whose_name_only_begins_like_xmp_is_a_text():
    body = b"XML:com.adobe.xmp2" + bytes(5) + b"<a>"
    found = read_metadata(b"\x89PNG\r\n\x1a\n" + png_chunk(b"iTXt", body))
    assert found == Metadata(png_chunks=((b"iTXt", body),))


def test_a_new_size_is_said_in_exif_and_xmp_alike():
    size = tags.Tag(tiff.WIDTH, tags.LONG, struct.pack("<I", 3))
    said = Metadata(exif=tags.with_tags(tags.EMPTY, [size]), xmp=b'<a tiff:ImageWidth="3">')
    found = said.of_size(7, 5)
    assert tiff.value(found.exif, tiff.WIDTH) == 7 and found.xmp == b'<a tiff:ImageWidth="7">'


def test_a_jfif_segment_may_end_with_its_resolution():
    for end, expected in ((12, Resolution(72, 72, "inch")), (11, None)):
        found = read_metadata(b"\xff\xd8" + jpeg_segment(0xE0, JFIF_OF_72[:end]))
        assert found.resolution == expected


JFIF_OF_72 = b"JFIF\0\1\1" + struct.pack(">BHH", 1, 72, 72) + bytes(2)


@pytest.mark.parametrize("text", [b"", b"\nexif\n 3\n", b"\nexif\n 3\nzz", b"\nexif\n 1\n\xff"])
def test_a_damaged_raw_profile_stays_a_text(tmp_path, text):
    save(tmp_path / "a.png", colours())
    data = (tmp_path / "a.png").read_bytes()
    body = b"Raw profile type exif\0" + text
    found = read_metadata(data[:33] + png_chunk(b"tEXt", body) + data[33:])
    assert found.exif is None and found.png_chunks == ((b"tEXt", body),)


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


def test_compressed_xmp_is_read_and_a_bomb_is_not(tmp_path):
    save(tmp_path / "a.png", colours())
    data = (tmp_path / "a.png").read_bytes()
    for text, expected in ((XMP, XMP), (bytes(2**24 + 1), None)):
        body = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text)
        with_xmp = data[:33] + png_chunk(b"iTXt", body) + data[33:]
        assert read_metadata(with_xmp).xmp == expected
        profile = data[:33] + png_chunk(b"iCCP", b"a\0\0" + zlib.compress(text)) + data[33:]
        assert read_metadata(profile).profile == expected


def test_directories_that_lead_to_themselves_or_to_one_block_end(tmp_path):
    """A block of 1 kB cannot become a file of gigabytes, nor keep the reader in a circle."""
    loop = tags.with_tags(tags.EMPTY, [tags.Tag(tags.EXIF, tags.LONG, struct.pack("<I", 8))])
    at = struct.unpack_from("<I", loop, 4)[0]
    loop = loop[: at + 10] + struct.pack("<I", at) + loop[at + 14 :]
    assert len(tags.with_tags(tags.EMPTY, tags.copied(loop, tags.DESCRIPTIVE, ">"))) < 1000
    entry = struct.pack("<HII", tags.UNDEFINED, 2**20, 8)
    many = b"".join(struct.pack("<H", number) + entry for number in range(270, 317))
    block = b"II*\0" + struct.pack("<I", 8 + 2**20) + bytes(2**20)
    block += struct.pack("<H", 47) + many + bytes(4)
    assert sum(len(tag.data) for tag in tags.copied(block, range(270, 317), "<")) <= tags.LONGEST


def test_a_block_of_the_other_byte_order_becomes_tags_of_a_tiff(tmp_path):
    big = b"MM\0*" + struct.pack(">IHHHII", 8, 1, 282, 5, 1, 26) + bytes(4)
    big += struct.pack(">II", 72, 1) + bytes(2)
    found = tags.with_tags(big, tags.copied(exif(), tags.DESCRIPTIVE, ">"))
    photo = Photo(colours().astype(np.float32) / 255, metadata=Metadata(exif=found))
    write_photo(tmp_path / "a.tif", photo)
    below = opened(tmp_path / "a.tif").getexif().get_ifd(0x8769)
    assert below[EXPOSURE] == 1 / 125 and below[0xA002] == 36


def test_a_resolution_is_that_of_the_file_before_that_of_exif_and_an_aspect_ratio_is_none(tmp_path):
    save(tmp_path / "a.jpg", colours(), block=exif(dpi=(300, 300)), dpi=(100, 100))
    assert read_photo(tmp_path / "a.jpg").metadata.resolution.per_inch() == (100, 100)
    save(tmp_path / "a.png", colours())
    data = (tmp_path / "a.png").read_bytes()
    for unit in (0, 1):
        chunk = png_chunk(b"pHYs", struct.pack(">IIB", 4000, 2000, unit))
        found = read_metadata(data[:33] + chunk + data[33:]).resolution
        assert (found is None) == (unit == 0)
    assert found.per_centimetre() == (40, 20)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("value", [Fraction(2**40), Fraction(2**34 - 1, 4), Fraction(1, 2**40)])
def test_resolutions_that_no_format_can_hold_are_written_as_the_nearest(tmp_path, kind, value):
    said = Metadata(resolution=Resolution(value, value, "inch"))
    write_photo(tmp_path / f"a.{kind}", Photo(colours().astype(np.float32) / 255, metadata=said))
    assert opened(tmp_path / f"a.{kind}").size == (36, 24)
    found = read_photo(tmp_path / f"a.{kind}").metadata.resolution
    if value > 1:
        assert found.x > 1e4
    most, least = {"jpg": (2**16 - 1, 1), "png": (2**31 - 1, 1)}.get(kind, (None, None))
    if most and value == 2**40:
        assert found.x * (100 if kind == "png" else 1) == most
    if least and value < 1:
        assert found.x * (100 if kind == "png" else 1) == least


def test_all_directories_of_exif_reach_a_tiff_and_its_values_have_even_places(tmp_path):
    index = tags.Tag(1, 2, b"R03\0")
    inside = (tags.Tag(tags.INTEROPERABILITY, tags.LONG, inside=(index,)),)
    block = tags.with_tags(tags.EMPTY + b"odd", [tags.Tag(tags.EXIF, tags.LONG, inside=inside)])
    assert struct.unpack_from("<I", block, 4)[0] % 2 == 0
    photo = Photo(colours().astype(np.float32) / 255, metadata=Metadata(exif=block))
    write_photo(tmp_path / "a.tif", photo)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.getexif().get_ifd(tags.INTEROPERABILITY) == {1: "R03"}


def test_types_that_only_bigtiff_has_are_not_copied():
    head = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2)
    entries = struct.pack("<HHQQ", 270, 16, 1, 5) + struct.pack("<HHQQ", 305, 3, 1, 5)
    found = tags.copied(head + entries + bytes(8), tags.DESCRIPTIVE, "<")
    assert [(tag.tag, tag.data) for tag in found] == [(305, b"\5\0")]


def test_a_size_of_more_than_16_bits_becomes_a_longer_number():
    for width in (36, 70_000):
        block = Metadata(exif=exif()).of_size(width, 24).exif
        (place,) = tiff.values(block, tags.EXIF)
        below = tiff.directory(block, place)
        assert tiff.values_in(block, below, 0xA002) == (width,)
        assert tiff.values_in(block, below, 0xA003) == (24,)


@pytest.mark.parametrize("quality", [None, 80])
@pytest.mark.parametrize("transparent", [False, True])
def test_the_header_of_a_webp_says_whether_it_has_alpha(tmp_path, quality, transparent):
    alpha = np.full((24, 36), 0.5, np.float32) if transparent else None
    photo = Photo(colours().astype(np.float32) / 255, alpha, metadata=Metadata(rgb_profile()))
    write_photo(tmp_path / "a.webp", photo, Saving(quality=quality))
    data = (tmp_path / "a.webp").read_bytes()
    assert data[12:16] == b"VP8X" and data[20] == (0x30 if transparent else 0x20)
    assert data[21:24] == bytes(3)  # reserved
    assert opened(tmp_path / "a.webp").mode == ("RGBA" if transparent else "RGB")


@pytest.mark.parametrize("kind", FORMATS)
def test_files_without_metadata_are_the_bytes_of_the_encoder(tmp_path, kind):
    """So nothing is slower or larger where there is nothing to keep."""
    photo = Photo(colours().astype(np.float32) / 255)
    write_photo(tmp_path / f"a.{kind}", photo)
    assert read_photo(tmp_path / f"a.{kind}").metadata == Metadata()


def test_pages_behind_the_first_stay_where_they_are_if_tags_are_added():
    """The new directory leads to what the old one led to."""
    data = tags.with_tags(tags.EMPTY, [tags.Tag(305, 2, b"first\0")])
    place = len(data) + len(data) % 2
    second, at = tags._written([tags.Tag(305, 2, b"second\0")], place, "<")
    link = tiff.directory(data).link
    data = (data[:link] + struct.pack("<I", at)).ljust(place, b"\0") + second
    more = tags.with_tags(data, [tags.Tag(270, 2, b"more\0")])
    directory = tiff.directory(more)
    assert set(directory.entries) == {270, 305} and len(more) % 2 == 0
    assert struct.unpack_from("<I", more, directory.link) == (at,)
    assert tiff.pages(more) == 2
    lone = tags.with_tags(tags.EMPTY, [])
    assert lone[tiff.directory(lone).link :] == bytes(4)


def test_a_raw_profile_of_application_data_may_be_xmp_and_other_texts_are_none():
    """ImageMagick's APP1 is EXIF or XMP; digits in a text of another name mean nothing."""
    plain = io.BytesIO()
    Image.fromarray(colours()).save(plain, "PNG")
    data = plain.getvalue()
    packet = b"http://ns.adobe.com/xap/1.0/\0" + PACKET
    digits = b"\n%s\n%8d\n%s\n"

    def read(name, kind, block):
        body = name + b"\0" + digits % (kind, len(block), block.hex().encode())
        return read_metadata(data[:33] + png_chunk(b"tEXt", body) + data[33:]), body

    found, _ = read(b"Raw profile type APP1", b"APP1", packet)
    assert (found.xmp, found.exif, found.png_chunks) == (PACKET, None, ())
    for name in (b"Comment", b"exif", b"Raw profile type iptc"):
        found, body = read(name, b"exif", b"Exif\0\0" + exif(6))
        assert found.exif is None and found.orientation == 1
        assert found.png_chunks == ((b"tEXt", body),)


def test_the_size_in_the_first_directory_of_exif_is_that_of_the_picture():
    block = tags.with_tags(
        tags.EMPTY,
        [tags.Tag(tag, tags.LONG, struct.pack("<I", 9)) for tag in (tiff.WIDTH, tiff.HEIGHT)],
    )
    found = Metadata(exif=block).of_size(72, 48).exif
    assert (tiff.value(found, tiff.WIDTH), tiff.value(found, tiff.HEIGHT)) == (72, 48)


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


def test_other_blocks_of_a_jpeg_beside_exif_and_xmp_are_neither(tmp_path):
    path = tmp_path / "a.jpg"
    save(path, colours(), xmp=XMP)
    data, other = path.read_bytes(), b"http://ns.adobe.com/xmp/extension/\0" + bytes(80)
    block = b"\xff\xe1" + struct.pack(">H", len(other) + 2) + other
    path.write_bytes(data[:2] + block + data[2:])
    found = read_photo(path).metadata
    assert found.xmp == XMP and found.exif is None


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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Fraction(72), (72, 1)),
        (Fraction(1, 3), (1, 3)),
        (Fraction(31415926, 10_000_000), (355, 113)),  # the nearest with at most four digits below
        (Fraction(2**32 + 1, 2), (2**31, 1)),
        (Fraction(2**32 - 1), (2**32 - 1, 1)),
        (Fraction(2**40), (2**32 - 1, 1)),
    ],
)
def test_a_quotient_is_the_nearest_of_two_numbers_of_32_bits(value, expected):
    for endian in "<>":
        assert struct.unpack(f"{endian}II", tags.rational(value, endian)) == expected


def test_at_most_four_prefixes_of_a_namespace_are_looked_for():
    """A packet of thousands would take time that grows with its square."""
    space = b'xmlns:%s="http://ns.adobe.com/tiff/1.0/"'
    names = (b"a", b"b", b"c", b"d", b"e")
    packet = b" ".join(space % name for name in names)
    packet += b"".join(b' %s:Orientation="6"' % name for name in names)
    found = Metadata(xmp=packet).upright().xmp
    said = [b'%s:Orientation="1"' % name in found for name in names]
    assert said == [True, True, True, False, False]  # and tiff itself


def test_numbers_stay_of_their_type_and_are_read_to_the_last_byte():
    size = [tags.Tag(tiff.WIDTH, kind, struct.pack(form, 9)) for kind, form in ((4, "<I"),)]
    found = Metadata(exif=tags.with_tags(tags.EMPTY, size)).of_size(72, 48).exif
    assert tiff.directory(found).entries[tiff.WIDTH].kind == tags.LONG
    entry = struct.pack("<HHII", tags.X_RESOLUTION, tags.RATIONAL, 1, 26)
    block = b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + struct.pack("<II", 300, 7)
    for data, expected in ((block, Fraction(300, 7)), (block[:-1], None)):
        assert tags.fraction_at(data, tiff.directory(data), tags.X_RESOLUTION) == expected
    assert tiff.directory(block).link == 22 and tiff.directory(block[:24]).link is None


def test_values_of_every_type_have_the_size_of_the_specification():
    sizes = {1: "B", 2: "c", 3: "H", 4: "I", 5: "II", 6: "b", 7: "c", 8: "h", 9: "i", 10: "ii"}
    sizes |= {11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
    assert {kind: struct.calcsize(f"<{form}") for kind, form in sizes.items()} == tiff.SIZES
    assert {kind: sizes[kind] for kind in (1, 3, 4, 6, 8, 9, 16, 17)} == tiff._TYPES
