"""Writing metadata into the bytes of an encoded image file.

Sources: see :mod:`zoo.data.metadata`.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from zoo.data import headers, tags
from zoo.data.containers import (
    BMP_SIGNATURE,
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    is_webp,
    jpeg_segment,
    png_chunk,
    riff_chunk,
    riff_chunks,
)
from zoo.data.metadata import (
    JFIF,
    JPEG_EXIF,
    JPEG_PROFILE,
    JPEG_XMP,
    PNG_XMP,
    Metadata,
    Resolution,
)
from zoo.data.tags import Tag

log = logging.getLogger(__name__)

_SEGMENT = 65533
"""Largest body of a JPEG segment."""

_SPACES = {1: b"GRAY", 3: b"RGB "}
"""How ICC profiles name the colours of a picture with so many channels."""

_SRGB_CODES = (b"\1\r\0\1", b"\1\1\0\1")
"""Bodies of the chunk cICP for sRGB and for BT.709, which programs show alike."""

_SRGB_CHUNKS = {
    b"gAMA": (45455,),
    b"cHRM": (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
}
"""Numbers of sRGB in units of 1/100000: the exponent, and places of white, red, green and blue."""

_NEAR = 500
"""Differences from these numbers that nobody sees."""

_PROFILE_NAME = b"ICC profile\0\0"

_VP8L_ALPHA = 0x10
"""Bit of the fifth byte of a lossless WebP image that says that it has alpha."""


def embedded(path: Path, encoded: bytes, metadata: Metadata, shape: tuple[int, int, int]) -> bytes:
    """Return an image file with metadata in it.

    What the format cannot hold is left out; a warning says so.

    Args:
        path: the file to be written, for warnings.
        encoded: its bytes as they come from the encoder.
        metadata: what the file shall say.
        shape: (height, width, colour channels).
    """
    height, width, channels = shape
    metadata = metadata.of_size(width, height)
    if lost := _lost(metadata, encoded):
        log.warning("%s: dropped, because the format cannot hold it: %s", path, ", ".join(lost))
    profile = _fitting(path, metadata.profile, channels)
    metadata = Metadata(
        profile, metadata.exif, metadata.xmp, metadata.resolution, metadata.png_chunks
    )
    if metadata == Metadata():
        return encoded
    write: Callable[[Path, bytes, Metadata], bytes]
    if encoded.startswith(PNG_SIGNATURE):
        write = _into_png
    elif encoded.startswith(JPEG_SIGNATURE):
        write = _into_jpeg
    elif is_webp(encoded):
        write = _into_webp
    elif encoded.startswith((b"II*\0", b"MM\0*")):
        write = _into_tiff
    else:
        return encoded
    return write(path, encoded, metadata)


def _lost(said: Metadata, encoded: bytes) -> list[str]:
    """Name what a format cannot hold."""
    lost = []
    if encoded.startswith(BMP_SIGNATURE):
        each = {
            "colour profile": said.profile,
            "EXIF": said.exif,
            "XMP": said.xmp,
            "resolution": said.resolution,
        }
        lost = [name for name, value in each.items() if value]
    if not encoded.startswith(PNG_SIGNATURE) and (chunk := _colours(said)):
        lost.append(f"the meaning of colours ({chunk} of PNG), so that they can look different")
    return lost


def _colours(said: Metadata) -> str:
    """Name of the chunk that makes the colours of a PNG file others than usual, or ""."""
    chunks = dict(said.png_chunks)
    if b"cICP" in chunks:  # it comes before all others
        return "" if chunks[b"cICP"] in _SRGB_CODES else "cICP"
    if said.profile or b"sRGB" in chunks:
        return ""
    for name, usual in _SRGB_CHUNKS.items():
        numbers = chunks.get(name, b"")
        if len(numbers) == 4 * len(usual):
            held = struct.unpack(f">{len(usual)}I", numbers)
            if any(abs(a - b) > _NEAR for a, b in zip(held, usual, strict=True)):
                return name.decode()
    return ""


def _fitting(path: Path, profile: bytes | None, channels: int) -> bytes | None:
    """Return a colour profile if it is one for pictures with so many channels."""
    if profile is None:
        return None
    if len(profile) < 128 or profile[36:40] != b"acsp":
        log.warning("%s: the colour profile is damaged and is dropped", path)
        return None
    if profile[16:20] != _SPACES[channels]:
        space = profile[16:20].decode("latin-1").strip()
        log.warning(
            "%s: the colour profile is dropped, because it is for %s and the picture is %s",
            path,
            space,
            "gray" if channels == 1 else "RGB",
        )
        return None
    return profile


def _into_png(path: Path, encoded: bytes, said: Metadata) -> bytes:
    parts = []
    if said.profile:
        parts.append(png_chunk(b"iCCP", _PROFILE_NAME + zlib.compress(said.profile)))
    parts += [png_chunk(name, body) for name, body in said.png_chunks]
    if said.exif:
        parts.append(png_chunk(b"eXIf", said.exif))
    if said.resolution:
        both = said.resolution.per_centimetre()
        x, y = (max(1, min(round(value * 100), 2**31 - 1)) for value in both)
        parts.append(png_chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if said.xmp:
        parts.append(png_chunk(b"iTXt", PNG_XMP + bytes(5) + said.xmp))
    end = len(PNG_SIGNATURE) + 25  # of the first chunk, IHDR
    return b"".join((encoded[:end], *parts, memoryview(encoded)[end:]))


def _into_jpeg(path: Path, encoded: bytes, said: Metadata) -> bytes:
    # The encoder writes SOI and the segment JFIF, which must stay first.
    start, end = bytearray(encoded[:20]), 20
    if bytes(start[6:11]) != JFIF:
        start, end = start[:2], 2
    elif said.resolution:
        both = said.resolution.per_centimetre()
        # Numbers are whole here, so those per centimetre are taken only where they are exact.
        metric = said.resolution.unit == "centimetre" and all(v.denominator == 1 for v in both)
        both = both if metric else said.resolution.per_inch()
        x, y = (max(1, min(round(value), 2**16 - 1)) for value in both)
        struct.pack_into(">BHH", start, 13, 2 if metric else 1, x, y)
    parts = [bytes(start)]
    for name, marker, body in (("EXIF", JPEG_EXIF, said.exif), ("XMP", JPEG_XMP, said.xmp)):
        if body and len(marker) + len(body) > _SEGMENT:
            log.warning("%s: %s of %d bytes is dropped: JPEG holds 65 kB", path, name, len(body))
        elif body:
            parts.append(jpeg_segment(0xE1, marker + body))
    if said.profile:
        parts += _profile_segments(path, said.profile)
    return b"".join((*parts, memoryview(encoded)[end:]))


def _profile_segments(path: Path, profile: bytes) -> list[bytes]:
    size = _SEGMENT - len(JPEG_PROFILE) - 2
    pieces = [profile[at : at + size] for at in range(0, len(profile), size)]
    if len(pieces) > 255:
        log.warning("%s: the colour profile is dropped: JPEG holds at most 16 MB", path)
        return []
    return [
        jpeg_segment(0xE2, JPEG_PROFILE + bytes([number, len(pieces)]) + piece)
        for number, piece in enumerate(pieces, start=1)
    ]


def _into_webp(path: Path, encoded: bytes, said: Metadata) -> bytes:
    exif, size = said.exif, headers.size(encoded)
    if said.resolution:  # WebP has it in EXIF only
        exif = exif or tags.EMPTY
        if tags.value_bytes(exif, tags.X_RESOLUTION) is None:
            exif = tags.with_tags(exif, _resolution_tags(said.resolution, tags.byte_order(exif)))
    assert size is not None  # the encoder has just written it
    picture = [(name, encoded[a + 8 : b]) for name, a, b in riff_chunks(encoded) if name != b"VP8X"]
    alpha = any(
        name == b"ALPH" or (name == b"VP8L" and body[4] & _VP8L_ALPHA) for name, body in picture
    )
    flags = 0x20 * bool(said.profile) | 0x10 * alpha | 0x08 * bool(exif) | 0x04 * bool(said.xmp)
    width, height = ((side - 1).to_bytes(3, "little") for side in size)
    header = bytes([flags, 0, 0, 0]) + width + height
    chunks = [(b"VP8X", header), (b"ICCP", said.profile), *picture, (b"EXIF", exif)]
    chunks.append((b"XMP ", said.xmp))
    body = b"WEBP" + b"".join(riff_chunk(name, held) for name, held in chunks if held)
    return riff_chunk(b"RIFF", body)


def _into_tiff(path: Path, encoded: bytes, said: Metadata) -> bytes:
    endian = tags.byte_order(encoded)
    new = {tag.tag: tag for tag in tags.copied(said.exif or b"", tags.DESCRIPTIVE, endian)}
    if said.resolution:
        new |= {tag.tag: tag for tag in _resolution_tags(said.resolution, endian)}
    if said.profile:
        new[tags.PROFILE] = Tag(tags.PROFILE, tags.UNDEFINED, said.profile)
    if said.xmp:
        new[tags.XMP] = Tag(tags.XMP, tags.BYTE, said.xmp)
    return tags.with_tags(encoded, list(new.values()))


def _resolution_tags(resolution: Resolution, endian: str) -> list[Tag]:
    unit = struct.pack(f"{endian}H", 3 if resolution.unit == "centimetre" else 2)
    return [
        Tag(tags.X_RESOLUTION, tags.RATIONAL, tags.rational(resolution.x, endian)),
        Tag(tags.Y_RESOLUTION, tags.RATIONAL, tags.rational(resolution.y, endian)),
        Tag(tags.RESOLUTION_UNIT, tags.SHORT, unit),
    ]
