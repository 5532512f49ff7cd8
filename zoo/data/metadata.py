"""What image files say beside their pixels: colour profile, EXIF, XMP and resolution.

Blocks are kept byte for byte, and only numbers that would be wrong for the new picture change: the
orientation, because it has been applied; the resolution, because pixels have become more; and the
size in EXIF and XMP. No library is used for this: the one that could do it for pixels of 16 bits,
libvips, waits forever in a forked process. docs/data.md has the comparison.

Sources: EXIF 2.32 Sec. 4.6 and 4.7, PNG (3rd ed.) Sec. 11.3, JFIF 1.02, ICC.1:2022 Sec. 7.2 and
Annex B, XMP Part 3, WebP container specification, TIFF 6.0 Sec. 8.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from zoo.data import tags, tiff, xmp
from zoo.data.containers import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    is_webp,
    jpeg_segments,
    png_chunks,
    riff_chunks,
)

JPEG_EXIF, JPEG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
JPEG_PROFILE, JFIF = b"ICC_PROFILE\0", b"JFIF\0"
PNG_XMP = b"XML:com.adobe.xmp"
"""What marks a block in the part of a file that holds it."""

_PNG_KEPT = (b"cICP", b"gAMA", b"cHRM", b"sRGB", b"tEXt", b"zTXt", b"iTXt")
"""Chunks that a PNG file hands on to a PNG file: what colours mean, and texts."""

_SOS = 0xDA
_WIDTH, _HEIGHT = 0xA002, 0xA003
"""EXIF tags of the size of the picture."""

_RAW_PROFILE = b"Raw profile type "
_RAW_PROFILES = (b"exif", b"APP1", b"xmp")
"""What ImageMagick and others write as hexadecimal digits into a text of a PNG file."""


class Resolution(NamedTuple):
    """Pixels per unit of length.

    Attributes:
        x: along the width.
        y: along the height.
        unit: "inch" or "centimetre".
    """

    x: Fraction
    y: Fraction
    unit: str

    def per_inch(self) -> tuple[Fraction, Fraction]:
        """Pixels per inch along width and height."""
        factor = Fraction(254, 100) if self.unit == "centimetre" else 1
        return self.x * factor, self.y * factor

    def per_centimetre(self) -> tuple[Fraction, Fraction]:
        """Pixels per centimetre along width and height."""
        factor = 1 if self.unit == "centimetre" else Fraction(100, 254)
        return self.x * factor, self.y * factor


@dataclass(frozen=True)
class Metadata:
    """What a file says beside its pixels.

    Attributes:
        profile: the ICC colour profile.
        exif: the EXIF block, from its byte order on.
        xmp: the XMP packet.
        resolution: pixels per unit of length.
        png_chunks: name and body of chunks that only a PNG file can hold.
        orientation: how the pixels must be turned, 1 to 8 as in EXIF.
    """

    profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    resolution: Resolution | None = None
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    orientation: int = 1

    def upright(self) -> Metadata:
        """Return what is true after the picture has been turned.

        The small preview in EXIF is left out if the picture was turned, because it was not.
        """
        turn, resolution, exif = self.orientation, self.resolution, self.exif
        if turn > 4 and resolution is not None:
            resolution = resolution._replace(x=resolution.y, y=resolution.x)
        if turn > 1 and exif is not None:
            exif = _turned(exif, swap=turn > 4)
        packet = self.xmp and xmp.upright(self.xmp)
        return replace(self, exif=exif, xmp=packet, resolution=resolution, orientation=1)

    def enlarged(self, scale: int) -> Metadata:
        """Return what is true after each side has become ``scale`` times as many pixels."""
        if scale == 1:
            return self
        resolution, exif = self.resolution, self.exif
        if resolution is not None:
            resolution = resolution._replace(x=resolution.x * scale, y=resolution.y * scale)
        if exif is not None:
            block, found = bytearray(exif), tiff.directory(exif)
            for tag in (tags.X_RESOLUTION, tags.Y_RESOLUTION):
                value = tags.fraction_at(exif, found, tag)
                if value is not None:
                    tags.set_fraction(block, found, tag, value * scale)
            exif = bytes(block)
        packet = self.xmp and xmp.enlarged(self.xmp, scale)
        return replace(self, exif=exif, xmp=packet, resolution=resolution)

    def of_size(self, width: int, height: int) -> Metadata:
        """Return what is true for a picture of a size, if EXIF or XMP says a size."""
        packet = self.xmp and xmp.of_size(self.xmp, width, height)
        if self.exif is None:
            return replace(self, xmp=packet)
        block, found = bytearray(self.exif), tiff.directory(self.exif)
        for pointer in tiff.values_in(self.exif, found, tags.EXIF)[:1]:
            below = tiff.directory(self.exif, pointer)
            tags.set_number(block, below, _WIDTH, width)
            tags.set_number(block, below, _HEIGHT, height)
        tags.set_number(block, found, tiff.WIDTH, width)
        tags.set_number(block, found, tiff.HEIGHT, height)
        return replace(self, exif=bytes(block), xmp=packet)


NOTHING = Metadata()
"""What is said of pixels that come from no file."""


def read_metadata(data: bytes) -> Metadata:
    """Read what a PNG, JPEG, WebP or TIFF file says; what is damaged is left out."""
    if data.startswith(PNG_SIGNATURE):
        found = _of_png(data)
    elif data.startswith(JPEG_SIGNATURE):
        found = _of_jpeg(data)
    elif is_webp(data):
        found = _of_webp(data)
    elif data.startswith(tiff.SIGNATURES):
        return _of_tiff(data)
    else:
        return Metadata()
    return checked(found)


def checked(found: Metadata) -> Metadata:
    """Leave out an EXIF block that is none; take orientation and a missing resolution from it."""
    exif = None if found.exif is None else found.exif.removeprefix(JPEG_EXIF)
    if exif is not None and not exif.startswith(tiff.SIGNATURES[:2]):
        exif = None
    if exif is None:
        return replace(found, exif=None)
    resolution = found.resolution or _resolution(exif)
    return replace(found, exif=exif, resolution=resolution, orientation=_orientation(exif))


def _orientation(block: bytes) -> int:
    value = tiff.value(block, tiff.ORIENTATION)
    return value if value is not None and 1 <= value <= 8 else 1


def _turned(exif: bytes, *, swap: bool) -> bytes:
    block, found = bytearray(exif), tiff.directory(exif)
    tags.set_number(block, found, tiff.ORIENTATION, 1)
    both = [tags.fraction_at(exif, found, t) for t in (tags.X_RESOLUTION, tags.Y_RESOLUTION)]
    if swap and both[0] is not None and both[1] is not None:
        tags.set_fraction(block, found, tags.X_RESOLUTION, both[1])
        tags.set_fraction(block, found, tags.Y_RESOLUTION, both[0])
    if found.link is not None:
        block[found.link : found.link + 4] = bytes(4)
    return bytes(block)


def _resolution(block: bytes) -> Resolution | None:
    """Resolution in the first directory of a TIFF file or an EXIF block."""
    found = tiff.directory(block)
    x = tags.fraction_at(block, found, tags.X_RESOLUTION)
    y = tags.fraction_at(block, found, tags.Y_RESOLUTION)
    unit = {2: "inch", 3: "centimetre"}.get(tiff.value(block, tags.RESOLUTION_UNIT) or 2)
    return Resolution(x, y, unit) if x and y and unit else None


def _of_png(data: bytes) -> Metadata:
    found, raw, kept = Metadata(), Metadata(), []
    for name, start, end in png_chunks(data):
        body = data[start + 8 : end - 4] if name != b"IDAT" else b""
        if name == b"IDAT" or len(body) > tags.LONGEST or not _is_whole(data, start, end):
            continue
        if name == b"iCCP" and b"\0" in body:
            packed = body[body.index(b"\0") + 2 :]
            found = replace(found, profile=found.profile or inflated(packed))
        elif name == b"eXIf":
            found = replace(found, exif=found.exif or body)
        elif name == b"pHYs" and len(body) == 9:
            x, y, unit = struct.unpack(">IIB", body)
            if unit == 1 and x and y:
                both = Fraction(x, 100), Fraction(y, 100)
                found = replace(found, resolution=Resolution(*both, "centimetre"))
        elif name == b"iTXt" and body.startswith(PNG_XMP + b"\0"):
            found = replace(found, xmp=found.xmp or _international(body))
        elif name in (b"tEXt", b"zTXt") and (said := _raw_profile(name, body)):
            raw = replace(raw, exif=raw.exif or said.exif, xmp=raw.xmp or said.xmp)
        elif name in _PNG_KEPT:
            kept.append((name, body))
    exif, packet = found.exif or raw.exif, found.xmp or raw.xmp
    return replace(found, exif=exif, xmp=packet, png_chunks=tuple(kept))


def _raw_profile(name: bytes, body: bytes) -> Metadata | None:
    """EXIF or XMP of a text: an empty line, kind, number of bytes, and hexadecimal digits."""
    keyword, _, rest = body.partition(b"\0")
    kind = keyword.removeprefix(_RAW_PROFILE)
    if keyword == kind or kind not in _RAW_PROFILES:
        return None
    text = inflated(rest[1:]) if name == b"zTXt" else rest
    try:
        block = bytes.fromhex((text or b"").split(None, 2)[2].decode("ascii"))
    except (IndexError, ValueError):
        return None
    if kind == b"xmp" or block.startswith(JPEG_XMP):
        return Metadata(xmp=block.removeprefix(JPEG_XMP))
    return Metadata(exif=block)


def _is_whole(data: bytes, start: int, end: int) -> bool:
    if end > len(data):
        return False
    (checksum,) = struct.unpack_from(">I", data, end - 4)
    return bool(zlib.crc32(data[start + 4 : end - 4]) == checksum)


def _international(body: bytes) -> bytes | None:
    """The text of a chunk iTXt: keyword, whether and how it is compressed, language, keyword."""
    _, _, rest = body.partition(b"\0")
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return None
    return inflated(parts[2]) if rest[0] else parts[2]


def inflated(packed: bytes) -> bytes | None:
    """Inflate at most :data:`zoo.data.tags.LONGEST` bytes; None if they are damaged or more."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(packed, tags.LONGEST)
    except zlib.error:
        return None
    return data if stream.eof else None


