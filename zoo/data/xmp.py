"""Numbers in XMP packets that are wrong for the new picture: orientation, resolution, and size.

A packet stays byte for byte but for these numbers. It is not parsed as XML: it comes from anywhere,
and what cannot be found stays as it is.

Sources: XMP Part 1 Sec. 7 (a property is an attribute or an element), Part 2 Sec. 3 (tiff, exif).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial

_TIFF, _EXIF = b"tiff", b"exif"
"""The usual prefixes of namespaces, which a packet may give any other."""

_PREFIXES = 4
"""Prefixes of a namespace that are looked for. Usual packets have one."""

_TURNED = re.compile(rb"[2-8]")
_WHOLE = re.compile(rb"\d{1,10}")
_QUOTIENT = re.compile(rb"(\d{1,10})(?:/(\d{1,10}))?")


def upright(packet: bytes) -> bytes:
    """Set the orientation to 1, because it has been applied."""
    return _changed(packet, _TIFF, b"Orientation", _reset)


def _reset(old: bytes) -> bytes:
    return b"1" if _TURNED.fullmatch(old) else old


def enlarged(packet: bytes, scale: int) -> bytes:
    """Multiply the resolution."""

    def scaled(old: bytes) -> bytes:
        found = _QUOTIENT.fullmatch(old)
        if found is None or not int(found[2] or 1):
            return old
        value = Fraction(int(found[1]), int(found[2] or 1)) * scale
        return b"%d/%d" % (value.numerator, value.denominator)

    for name in (b"XResolution", b"YResolution"):
        packet = _changed(packet, _TIFF, name, scaled)
    return packet


def of_size(packet: bytes, width: int, height: int) -> bytes:
    """Set the size in pixels, where there is one."""
    for space, name, size in (
        (_TIFF, b"ImageWidth", width),
        (_TIFF, b"ImageLength", height),
        (_EXIF, b"PixelXDimension", width),
        (_EXIF, b"PixelYDimension", height),
    ):
        packet = _changed(packet, space, name, partial(_whole, size))
    return packet


def _whole(new: int, old: bytes) -> bytes:
    return b"%d" % new if _WHOLE.fullmatch(old) else old


def _changed(packet: bytes, prefix: bytes, name: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the value of a property, as an attribute or as an element, under all its prefixes."""
    space = re.escape(b"http://ns.adobe.com/%s/1.0/" % prefix)
    declared = rb"""xmlns:([\w.-]{1,50})\s{0,9}=\s{0,9}["']%s["']""" % space
    prefixes = [prefix]
    for found in re.finditer(declared, packet):
        if found[1] not in prefixes:
            prefixes.append(found[1])
        if len(prefixes) == _PREFIXES:
            break
    either = b"|".join(map(re.escape, prefixes))
    # Repetitions are bounded: a hostile packet would take time that grows with its square.
    before = rb"""(?<=[<\s])(?:%s):%s(?:\s{0,99}=\s{0,99}["']|(?:\s[^<>]{0,500})?>)\s{0,99}"""
    value = re.compile(rb"""(%s)([^\s"'<>]{1,40})(?=\s{0,99}["'<])""" % (before % (either, name)))
    return value.sub(lambda match: match[1] + change(match[2]), packet)
