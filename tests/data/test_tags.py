"""Tags of EXIF blocks and TIFF files: directories, types and numbers, byte by byte."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tests.helpers.photographs import EXPOSURE, colours, exif, opened
from zoo.data import tags, tiff
from zoo.data.images import Photo, write_photo
from zoo.data.metadata import Metadata


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


def test_the_size_in_the_first_directory_of_exif_is_that_of_the_picture():
    block = tags.with_tags(
        tags.EMPTY,
        [tags.Tag(tag, tags.LONG, struct.pack("<I", 9)) for tag in (tiff.WIDTH, tiff.HEIGHT)],
    )
    found = Metadata(exif=block).of_size(72, 48).exif
    assert (tiff.value(found, tiff.WIDTH), tiff.value(found, tiff.HEIGHT)) == (72, 48)


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
