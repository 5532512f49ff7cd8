"""Properties of image files that OpenCV does not report, read from the bytes of the file.

With ``IMREAD_UNCHANGED``, OpenCV decodes the samples exactly. But it converts gray with alpha and
printing colours to RGB, and does not report whether a TIFF's colours are multiplied by alpha; and
libpng prints warnings about metadata to stderr. The functions here fill these gaps. For a malformed
header they return the default; the decoder decides whether the file can be read.

Sources: TIFF 6.0 Sec. 2 and 18, PNG (3rd ed.) Sec. 5 and 11, RIFF as in the
WebP container specification.
"""

from __future__ import annotations

import struct

from zoo.data import several, tiff
from zoo.data.containers import (
    BMP_SIGNATURE,
    EOI,
    GIF_SIGNATURES,
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    SOF,
    gif_frames,
    is_webp,
    jpeg_frame,
    jpeg_segments,
    png_chunks,
    riff_chunks,
)

ASSOCIATED_ALPHA = 1
UNASSOCIATED_ALPHA = 2

_SIGNATURES = (
    PNG_SIGNATURE, JPEG_SIGNATURE, BMP_SIGNATURE, *GIF_SIGNATURES, *tiff.SIGNATURES,
)  # fmt: skip

_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by the colour type of a PNG file."""

_DEFLATE_RATIO = 1032
"""Largest number of bytes that one byte of deflated data can become."""

_JPEG_PIXELS = 512
"""Largest number of pixels that one byte of JPEG image data can hold: a block of 8 x 8 pixels has
at least one bit."""

_BMP_RUN_PIXELS = 128
"""Largest number of pixels that one byte of a compressed BMP file can hold: two bytes are a run of
at most 255."""

_OS_2 = b"\x0c\0\0\0"
"""The number of bytes in the oldest header of BMP files."""

_JPEG_SCANS = 200
"""Largest number of passes over a JPEG image. Usual files have 1 to 12; each takes its time."""

_WHITE_IS_ZERO, _SEPARATED, _YCBCR, _LAB = 0, 5, 6, (8, 9, 10)
"""Values of the TIFF tag of the meaning of samples: gray from white to black, inks, brightness and
differences of colours, and CIELab."""

_SEPARATE_PLANES = 2
"""Value of the TIFF tag of the sequence of samples."""

_TILE_BYTES = 1024
"""libtiff reads uncompressed tiles of 8-bit samples from memory only in multiples of these."""

_SOS = 0xDA
_PNG_GRAY_TYPES = (0, 4)
# The chunks that affect pixels. The others (colour profiles, text, time) only make libpng warn.
_PNG_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def is_gray_png(data: bytes) -> bool:
    """Whether the bytes are a PNG file with one gray channel, with or without alpha."""
    return data.startswith(PNG_SIGNATURE) and data[25:26] != b"" and data[25] in _PNG_GRAY_TYPES


def transparent_level(data: bytes) -> int | None:
    """The level of a gray PNG file that is transparent, at 8 or 16 bits; None if there is none."""
    if not is_gray_png(data):
        return None
    chunks = png_chunks(data)
    body = next((data[a + 8 : b - 4] for name, a, b in chunks if name == b"tRNS"), b"")
    if len(body) != 2:
        return None
    bits, level = data[24], int.from_bytes(body, "big")
    # Decoders look at the lowest bits of the level only.
    return level if bits == 16 else (level & (2**bits - 1)) * (255 // (2**bits - 1))


def inks(data: bytes) -> str:
    """Name of the printing colours of a JPEG or TIFF file, or "" if its colours are others."""
    if data.startswith(JPEG_SIGNATURE):
        return "CMYK" if jpeg_frame(data)[5:] == b"\4" else ""
    return "CMYK" if tiff.value(data, tiff.PHOTOMETRIC) == _SEPARATED else ""


def is_negative(data: bytes) -> bool:
    """Whether the samples of a gray TIFF file are 0 for white."""
    return tiff.value(data, tiff.PHOTOMETRIC) == _WHITE_IS_ZERO


def undecodable(data: bytes) -> str:
    """What an undamaged file has that OpenCV refuses or decodes to wrong colours, or ""."""
    if data.startswith(BMP_SIGNATURE) and data[14:18] == _OS_2 and data[24:26] == b"\x18\0":
        return "has colours behind a header of OS/2, which would be read as gray; save it as PNG"
    kind, samples = tiff.value(data, tiff.PHOTOMETRIC), tiff.value(data, tiff.SAMPLES) or 1
    deep = (tiff.value(data, tiff.BITS) or 1) > 8
    if kind in _LAB:
        return "has CIELab colours; convert it to RGB"
    if kind == _SEPARATED and deep:
        return "has CMYK colours of 16 bits; convert it to RGB"
    if deep and samples > 1 and tiff.value(data, tiff.PLANES) == _SEPARATE_PLANES:
        return "has 16-bit samples in separate planes; save it with the samples of a pixel together"
    if not deep and _has_odd_tiles(data, kind):
        return "has uncompressed tiles of a size that cannot be read; save it without tiles"
    return ""


def _has_odd_tiles(data: bytes, kind: int | None) -> bool:
    width, height = tiff.value(data, tiff.TILE_WIDTH), tiff.value(data, tiff.TILE_HEIGHT)
    if not width or not height or kind == _YCBCR or tiff.value(data, tiff.COMPRESSION) != 1:
        return False
    together = tiff.value(data, tiff.PLANES) != _SEPARATE_PLANES
    bits = (tiff.value(data, tiff.BITS) or 1) * ((tiff.value(data, tiff.SAMPLES) or 1) ** together)
    return bool(height * ((width * bits + 7) // 8) % _TILE_BYTES)


def extra_samples(data: bytes) -> int | None:
    """What a channel beside the colours of a TIFF file is; None if there is none."""
    return tiff.value(data, tiff.EXTRA_SAMPLES)


def warns(data: bytes) -> bool:
    """Whether the decoder of a file only warns of damage, instead of refusing the file."""
    return data.startswith((JPEG_SIGNATURE, *tiff.SIGNATURES))


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels that a file declares, or None if its header is damaged."""
    try:
        if data.startswith(PNG_SIGNATURE):
            return _pair(">II", data, 16)
        if data.startswith(JPEG_SIGNATURE):
            return _pair(">HH", jpeg_frame(data), 1)[::-1]
        if data.startswith(BMP_SIGNATURE):
            (header,) = struct.unpack_from("<I", data, 14)
            return _pair("<HH" if header == 12 else "<ii", data, 18)
        if is_webp(data):
            return _webp_size(data)
        if data.startswith(GIF_SIGNATURES):
            return _pair("<HH", data, 6)
    except struct.error:
        return None
    width, height = tiff.value(data, tiff.WIDTH), tiff.value(data, tiff.HEIGHT)
    return None if width is None or height is None else (width, height)


