"""Values in TIFF files and EXIF blocks, and the checksums of compressed TIFF images.

Sources: TIFF 6.0 Sec. 2 and 15, the BigTIFF specification of libtiff.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

WIDTH, HEIGHT, BITS, COMPRESSION, FILL_ORDER, SAMPLES = 256, 257, 258, 259, 266, 277
PHOTOMETRIC, ORIENTATION, EXTRA_SAMPLES = 262, 274, 338
PLANES, TILE_WIDTH, TILE_HEIGHT = 284, 322, 323
SUBFILE, SUB_DIRECTORIES = 254, 330
_DATA = ((273, 279), (324, 325))
"""Tags of the places and the lengths of the strips, and of the tiles."""

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_DEFLATE = (8, 32946)
"""Values of the compression tag."""

_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
"""Integer types of values."""

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
         16: 8, 17: 8, 18: 8}  # fmt: skip
"""Bytes of a value by the number of its type."""

_MOST = 2**20
"""Values of one tag that are read."""

_ASIDE = 1 | 4
"""Bits of the tag of the kind of a directory: a smaller version, and a mask."""

_MOST_ENTRIES = 2**16
"""Entries of a directory that are read: as many as a TIFF file can have."""

_BITS_REVERSED = 2
"""Value of the fill order tag."""

_PIECE = 2**20

_PADDING = 2**24
"""Bytes of tiles beyond the borders of an image that are always allowed."""


class Entry(NamedTuple):
    """An entry of a directory.

    Attributes:
        kind: number of the type of its values.
        number: number of values.
        at: where the entry starts.
        place: where its values start.
    """

    kind: int
    number: int
    at: int
    place: int


class Directory(NamedTuple):
    """A directory of a TIFF file or an EXIF block.

    Attributes:
        endian: byte order as in ``struct``, "<" or ">".
        entries: by tag. Of several entries with one tag, the first counts.
        link: where the place of the next directory is written, or None if the block ends early.
        place: where the directory starts.
    """

    endian: str
    entries: dict[int, Entry]
    link: int | None = None
    place: int = 0


def directory(block: bytes, at: int | None = None) -> Directory:
    """Read the directory at a place of a TIFF, a BigTIFF or an EXIF block; without one the first.

    Entries behind the end of the block, and all entries of other data, are left out.
    """
    endian = "<" if block[:2] == b"II" else ">"
    entries: dict[int, Entry] = {}
    if block[:4] not in SIGNATURES:
        return Directory(endian, entries)
    big = b"+" in block[2:4]
    # Formats of the number of entries, and of an entry: tag, type and number of its values.
    counter, start_at, head = ("Q", 8, "HHQ") if big else ("H", 4, "HHI")
    offset = endian + ("Q" if big else "I")
    head_size, inline = struct.calcsize(f"<{head}"), struct.calcsize(offset)
    try:
        if at is None:
            (at,) = struct.unpack_from(offset, block, start_at)
        (number,) = struct.unpack_from(endian + counter, block, at)
        start = at
        at += struct.calcsize(f"<{counter}")
        for _ in range(min(number, _MOST_ENTRIES)):
            tag, kind, count = struct.unpack_from(endian + head, block, at)
            place = at + head_size
            if SIZES.get(kind, 1) * count > inline:
                (place,) = struct.unpack_from(offset, block, place)
            entries.setdefault(tag, Entry(kind, count, at, place))
            at += head_size + inline
        struct.unpack_from(offset, block, at)
    except (struct.error, OverflowError):
        return Directory(endian, entries)
    return Directory(endian, entries, at, start)


def values(block: bytes, tag: int) -> tuple[int, ...]:
    """Integers of a tag in the first directory of a TIFF, a BigTIFF or an EXIF block.

    Returns:
        The values; none if the tag is missing or has no integers.
    """
    return values_in(block, directory(block), tag)


def values_in(block: bytes, found: Directory, tag: int) -> tuple[int, ...]:
    """Integers of a tag in a directory; see :func:`values`."""
    entry = found.entries.get(tag)
    if entry is None or entry.kind not in _TYPES or entry.number > _MOST:
        return ()
    try:
        form = f"{found.endian}{entry.number}{_TYPES[entry.kind]}"
        return struct.unpack_from(form, block, entry.place)
    except (struct.error, OverflowError):
        return ()  # the block ends early


def value(block: bytes, tag: int) -> int | None:
    """First integer of a tag, or None; see :func:`values`."""
    return next(iter(values(block, tag)), None)


def pages(data: bytes) -> int:
    """Number of pictures in a TIFF file: directories without reduced versions and masks.

    If a reduced version comes first, as in RAW photos, it counts beside the picture it stands for.
    """
    chain = list(_chain(data))
    number = sum(not _kind(data, found) & _ASIDE for found in chain)
    is_preview = bool(_kind(data, chain[0]) & _ASIDE)
    if is_preview and (number or SUB_DIRECTORIES in chain[0].entries):
        return max(1, number) + 1
    return max(1, number)


def split(data: bytes) -> Iterator[bytes]:
    """Yield a file for each page: the same bytes, with that page's directory as the only one."""
    big = b"+" in data[2:4]
    start, size = (8, 8) if big else (4, 4)
    for page in _chain(data):
        if _kind(data, page) & _ASIDE or page.link is None or page.link < start + size:
            continue
        place = struct.pack(page.endian + ("Q" if big else "I"), page.place)
        view = memoryview(data)
        between, behind = view[start + size : page.link], view[page.link + size :]
        yield b"".join((view[:start], place, between, bytes(size), behind))


