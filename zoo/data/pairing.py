"""Which degraded image belongs to which clean one: by folder, then by name.

Two folders may hold images of the same name, so names are compared within a pair of folders only.
Names may have usual endings: ``0801x2.png`` belongs to ``0801.png``, ``img_LR.jpg`` to
``img_HR.png``. What is not sure is an error: a wrong pair would spoil a training without a word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from zoo.data.pair_folders import check_order, folder_pair, opposite_roles
from zoo.data.pair_names import without_roles, without_scale
from zoo.data.photos import AnyPhoto, all_faults
from zoo.errors import ImageError

Files: TypeAlias = list[tuple[int, str]]
"""The files of a folder, each with its number among all files."""


def match_degraded(
    photos: Sequence[AnyPhoto], degraded: Sequence[AnyPhoto], scale: int, *, alike: bool
) -> list[AnyPhoto]:
    """Find the degraded version of each clean photo: by folder and name, with 1/scale of the size.

    Sizes of clean photos are rounded down to multiples of the scale before the comparison.

    Args:
        photos: clean photos.
        degraded: their degraded versions, in any order.
        scale: clean size divided by degraded size.
        alike: whether both must have the same number of channels.

    Raises:
        ImageError: if photos have no degraded version, several of them, or one of another size or
            number of channels; the message names them.
    """
    numbers = counterparts([p.name for p in photos], [p.name for p in degraded], scale)
    pairs = [(photo, degraded[number]) for photo, number in zip(photos, numbers, strict=True)]
    faults = [
        fault
        for photo, other in pairs
        if (fault := misfit(photo.name, photo.shape, other.name, other.shape, scale, alike))
    ]
    if faults:
        raise ImageError(all_faults(faults, len(photos), "pairs do not match"))
    return [other for _, other in pairs]


def misfit(
    clean: str,
    clean_HWC: Sequence[int],
    degraded: str,
    degraded_HWC: Sequence[int],
    scale: int,
    alike: bool,
) -> str | None:
    """Return what is wrong with the sizes or channels of a pair, or None.

    Args:
        clean: name of the clean image.
        clean_HWC: its height, width and channels.
        degraded: name of the degraded image.
        degraded_HWC: its height, width and channels.
        scale: clean size divided by degraded size.
        alike: whether both must have the same number of channels.
    """
    (height, width, channels), (small_height, small_width, others) = clean_HWC, degraded_HWC
    if (height // scale, width // scale) != (small_height, small_width):
        return (
            f"{clean!r} has {width}x{height} pixels and {degraded!r} {small_width}x{small_height}, "
            f"which is not 1/{scale} of that size"
        )
    if alike and _is_one_file(clean, degraded):
        return (
            f"{clean!r} is its own degraded version; give two folders, one of clean and one of "
            "degraded images"
        )
    if alike and channels != others:
        return f"{clean!r} has {channels} channels and {degraded!r} {others}; store both alike"
    return None


def counterparts(
    clean: Sequence[str | Path],
    degraded: Sequence[str | Path],
    scale: int,
    what: str = "degraded",
) -> list[int]:
    """Return the number of the degraded file that belongs to each clean file.

    If there are as many clean as degraded folders, the first belongs to the first, and so on.
    Otherwise names are compared over all folders.

    Args:
        clean: the clean files, folder after folder; a folder may be there twice.
        degraded: the degraded files, in the same way.
        scale: clean size divided by degraded size.
        what: what the degraded files are, for error messages; they may also be guides.

    Raises:
        ImageError: if a file has no counterpart or several, or has the role of the other side,
            or if the folders are in another order or do not say in which.
    """
    names, others = [str(name) for name in clean], [str(name) for name in degraded]
    sides = [_folders(names), _folders(others)]
    if len(sides[0]) == len(sides[1]):
        files = ([[name for _, name in folder] for folder in side] for side in sides)
        check_order([folder_pair(ours, theirs, scale) for ours, theirs in zip(*files, strict=True)])
    else:
        sides = [[list(enumerate(names))], [list(enumerate(others))]]
    found: dict[int, int] = {}
    faults: list[str] = []
    for ours, theirs in zip(*sides, strict=True):
        numbers = {name: number for number, name in theirs}
        matched, wrong = _matched(
            list(dict.fromkeys(name for _, name in ours)), list(numbers), scale, what
        )
        found |= {n: numbers[matched[name]] for n, name in ours if name in matched}
        faults += wrong
    if faults:
        raise ImageError(all_faults(faults, len(names), "pairs do not match"))
    result = [found[number] for number in range(len(names))]
    if what == "degraded":
        _check_roles([(name, others[n]) for name, n in zip(names, result, strict=True)])
    return result


def _check_roles(pairs: Iterable[tuple[str, str]]) -> None:
    """Raise an ImageError if paths say that the clean image of a pair is the degraded one."""
    for clean, other in pairs:
        if opposite_roles(clean, other):
            raise ImageError(
                f"clean and degraded images are exchanged: {clean!r} is given as the clean version "
                f"of {other!r}; exchange the two folders"
            )


def _is_one_file(clean: str, degraded: str) -> bool:
    """Return whether two names are those of one file; names of images in memory are of none."""
    try:
        return Path(clean).samefile(degraded)
    except OSError:
        return False


def _folders(names: Sequence[str]) -> list[Files]:
    """Cut numbered file names into folders; a folder that is listed twice is two of them."""
    folders: list[Files] = []
    seen: set[str] = set()
    for number, name in enumerate(names):
        if name in seen or not folders or Path(name).parent != Path(names[number - 1]).parent:
            folders.append([])
            seen = set()
        folders[-1].append((number, name))
        seen.add(name)
    return folders


def _matched(
    clean: Iterable[str], degraded: Iterable[str], scale: int, what: str
) -> tuple[dict[str, str], list[str]]:
    """Pair the files of two folders by the strictest comparison of names that pairs all of them.

    Returns:
        The degraded file of each clean file, and the faults of the comparison that pairs most.
    """
    results = []
    for key, other_key in _comparisons(scale):
        ours, theirs = _grouped(clean, key), _grouped(degraded, other_key)
        found = {files[0]: theirs[name][0] for name, files in ours.items() if name in theirs}
        faults = [
            fault for n, files in ours.items() for fault in _faults(files, theirs.get(n, []), what)
        ]
        faults = faults or _doubts(found, degraded, scale)
        if not faults:
            return found, []
        results.append((found, faults))
    return max(results, key=lambda result: len(result[0]))


def _faults(files: Sequence[str], others: Sequence[str], what: str) -> list[str]:
    """Return what is wrong with clean files of one name and the degraded files of that name."""
    if not others:
        return [f"{file!r} has no {what} counterpart with the same name" for file in files]
    if len(files) == len(others) == 1:
        return []
    twins = " and ".join(map(repr, (files if len(files) > 1 else others)[:2]))
    return [f"{twins} have the same name, so their counterpart is not sure"]


def _doubts(found: Mapping[str, str], degraded: Iterable[str], scale: int) -> list[str]:
    """Return which degraded files are left over although they could belong to a clean file."""
    left = {without_roles(Path(f).stem, scale): f for f in set(degraded) - set(found.values())}
    names = {clean: without_roles(Path(clean).stem, scale) for clean in found}
    return [
        f"{clean!r} may belong to {found[clean]!r} or to {left[name]!r}"
        for clean, name in names.items()
        if name in left
    ]


def _comparisons(scale: int) -> list[tuple[Callable[[str], str], Callable[[str], str]]]:
    """Return what must be equal in a clean and a degraded name, the strictest comparison first."""

    def name(file: str) -> str:
        return Path(file).name

    def stem(file: str) -> str:
        return Path(file).stem

    def scaled(file: str) -> str:
        return without_scale(stem(file), scale)

    def bare(file: str) -> str:
        return without_roles(stem(file), scale)

    return [(name, name), (stem, stem), (stem, scaled), (bare, bare)]


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return dict(groups)