def frames(data: bytes) -> int:
    """Number of frames of an animation, or of pages; reduced versions and masks are no pages.

    A file with a preview first and the picture elsewhere, such as a RAW photo, has more than one.
    So has an animation with a still picture for programs that do not know animations.
    """
    if data.startswith(PNG_SIGNATURE):
        return max(1, sum(several.png_animation(data)))
    if data.startswith(JPEG_SIGNATURE):
        return len(several.jpeg_pictures(data))
    if is_webp(data):
        return max(1, sum(name == b"ANMF" for name, _, _ in riff_chunks(data)))
    if data.startswith(GIF_SIGNATURES):
        return max(1, sum(1 for _ in gif_frames(data)))
    return tiff.pages(data) if data.startswith(tiff.SIGNATURES) else 1


def is_known(data: bytes) -> bool:
    """Whether the bytes start like a PNG, JPEG, BMP, TIFF, GIF or WebP file."""
    return data.startswith(_SIGNATURES) or is_webp(data)


def is_cut_short(data: bytes) -> bool:
    """Whether a file has no end, too few bytes for the size that it declares, or wrong checksums.

    Decoders would fill the missing part of a JPEG image with gray, one of a compressed BMP image
    with black, and would reserve memory for any size. The decoders of WebP and other BMP and TIFF
    files find a missing part themselves.
    """
    if data.startswith(PNG_SIGNATURE):
        return _is_cut_short_png(data)
    if data.startswith(BMP_SIGNATURE):
        return _is_cut_short_bmp(data)
    if data.startswith(tiff.SIGNATURES):
        return tiff.is_damaged(data)
    return data.startswith(JPEG_SIGNATURE) and _is_cut_short_jpeg(data)


def without_png_metadata(data: bytes) -> bytes:
    """Remove all chunks of a PNG file that do not affect pixels; other files are returned as is."""
    if not data.startswith(PNG_SIGNATURE):
        return data
    kept = [data[a:b] for name, a, b in png_chunks(data) if name in _PNG_PIXEL_CHUNKS]
    return PNG_SIGNATURE + b"".join(kept)


def _is_cut_short_png(data: bytes) -> bool:
    chunks = list(png_chunks(data))
    held = sum(end - start - 12 for name, start, end in chunks if name == b"IDAT")
    whole = any(name == b"IEND" and end <= len(data) for name, _, end in chunks)
    if not whole or len(data) < 26:
        return True
    width, height, bits, kind = struct.unpack_from(">IIBB", data, 16)
    declared = height * ((width * bits * _PNG_SAMPLES.get(kind, 1) + 7) // 8)
    return bool(declared > held * _DEFLATE_RATIO)


def _is_cut_short_jpeg(data: bytes) -> bool:
    pixels = scans = scan_bytes = 0
    scan_start = None
    for marker, start, end in jpeg_segments(data):
        if scan_start is not None:
            scan_bytes += start - scan_start
        if marker in SOF and start + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, start + 5)
            pixels = max(pixels, height * width)
        scans += marker == _SOS
        scan_start = end if marker == _SOS else None
        if marker == EOI:
            return scans == 0 or pixels > scan_bytes * _JPEG_PIXELS
        if scans > _JPEG_SCANS:
            return True
    return True


def _is_cut_short_bmp(data: bytes) -> bool:
    found = size(data)
    if found is None or len(data) < 34:
        return found is None
    header, compression = struct.unpack_from("<I", data, 14)[0], data[30]
    compressed = header > 12 and compression in (1, 2)
    return compressed and abs(found[0] * found[1]) > len(data) * _BMP_RUN_PIXELS


def _pair(form: str, data: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, data, at)
    return first, second


def _webp_size(data: bytes) -> tuple[int, int] | None:
    name, body = data[12:16], data[20:30]
    if len(body) < {b"VP8X": 10, b"VP8L": 5}.get(name, 0):
        return None
    if name == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        return width, height
    if name == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == b"VP8 ":
        width, height = _pair("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    return None
