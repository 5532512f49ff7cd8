"""TIFF files of every layout: BigTIFF, both byte orders, any type of a tag's value."""

from __future__ import annotations

import struct

import numpy as np

_TYPES = {"B": 1, "H": 3, "I": 4}


def tiff_with_alpha(
    samples_HW4: np.ndarray, extra: int, *, endian: str = "<", big: bool = False, kind: str = "H"
) -> bytes:
    """An uncompressed TIFF of 8-bit RGB with alpha.

    Args:
        samples_HW4: red, green, blue and alpha.
        extra: value of ExtraSamples.
        endian: byte order, "<" or ">".
        big: whether it is a BigTIFF.
        kind: integer type of ExtraSamples, "B", "H" or "I".
    """
    height, width, _ = samples_HW4.shape
    long = "Q" if big else "I"
    first = 16 if big else 8  # place of the directory
    inline = 8 if big else 4
    depths_at = first + (8 + 11 * 20 + 8 if big else 2 + 11 * 12 + 4)
    tags = [
        (256, "H", [width]), (257, "H", [height]), (258, "H", [8] * 4), (259, "H", [1]),
        (262, "H", [2]), (273, "I", [depths_at + 8]), (277, "H", [4]), (278, "H", [height]),
        (279, "I", [samples_HW4.size]), (284, "H", [1]), (338, kind, [extra]),
    ]  # fmt: skip
    mark = b"II" if endian == "<" else b"MM"
    mark += struct.pack(endian + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8)))
    entries = struct.pack(endian + ("Q" if big else "H"), len(tags))
    for tag, form, held in tags:
        packed = struct.pack(f"{endian}{len(held)}{form}", *held)
        if len(packed) > inline:
            packed = struct.pack(endian + long, depths_at)
        entries += struct.pack(f"{endian}HH{long}", tag, _TYPES[form], len(held))
        entries += packed.ljust(inline, b"\0")
    depths = struct.pack(f"{endian}4H", 8, 8, 8, 8)
    return mark + entries + bytes(inline) + depths + samples_HW4.astype(np.uint8).tobytes()
