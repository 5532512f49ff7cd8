"""Copying and writing tags of TIFF files and of EXIF blocks, which are small TIFF files.

Nothing is moved: a number is changed in its place, and tags are added by appending a new first
directory. So places inside the block that a camera wrote into its own notes stay right.

Sources: TIFF 6.0 Sec. 2, EXIF 2.32 Sec. 4.6.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from zoo.data import tiff
from zoo.data.tiff import Directory

BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7
"""Numbers of types of values."""

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
XMP, PROFILE = 700, 34675
EXIF, GPS, INTEROPERABILITY = 34665, 34853, 40965
"""Tags with the place of another directory."""

DESCRIPTIVE = (
    270, 271, 272, tiff.ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, 305, 306, 315,
    316, 18246, 18249, 33432, EXIF, GPS, *range(40091, 40096),
)  # fmt: skip
"""Tags of the first directory that describe a picture and not how its file is stored: description,
maker, model, resolution, software, date, artist, rating, copyright, EXIF, GPS and titles."""

EMPTY = b"II*\0" + struct.pack("<IHI", 8, 0, 0)
"""A block without tags."""

LONGEST = 2**24
"""Bytes of values that are copied from a block."""

_POINTERS = (EXIF, GPS, INTEROPERABILITY)
_DEEPEST = 2
"""Levels of directories below the first: EXIF, and the interoperability directory in it."""

_WORDS = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8}
"""Bytes of a number in the byte order of the block, by the number of the type."""

_CLASSIC_TYPES = range(1, 13)
"""Types of values outside BigTIFF, without those that are places of directories."""


class Tag(NamedTuple):
    """A tag with its values.

    Attributes:
        tag: its number.
        kind: number of the type of the values.
        data: the values in the byte order of the block.
        inside: if the value is the place of another directory, the tags of that directory.
    """

    tag: int
    kind: int
    data: bytes = b""
    inside: tuple[Tag, ...] = ()


def byte_order(block: bytes) -> str:
    """Byte order of a block as in ``struct``, "<" or ">"."""
    return "<" if block[:2] == b"II" else ">"


def value_bytes(block: bytes, tag: int) -> bytes | None:
    """Return the bytes of a tag of the first directory, or None if it is missing or too long."""
    entry = tiff.directory(block).entries.get(tag)
    size = 0 if entry is None else tiff.SIZES.get(entry.kind, 0) * entry.number
    if entry is None or not 0 < size <= LONGEST or entry.place + size > len(block):
        return None
    return block[entry.place : entry.place + size]


def copied(block: bytes, wanted: Collection[int], endian: str) -> tuple[Tag, ...]:
    """Copy tags of the first directory, and all tags of the directories that they lead to.

    Args:
        block: a TIFF file or an EXIF block.
        wanted: the tags of the first directory to copy.
        endian: byte order of the copies.

    Returns:
        The tags that are there, up to :data:`LONGEST` bytes.
    """
    swaps, left = endian != byte_order(block), LONGEST

    def inside(found: Directory, depth: int, kept: Collection[int] | None) -> Iterator[Tag]:
        nonlocal left
        for tag, entry in found.entries.items():
            if kept is not None and tag not in kept:
                continue
            if tag in _POINTERS:
                place = tiff.values_in(block, found, tag)
                if len(place) == 1 and depth < _DEEPEST:
                    below = tuple(inside(tiff.directory(block, place[0]), depth + 1, None))
                    if below:
                        yield Tag(tag, LONG, inside=below)
                continue
            size = tiff.SIZES.get(entry.kind, 0) * entry.number
            if entry.kind not in _CLASSIC_TYPES or not 0 < size <= left:
                continue
            data = block[entry.place : entry.place + size]
            if len(data) == size:
                left -= size
                yield Tag(tag, entry.kind, _swapped(data, entry.kind) if swaps else data)

    return tuple(inside(tiff.directory(block), 0, wanted))


def with_tags(block: bytes, new: Sequence[Tag]) -> bytes:
    """Return a block with more tags in its first directory; tags of the same number are replaced.

    Args:
        block: a TIFF file or an EXIF block, but no BigTIFF.
        new: the tags.
    """
    endian, found = byte_order(block), tiff.directory(block)
    numbers = {tag.tag for tag in new}
    kept = [
        (tag, block[entry.at : entry.at + 12])
        for tag, entry in found.entries.items()
        if tag not in numbers
    ]
    link = b"\0\0\0\0" if found.link is None else block[found.link : found.link + 4]
    padding = bytes(len(block) % 2)
    body, place = _written(new, len(block) + len(padding), endian, kept, link)
    start = block[:4] + struct.pack(f"{endian}I", place)
    return b"".join((start, memoryview(block)[8:], padding, body))


def _written(
    tags: Sequence[Tag],
    at: int,
    endian: str,
    kept: Sequence[tuple[int, bytes]] = (),
    link: bytes = b"\0\0\0\0",
) -> tuple[bytes, int]:
    """Bytes of values and of their directory, for the place ``at``; and the directory's place."""
    body, entries = bytearray(), list(kept)
    for tag, kind, data, inside in tags:
        if inside:
            part, place = _written(inside, at + len(body), endian)
            body += part
            data = struct.pack(f"{endian}I", place)
        count = len(data) // tiff.SIZES[kind]
        if len(data) > 4:
            place = at + len(body)
            body += data + bytes(len(data) % 2)
            data = struct.pack(f"{endian}I", place)
        entries.append((tag, struct.pack(f"{endian}HHI", tag, kind, count) + data.ljust(4, b"\0")))
    place = at + len(body)
    body += struct.pack(f"{endian}H", len(entries))
    body += b"".join(entry for _, entry in sorted(entries)) + link
    return bytes(body), place


def rational(value: Fraction, endian: str) -> bytes:
    """Return the bytes of a positive number, at most 2^32 - 1, as a quotient of two integers."""
    near = value.limit_denominator(10_000)
    if near.numerator >= 2**32:
        near = Fraction(min(round(value), 2**32 - 1))
    return struct.pack(f"{endian}II", near.numerator, near.denominator)


def fraction_at(block: bytes, found: Directory, tag: int) -> Fraction | None:
    """Return the number of a tag that is one quotient, or None."""
    entry = found.entries.get(tag)
    if entry is None or entry.kind != RATIONAL or entry.place + 8 > len(block):
        return None
    above, below = struct.unpack_from(f"{found.endian}II", block, entry.place)
    return Fraction(above, below) if below else None


def set_fraction(block: bytearray, found: Directory, tag: int, value: Fraction) -> None:
    """Write a quotient in the place of another one; without one, do nothing."""
    if value < 2**32 and fraction_at(bytes(block), found, tag) is not None:
        place = found.entries[tag].place
        block[place : place + 8] = rational(value, found.endian)


def set_number(block: bytearray, found: Directory, tag: int, value: int) -> None:
    """Write an integer from 0 to 2^32 - 1 in the place of another one; without one, do nothing."""
    entry = found.entries.get(tag)
    if entry is None or entry.number != 1 or entry.kind not in (BYTE, SHORT, LONG):
        return
    form = "H" if value < 2**16 and entry.kind != LONG else "I"
    kind = SHORT if form == "H" else LONG
    struct.pack_into(f"{found.endian}HI{form}", block, entry.at + 2, kind, 1, value)


def _swapped(data: bytes, kind: int) -> bytes:
    return np.frombuffer(data, f"u{_WORDS.get(kind, 1)}").byteswap().tobytes()
