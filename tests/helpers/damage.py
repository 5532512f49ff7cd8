"""Changes to the bytes of files and to what is at their paths, shared by the areas about files."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

EXTREMES = (0, 1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


class Change(NamedTuple):
    """A change of bytes.

    Attributes:
        kind: name of the change; see :func:`changed`.
        place: where, as a fraction of the length.
        value: a number that the change uses.
    """

    kind: str
    place: float
    value: int


KINDS = ("flip", "cut", "drop", "insert", "zeros", "double", "number", "number_big_endian")


def changes() -> SearchStrategy[tuple[Change, ...]]:
    """Strategy of zero to four changes; many are near the start, where headers are."""
    place = st.floats(0, 1) | st.floats(0, 0.1)
    value = st.sampled_from(EXTREMES) | st.integers(0, 2**32 - 1)
    change = st.builds(Change, st.sampled_from(KINDS), place, value)
    return st.lists(change, max_size=4).map(tuple)


def changed(data: bytes, all_changes: Sequence[Change]) -> bytes:
    """Apply changes one after another."""
    for kind, place, value in all_changes:
        at = round(place * len(data))
        length = 1 + value % 64
        before, after = data[:at], data[at:]
        if kind == "flip" and after:
            data = before + bytes([after[0] ^ (1 << value % 8)]) + after[1:]
        elif kind == "cut":
            data = before
        elif kind == "drop":
            data = before + after[length:]
        elif kind == "insert":
            data = before + value.to_bytes(4, "little") * (length // 4 + 1) + after
        elif kind == "zeros":
            data = before + bytes(length) + after[length:]
        elif kind == "double":
            data = before + after[:length] * 2 + after[length:]
        elif kind == "number":
            data = before + value.to_bytes(4, "little") + after[4:]
        elif kind == "number_big_endian":
            data = before + value.to_bytes(4, "big") + after[4:]
    return data


PLACES = ("file",) * 12 + ("folder", "dangling link", "link to itself", "link", "pipe")
"""What may be at the path of a file; mostly a file."""


def put(path: Path, data: bytes, place: str) -> None:
    """Put a file, or something else, at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if place == "folder":
        path.mkdir()
    elif place == "dangling link":
        path.symlink_to(path.parent / "nowhere")
    elif place == "link to itself":
        path.symlink_to(path.name)
    elif place == "link":
        aside = path.parent / f"{path.name}.aside"
        aside.write_bytes(data)
        path.symlink_to(aside.name)
    elif place == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(data)


def legacy_file(pickled: bytes) -> bytes:
    """A file in the format of PyTorch before 1.6 whose values are a pickle."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    start = (0x1950A86A20F9469CFC6C, 1001, system)
    return b"".join(pickle.dumps(part, 2) for part in start) + pickled + pickle.dumps([], 2)


def zip_file(pickled: bytes) -> bytes:
    """A file in PyTorch's format whose values are a pickle."""
    whole, held = io.BytesIO(), io.BytesIO()
    torch.save({}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(held, "w") as file:
        for entry in source.infolist():
            data = pickled if entry.filename.endswith("data.pkl") else source.read(entry)
            file.writestr(entry.filename, data)
    return held.getvalue()


def _called(function: bytes, *texts: str) -> bytes:
    held = (text.encode() for text in texts)
    arguments = b"".join(b"X" + len(text).to_bytes(4, "little") + text for text in held)
    return b"\x80\x02c" + function + b"\n(" + arguments + b"tR."


_PAIRS = b"".join(b"q%ch%c" % (n, n) + b"%b" for n in range(50))
_CJK = "".join(chr(0x4E00 + n % 20_000) for n in range(60_000))

HOSTILE_PICKLES = {
    "deep key": b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "deep list": b"\x80\x02" + b"]" * 200 + b"a" * 199 + b".",
    "shared key": b"\x80\x02}K\x01\x85" + _PAIRS.replace(b"%b", b"\x86") + b"K\x01s.",
    "shared list": b"\x80\x02]" + _PAIRS.replace(b"%b", b"\x86") + b".",
    "shared later": b"\x80\x02]q\x00]q\x01h\x00ah\x00a" + b"h\x00h\x01a.",
    "slow encoding": _called(b"_codecs\nencode", _CJK, "punycode"),
    "memory": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "long keys": b"\x80\x02}"
    + b"".join(
        b"\x8a\x0c" + (n * (2**61 - 1) << 8).to_bytes(12, "little") + b"Ns"
        for n in range(2**12, 2**12 + 5000)
    )
    + b".",
    "hidden encoding": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(c_codecs\nencode\n"
    b"ctorch\nTensor\nX\x01\x00\x00\x00xX\x04\x00\x00\x00idna\x86}tR.",
}
"""Pickles of functions that PyTorch allows, which crash Python, or take all time or memory."""


def stored(held: bytes) -> bytes:
    """A pickle of a storage, which is the bytes of a file of PyTorch."""
    load = b"\x80\x02ctorch.storage\n_load_from_bytes\nB"
    return load + len(held).to_bytes(4, "little") + held + b"\x85R."


def _shared_fact() -> bytes:
    value: object = 1.0
    for _ in range(50):
        value = [value, value]
    return pickle.dumps({"rgb_gain": 1.0, "red_gain": 2.0, "blue_gain": 2.0, "rgb2cam": value}, 2)


HOSTILE_FACTS = {
    **HOSTILE_PICKLES,
    **{
        f"{name} in a storage": stored(legacy_file(HOSTILE_PICKLES[name]))
        for name in HOSTILE_PICKLES
    },
    "shared fact": _shared_fact(),
}
"""Pickles of facts beside a burst."""
