"""Folders of images that were made from other images, with a note that says how.

Files that are there are not made again, so an interrupted run can be continued. The note tells
whether they are those of the same request: without it, files of other options, or of a photo that
was replaced, would stay among the new ones without a word.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from zoo.errors import ImageError, shown
from zoo.files import owned_folder, write_error, write_text

logger = logging.getLogger(__name__)

NOTE = ".zoo.made.json"
"""Name of the note in a folder; programs that list images skip hidden files."""

_OPTIONS, _SOURCES = "options", "sources"

_FIX = "name another folder to write to, or remove this one"


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Return files by their names without extension, which the files made from them get.

    Raises:
        ImageError: if two files have the same name except for the extension.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise ImageError(
                f"{str(found[path.stem])!r} and {str(path)!r} differ only in the extension, so "
                "files of the same names would be made from both; rename one of them, or move it"
            )
        found[path.stem] = path
    return found


@contextlib.contextmanager
def made_folder(
    folder: Path,
    options: Mapping[str, Any],
    sources: Mapping[str, Path],
    made: Callable[[], Mapping[str, Path]],
) -> Iterator[None]:
    """Work alone in a folder whose files are made of others; create the folder and its note.

    Photos may be added between two runs, and photos that nothing was made of may change: a damaged
    one is replaced, and the next run makes its files.

    Args:
        folder: the folder.
        options: what else decides how the files are made, as plain data.
        sources: the file that each of the made files comes from, by a name of your choice.
        made: returns one made file for each name, of those that are in the folder already.

    Raises:
        ImageError: if the folder has files that another request made, or that nothing is known of.
        WriteError: if the folder cannot be written, or another process works in it.
    """
    request = {
        # As they are read back: tuples become lists.
        _OPTIONS: json.loads(json.dumps(options, default=repr)),
        _SOURCES: {name: _facts(path) for name, path in sources.items()},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    with owned_folder(folder, "making images"):
        before = _read_note(folder)
        if before != request:
            _check_same(folder, before, request, made())
            write_text(folder / NOTE, json.dumps(request, indent=1) + "\n")
        yield


def warn_if_cut_apart(
    photos: str | Sequence[str], degraded: str | Sequence[str], scale: int
) -> None:
    """Log which folders of clean and degraded sub-images were not cut together.

    Their pairs may be apart by some pixels, which no size and no name shows.

    Args:
        photos: a folder of clean photos, or several.
        degraded: a folder of degraded photos, or several.
        scale: clean size divided by degraded size; at scale 1 the places are always the same.
    """
    sides = [[side] if isinstance(side, str) else list(side) for side in (photos, degraded)]
    together = zip(*sides, strict=True) if len(sides[0]) == len(sides[1]) else product(*sides)
    for clean, other in together:
        options = [_options_of(Path(folder)) for folder in (clean, other)]
        cut = all("size" in found for found in options)
        if scale > 1 and cut and any("scale" not in found for found in options):
            logger.warning(
                "%s and %s were cut separately, so their pairs may be up to %d pixels apart; cut "
                "the photos again with zoo data prepare --degraded, which cuts both at once",
                *(clean, other, scale - 1),
            )


def _options_of(folder: Path) -> dict[str, Any]:
    note = _read_note(folder)
    return {} if note is None else note[_OPTIONS]


def _read_note(folder: Path) -> dict[str, dict[str, Any]] | None:
    """Return the note of a folder, with its two parts; None if it has none or a damaged one."""
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(found, dict) and set(found) == {_OPTIONS, _SOURCES}
    return found if known and all(isinstance(part, dict) for part in found.values()) else None


def _facts(path: Path) -> list[str | int]:
    """Name, size and time of a file. A digest would take as long as the work that is resumed."""
    try:
        found = path.stat()
    except OSError:
        return [path.name]  # reading it says what is wrong
    return [path.name, found.st_size, found.st_mtime_ns]


def _check_same(
    folder: Path,
    before: Mapping[str, Mapping[str, Any]] | None,
    request: Mapping[str, Mapping[str, Any]],
    made: Mapping[str, Path],
) -> None:
    """Check that the files that a folder has are those that the request would make."""
    if not made:
        return
    if before is None:
        # Earlier versions wrote no notes. Making the files again costs minutes, and training on
        # files of two kinds costs days, so nothing is taken on trust.
        raise ImageError(
            f"{folder}: nothing says how {min(made.values()).name!r} and other files here were "
            f"made, so they are not kept among new ones; {_FIX}"
        )
    if before[_OPTIONS] != request[_OPTIONS]:
        old, new = _differences(before[_OPTIONS], request[_OPTIONS])
        raise ImageError(f"{folder}: the files here were made with {old}, not with {new}; {_FIX}")
    changed = [name for name in made if before[_SOURCES].get(name) != request[_SOURCES].get(name)]
    if changed:
        name = min(changed)
        file = made[name].name
        fault = (
            f"{str(request[_SOURCES][name][0])!r} has another name, size or time than the file "
            f"that {file!r} was made from"
            if name in request[_SOURCES]
            else f"{file!r} was made from a photo that is not among the given ones"
        )
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise ImageError(f"{folder}: {fault}{more}; {_FIX}")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, str]:
    """Return the options that differ, in words: those of the first, and those of the second."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    first, second = (" and ".join(_said(key, part.get(key)) for key in keys) for part in (old, new))
    return first, second


def _said(key: str, value: Any) -> str:
    return f"no {key}" if value is None else f"{key} {shown(value)}"
