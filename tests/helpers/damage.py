"""Changes to the bytes of files and to what is at their paths, shared by the areas about files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
