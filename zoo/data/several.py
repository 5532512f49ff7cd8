"""Files of a format for one picture that hold several: MPO, which is JPEG, and APNG, which is PNG.

Sources: Multi-Picture Format (CIPA DC-007) Sec. 5.2, PNG (3rd ed.) Sec. 4.9 and 11.3.5.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from zoo.data import tiff
from zoo.data.containers import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    jpeg_frame,
    jpeg_segments,
    png_chunk,
    png_chunks,
)

_MPF = b"MPF\0"
_PICTURES = 0xB002
"""Tag of the list of pictures, 16 bytes each: attributes, size, place, and two other pictures."""

_APP2, _SOS = 0xE2, 0xDA


class Animation(NamedTuple):
    """What a PNG file says of its animation.

    Attributes:
        frames: number of frames of the animation; 0 without one.
        still: whether the picture that other programs show is none of them.
    """

    frames: int
    still: bool


def jpeg_pictures(data: bytes) -> list[bytes]:
    """Split a JPEG file into its pictures of full size.

    Previews, gain maps and depth maps are left out: they have another size or number of channels.
    """
    for marker, start, end in jpeg_segments(data):
        if marker == _SOS:
            break
        if marker == _APP2 and data[start + 4 : start + 8] == _MPF:
            return _listed(data, start + 8, end) or [data]
    return [data]


def _listed(data: bytes, start: int, end: int) -> list[bytes]:
    """The pictures of full size in the list of a segment."""
    block = data[start:end]
    found, left, full = tiff.directory(block), len(data), list[bytes]()
    entry = found.entries.get(_PICTURES)
    if entry is None:
        return []
    held = block[entry.place : entry.place + entry.number]
    for at in range(0, len(held) - 15, 16):
        _, size, place = struct.unpack_from(f"{found.endian}III", held, at)
        left -= size
        if left < 0:  # pictures that overlap would take as long as a file that is much larger
            break
        begin = start + place if place else 0  # places are counted from the block on
        picture = data[begin : begin + size]
        whole = len(picture) == size and picture.startswith(JPEG_SIGNATURE)
        if whole and jpeg_frame(picture) == jpeg_frame(data):
            full.append(picture)
    return full


def png_animation(data: bytes) -> Animation:
    """Read what a PNG file says of its animation."""
    frames, first = 0, b""
    for name, start, end in png_chunks(data):
        if name == b"acTL" and end - start == 20:
            frames = int.from_bytes(data[start + 8 : start + 12], "big")
        if name in (b"fcTL", b"IDAT"):
            first = first or name
    return Animation(frames, frames > 0 and first == b"IDAT")


def with_second_frame(data: bytes) -> bytes:
    """Repeat the one frame of an animation: OpenCV would return the still picture in its place."""
    parts, repeated = [PNG_SIGNATURE], list[tuple[bytes, bytes]]()
    for name, start, end in png_chunks(data):
        body = data[start + 8 : end - 4]
        if name == b"acTL":
            body = struct.pack(">I", 2) + body[4:]
        elif name in (b"fcTL", b"fdAT"):
            repeated.append((name, body))
        elif name == b"IEND":
            for number, (again, what) in enumerate(repeated, len(repeated)):
                parts.append(png_chunk(again, struct.pack(">I", number) + what[4:]))
        parts.append(png_chunk(name, body))
    return b"".join(parts)