def _of_jpeg(data: bytes) -> Metadata:
    found, profile = Metadata(), {}
    for marker, body in _jpeg_blocks(data):
        if marker == 0xE0 and body.startswith(JFIF) and len(body) >= 12:
            unit, x, y = struct.unpack_from(">BHH", body, 7)
            name = {1: "inch", 2: "centimetre"}.get(unit)
            if name and x and y:
                found = replace(found, resolution=Resolution(Fraction(x), Fraction(y), name))
        elif marker == 0xE1 and body.startswith(JPEG_EXIF):
            found = replace(found, exif=found.exif or body[len(JPEG_EXIF) :])
        elif marker == 0xE1 and body.startswith(JPEG_XMP):
            found = replace(found, xmp=found.xmp or body[len(JPEG_XMP) :])
        elif marker == 0xE2 and body.startswith(JPEG_PROFILE) and len(body) > 14:
            profile[body[12]] = (body[13], body[14:])
    pieces = [profile.get(number) for number in range(1, len(profile) + 1)]
    if profile and all(piece and piece[0] == len(profile) for piece in pieces):
        found = replace(found, profile=b"".join(piece[1] for piece in pieces if piece))
    return found


def _jpeg_blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of the segments before the image data."""
    for marker, start, end in jpeg_segments(data):
        if marker == _SOS:
            return
        if 0xE0 <= marker <= 0xE2 and end <= len(data):
            yield marker, data[start + 4 : end]


def _of_webp(data: bytes) -> Metadata:
    blocks = {
        name: data[start + 8 : end]
        for name, start, end in riff_chunks(data)
        if name in (b"ICCP", b"EXIF", b"XMP ") and end <= len(data)
    }
    return Metadata(blocks.get(b"ICCP"), blocks.get(b"EXIF"), blocks.get(b"XMP "))


def _of_tiff(data: bytes) -> Metadata:
    said = [tag for tag in tags.copied(data, tags.DESCRIPTIVE, "<") if tag.tag != tiff.ORIENTATION]
    resolutions = (tags.X_RESOLUTION, tags.Y_RESOLUTION, tags.RESOLUTION_UNIT)
    worth = any(tag.tag not in resolutions for tag in said)
    return Metadata(
        profile=tags.value_bytes(data, tags.PROFILE),
        exif=tags.with_tags(tags.EMPTY, said) if worth else None,
        xmp=tags.value_bytes(data, tags.XMP),
        resolution=_resolution(data),
        orientation=_orientation(data),
    )
