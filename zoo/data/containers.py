"""The parts of image files: segments of JPEG, chunks of PNG and of WebP, blocks of GIF.

Nothing here trusts a file: a part may claim to be longer than the file, and parsing ends there.

Sources: JPEG (ITU T.81) Annex B, PNG (3rd ed.) Sec. 5, RIFF as in the WebP
container specification, GIF89a Sec. 17 to 27.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8"
BMP_SIGNATURE = b"BM"
GIF_SIGNATURES = (b"GIF87a", b"GIF89a")

EOI = 0xD9
"""JPEG marker of the end of the image."""

SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers of the header of an image."""

_JPEG_MARKER = re.compile(rb"\xff[^\0\xff]")
_JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length: TEM, RST0 to RST7 and SOI."""


def is_webp(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment, up to the end of the image.

    As in libjpeg, bytes between segments are skipped. They include the image data, in which 0xFF is
    followed by zero.
    """
    start = 2
    while found := _JPEG_MARKER.search(data, start):
        marker, start = data[found.end() - 1], found.end() - 2
        if marker == EOI:
            yield marker, start, start + 2
            return
        if marker in _JPEG_ALONE:
            start += 2
            continue
        if start + 4 > len(data):
            return
        (length,) = struct.unpack_from(">H", data, start + 2)
        yield marker, start, start + 2 + length
        start += 2 + max(length, 2)


def jpeg_frame(data: bytes) -> bytes:
    """Bits, height, width and number of channels, 1, 2, 2 and 1 bytes; shorter without a header."""
    start = next((a for marker, a, _ in jpeg_segments(data) if marker in SOF), len(data))
    return data[start + 4 : start + 10]


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk, including its length and checksum."""
    start = len(PNG_SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        yield data[start + 4 : start + 8], start, start + 12 + length
        start += 12 + length


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of a WebP file; padding after the payload is excluded."""
    start = 12
    while start + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, start + 4)
        yield data[start : start + 4], start, start + 8 + length
        start += 8 + length + length % 2


def gif_frames(data: bytes) -> Iterator[int]:
    """Start of each frame of a GIF file, up to the first block that is none."""

    def behind_colours(at: int, flags: int) -> int:
        return at + 3 * 2 ** (flags % 8 + 1) * (flags >> 7)

    at = behind_colours(13, data[10]) if len(data) > 12 else len(data)
    while at + 1 < len(data) and data[at] in b"!,":
        if data[at] == ord(","):
            yield at
            flags = data[at + 9] if at + 9 < len(data) else 0
            at = behind_colours(at + 10, flags) + 1
        else:
            at += 2
        while at < len(data) and data[at]:  # sub-blocks, each with its length first
            at += data[at] + 1
        at += 1


def png_chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def riff_chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk of a WebP file with its length and padding."""
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """Return a segment with its marker and length; the body has at most 65533 bytes."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
