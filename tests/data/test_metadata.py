"""What a photo says (EXIF, XMP, resolution): read from its file, and kept in every format."""

from __future__ import annotations

import io
import struct
import time
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.helpers.networks import Nearest
from tests.helpers.photographs import (
    EXPOSURE,
    FORMATS,
    LATITUDE,
    MAKER,
    XMP,
    colours,
    exif,
    opened,
    restored,
    save,
    xmp_of,
)
from tests.helpers.profiles import rgb_profile
from zoo.data import tags, tiff
from zoo.data.containers import jpeg_segment, png_chunk
from zoo.data.images import Photo, Saving, read_photo, write_photo
from zoo.data.metadata import Metadata, Resolution, read_metadata


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


def test_a_block_of_a_png_that_is_cut_off_or_damaged_is_left_out():
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"eXIf", exif(6))
    assert read_metadata(data).orientation == 6
    for end in (1, 4, 5, 30):
        assert read_metadata(data[:-end]).exif is None
    assert read_metadata(data[:-1] + bytes([data[-1] ^ 1])).exif is None


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


def test_compressed_xmp_is_read_and_a_bomb_is_not(tmp_path):
    save(tmp_path / "a.png", colours())
    data = (tmp_path / "a.png").read_bytes()
    for text, expected in ((XMP, XMP), (bytes(2**24 + 1), None)):
        body = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text)
        with_xmp = data[:33] + png_chunk(b"iTXt", body) + data[33:]
        assert read_metadata(with_xmp).xmp == expected
        profile = data[:33] + png_chunk(b"iCCP", b"a\0\0" + zlib.compress(text)) + data[33:]
        assert read_metadata(profile).profile == expected


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


def test_other_blocks_of_a_jpeg_beside_exif_and_xmp_are_neither(tmp_path):
    path = tmp_path / "a.jpg"
    save(path, colours(), xmp=XMP)
    data, other = path.read_bytes(), b"http://ns.adobe.com/xmp/extension/\0" + bytes(80)
    block = b"\xff\xe1" + struct.pack(">H", len(other) + 2) + other
    path.write_bytes(data[:2] + block + data[2:])
    found = read_photo(path).metadata
    assert found.xmp == XMP and found.exif is None


def test_at_most_four_prefixes_of_a_namespace_are_looked_for():
    """A packet of thousands would take time that grows with its square."""
    space = b'xmlns:%s="http://ns.adobe.com/tiff/1.0/"'
    names = (b"a", b"b", b"c", b"d", b"e")
    packet = b" ".join(space % name for name in names)
    packet += b"".join(b' %s:Orientation="6"' % name for name in names)
    found = Metadata(xmp=packet).upright().xmp
    said = [b'%s:Orientation="1"' % name in found for name in names]
    assert said == [True, True, True, False, False]  # and tiff itself