def _kind(data: bytes, found: Directory) -> int:
    return next(iter(values_in(data, found, SUBFILE)), 0)


def _chain(data: bytes) -> Iterator[Directory]:
    """The first directory, and those that it leads to."""
    found, seen, left = directory(data), set[int](), len(data)
    yield found
    form = found.endian + ("Q" if b"+" in data[2:4] else "I")
    while found.link is not None:
        left -= found.link - found.place
        (at,) = struct.unpack_from(form, data, found.link)
        # Directories that overlap would take as long as a file that is much larger.
        if not at or at in seen or left < 0:
            return
        seen.add(at)
        found = directory(data, at)
        if not found.entries:
            return
        yield found


def bytes_of_pixel(data: bytes) -> int:
    """Bytes of a decoded pixel, at least 1; 1 for what is no TIFF."""
    bits, samples = value(data, BITS) or 1, value(data, SAMPLES) or 1
    return max(1, (bits * samples + 7) // 8)


def is_damaged(data: bytes) -> bool:
    """Whether a checksum of a TIFF with deflate compression is wrong. Its decoder reads none.

    Also if the parts of the image are together longer than the file, or become much larger than the
    image: checking them could take for ever.
    """
    if value(data, COMPRESSION) not in _DEFLATE or value(data, FILL_ORDER) == _BITS_REVERSED:
        return False
    parts = [
        (place, length)
        for places, lengths in _DATA
        for place, length in zip(values(data, places), values(data, lengths), strict=False)
        if length
    ]
    if sum(abs(length) for _, length in parts) > len(data):
        return True
    pixels = abs((value(data, WIDTH) or 0) * (value(data, HEIGHT) or 0))
    left = _PADDING + 4 * pixels * bytes_of_pixel(data)
    for place, length in parts:
        left -= _inflated_size(data[place : place + length], left)
        if left < 0:
            return True
    return False


def _inflated_size(deflated: bytes, most: int) -> int:
    """Size of deflated data; more than ``most`` if they are damaged or too large."""
    stream, size = zlib.decompressobj(), 0
    try:
        while deflated and not stream.eof and size <= most:
            size += len(stream.decompress(deflated, _PIECE))
            deflated = stream.unconsumed_tail
    except zlib.error:
        return most + 1
    return size if stream.eof else most + 1
