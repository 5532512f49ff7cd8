"""ICC colour profiles, made here: one of wider colours than sRGB, and one of gray."""

from __future__ import annotations

import struct

import numpy as np

# Colorants of Adobe RGB (1998), adapted to D50, as its profile has them.
_WIDE = np.array(
    [[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]]
)
_D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(note: bytes = b"wide") -> bytes:
    """A profile of the colours of Adobe RGB with gamma 2.2."""
    tags = {name: _xyz(row) for name, row in zip((b"rXYZ", b"gXYZ", b"bXYZ"), _WIDE, strict=True)}
    tags |= {name: _gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"RGB ", tags | {b"wtpt": _xyz(_D50), b"cprt": b"text" + bytes(4) + note})


def gray_profile() -> bytes:
    """A profile of gray with gamma 1.8."""
    return _profile(b"GRAY", {b"kTRC": _gamma(1.8), b"wtpt": _xyz(_D50)})


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(values: np.ndarray | tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256)) + bytes(2)


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _description(b"made for a test"), **tags}
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s", at + len(body), b"zoo ", 0x02400000, b"mntr", space, b"XYZ "
    )
    header += bytes(12) + b"acsp" + bytes(28) + _fixed(*_D50)
    return header.ljust(128, b"\0") + table + body


def _description(text: bytes) -> bytes:
    held = text + b"\0"
    return b"desc" + bytes(4) + struct.pack(">I", len(held)) + held + bytes(8 + 3 + 67)
