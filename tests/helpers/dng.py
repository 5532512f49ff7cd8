"""Small DNG files, as phones store RAW photos: a Bayer mosaic of 16 bits with its levels."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

_SIZES = {"B": 1, "H": 2, "I": 4, "r": 8}
_TYPES = {"B": 1, "s": 2, "H": 3, "I": 4, "r": 10}

MATRIX = (0.9, -0.3, -0.1, -0.4, 1.2, 0.2, -0.1, 0.2, 0.6)
"""From XYZ to the colours of the camera."""

NEUTRAL = (0.5, 1.0, 0.625)
"""Values of the camera for gray: gains of 2, 1 and 1.6."""


def dng(
    mosaic_HW: np.ndarray,
    pattern: str,
    *,
    black: Sequence[int] = (0, 0, 0, 0),
    white: int = 1023,
    orientation: int = 1,
    margin: tuple[int, int] = (0, 0),
) -> bytes:
    """A DNG file.

    Args:
        mosaic_HW: raw values; LibRaw takes no side below 22 pixels.
        pattern: colours of the first 2 x 2 pixels inside the margin, row by row, such as "RGGB".
        black: black level of each of these pixels.
        white: white level.
        orientation: EXIF orientation.
        margin: rows at the top and columns at the left that are no part of the picture.
    """
    height, width = mosaic_HW.shape
    top, left = margin
    data = mosaic_HW.astype("<u2").tobytes()
    tags = [
        (254, "I", [0]), (256, "I", [width]), (257, "I", [height]), (258, "H", [16]),
        (259, "H", [1]), (262, "H", [32803]), (271, "s", b"Zoo\0"), (272, "s", b"Zoo One\0"),
        (273, "I", [0]), (274, "H", [orientation]), (277, "H", [1]), (278, "I", [height]),
        (279, "I", [len(data)]), (284, "H", [1]), (33421, "H", [2, 2]),
        (33422, "B", ["RGB".index(color) for color in pattern]), (50706, "B", [1, 4, 0, 0]),
        (50708, "s", b"Zoo One\0"), (50710, "B", [0, 1, 2]), (50711, "H", [1]),
        (50713, "H", [2, 2]), (50714, "H", list(black)), (50717, "I", [white]),
        (50721, "r", MATRIX), (50728, "r", NEUTRAL), (50778, "H", [21]),
        (50829, "I", [top, left, height, width]),
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    extra = b"".join(_packed(form, held).ljust(_padded(form, held), b"\0") for _, form, held in tags
                     if len(_packed(form, held)) > 4)  # fmt: skip
    entries, at = b"", start
    for tag, form, held in tags:
        packed = _packed(form, held if tag != 273 else [start + len(extra)])
        entries += struct.pack("<HHI", tag, _TYPES[form], len(held))
        if len(packed) > 4:
            entries += struct.pack("<I", at)
            at += _padded(form, held)
        else:
            entries += packed.ljust(4, b"\0")
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + extra + data


def _packed(form: str, held: Sequence[float] | bytes) -> bytes:
    if isinstance(held, bytes):
        return held
    if form == "r":
        return b"".join(struct.pack("<ii", round(value * 10_000), 10_000) for value in held)
    return struct.pack(f"<{len(held)}{form}", *held)


def _padded(form: str, held: Sequence[float] | bytes) -> int:
    size = len(_packed(form, held))
    return size + size % 2 if size > 4 else 0
