"""Values in TIFF files and EXIF blocks, and the checksums of compressed TIFF images.

Sources: TIFF 6.0 Sec. 2 and 15, the BigTIFF specification of libtiff.
"""

from __future__ import annotations

import struct
import zlib

WIDTH, HEIGHT, BITS, COMPRESSION, FILL_ORDER, SAMPLES = 256, 257, 258, 259, 266, 277
ORIENTATION, EXTRA_SAMPLES = 274, 338
_DATA = ((273, 279), (324, 325))
"""Tags of the places and the lengths of the strips, and of the tiles."""

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_DEFLATE = (8, 32946)
"""Values of the compression tag."""

_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
"""Integer types of values."""

_MOST = 2**20
"""Values of one tag that are read."""

_BITS_REVERSED = 2
"""Value of the fill order tag."""

_PIECE = 2**20

_PADDING = 2**24
"""Bytes of tiles beyond the borders of an image that are always allowed."""


def values(block: bytes, tag: int) -> tuple[int, ...]:
    """Integers of a tag in the first directory of a TIFF, a BigTIFF or an EXIF block.

    Returns:
        The values; none if the tag is missing or has no integers.
    """
    if block[:4] not in SIGNATURES:
        return ()
    endian = "<" if block[:2] == b"II" else ">"
    big = b"+" in block[2:4]
    # Formats of the number of entries, and of an entry: tag, type and number of its values.
    counter, start_at, head = ("Q", 8, "HHQ") if big else ("H", 4, "HHI")
    offset = "Q" if big else "I"
    head_size, inline = struct.calcsize(f"<{head}"), struct.calcsize(f"<{offset}")
    try:
        (at,) = struct.unpack_from(endian + offset, block, start_at)
        (entries,) = struct.unpack_from(endian + counter, block, at)
        at += struct.calcsize(f"<{counter}")
        for _ in range(entries):
            found, kind, count = struct.unpack_from(endian + head, block, at)
            at += head_size
            if found == tag:
                if kind not in _TYPES or count > _MOST:
                    return ()
                form = f"{endian}{count}{_TYPES[kind]}"
                if struct.calcsize(form) > inline:
                    (at,) = struct.unpack_from(endian + offset, block, at)
                return struct.unpack_from(form, block, at)
            at += inline
    except (struct.error, OverflowError):
        pass  # the block ends early
    return ()


def value(block: bytes, tag: int) -> int | None:
    """First integer of a tag, or None; see :func:`values`."""
    return next(iter(values(block, tag)), None)


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
