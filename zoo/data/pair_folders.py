"""Whether folders of clean and degraded images are listed in the same order.

Two folders may hold files of the same names, and then the files pair in any order of the folders.
So the paths must say which folder belongs to which: a wrong order would spoil a training without a
word.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from zoo.data.pair_names import CLEAN, DEGRADED, says, topics, without_roles, words
from zoo.errors import ImageError


class FolderPair(NamedTuple):
    """A folder of clean images and the folder of degraded images at the same place of the list.

    Attributes:
        clean: the folder of clean images.
        degraded: the folder of degraded images.
        names: names of the clean files, without roles.
        others: names of the degraded files, without roles.
    """

    clean: str
    degraded: str
    names: frozenset[str]
    others: frozenset[str]


def folder_pair(clean: Sequence[str], degraded: Sequence[str], scale: int) -> FolderPair:
    """Return the pair of two folders, which are given as the paths of their files."""
    names, others = (
        frozenset(without_roles(Path(file).stem, scale) for file in files)
        for files in (clean, degraded)
    )
    return FolderPair(str(Path(clean[0]).parent), str(Path(degraded[0]).parent), names, others)


def check_order(pairs: Sequence[FolderPair]) -> None:
    """Check that paths say which folder belongs to which, where names of files do not.

    Raises:
        ImageError: if the paths say another order, or none.
    """
    for one, other in combinations(pairs, 2):
        if _could_be_exchanged(one, other):
            _check_paths(one, other)


def _could_be_exchanged(one: FolderPair, other: FolderPair) -> bool:
    """Return whether a file of one pair would find a counterpart in the other one as well."""
    if one.clean == other.clean:
        return False  # degraded in two ways
    if one.degraded == other.degraded:
        return not one.names.isdisjoint(other.names)
    return bool(one.others & other.others & (one.names | other.names))


def _check_paths(one: FolderPair, other: FolderPair) -> None:
    # What both folders of a side have in their paths tells nothing.
    ours = [words(pair.clean) for pair in (one, other)]
    theirs = [words(pair.degraded) for pair in (one, other)]
    own = [ours[0] - ours[1], ours[1] - ours[0]]
    their_own = [theirs[0] - theirs[1], theirs[1] - theirs[0]]
    straight = [a & b for a, b in zip(own, their_own, strict=True)]
    crossed = [topics(a & b) for a, b in zip(own, their_own[::-1], strict=True)]
    # A folder may have no words of its own beside another one: rain and rain_more.
    silent = [not topics(a | b) for a, b in zip(own, their_own, strict=True)]
    if all(crossed) and not any(straight):
        raise ImageError(
            "folders of clean and degraded images are in another order: "
            f"{one.clean!r} would belong to {one.degraded!r}; list them in the same order"
        )
    sure = any(straight) and all(a or b for a, b in zip(straight, silent, strict=True))
    if any(crossed) or not sure:
        raise ImageError(
            f"{one.clean!r} and {other.clean!r} hold files of the same names, and the paths do not "
            f"say which belongs to {one.degraded!r}; name folders that belong together alike"
        )


def opposite_roles(clean: str, degraded: str) -> bool:
    """Return whether the paths of a pair say that the clean file is the degraded one."""
    ours, theirs = words(clean), words(degraded)
    return _says_only(ours - theirs, DEGRADED, CLEAN) and _says_only(theirs - ours, CLEAN, DEGRADED)


def _says_only(names: frozenset[str], role: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return says(names, role) and not says(names, other)
