"""Temporary files and folders, which are locked while they are written, and those left over.

They lie beside what they become. Their names are random, so nobody can put a link there before. The
writer holds a lock, which the system releases when the process ends, even if it is killed. What
nobody has locked is a leftover, and the next process that writes to the folder removes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from zoo.files.locks import try_lock
from zoo.files.paths import open_regular

_TEMPORARY_NAME = re.compile(r"\.zoo-[0-9a-f]{16}\.part")
"""Temporary names are hidden and have their own suffix, so that no program reads half a file as an
image. They are short, so that files with the longest possible names can be written."""

_OLD = 24 * 3600
"""Age in seconds at which a temporary file counts as abandoned if the file system has no locks."""

_cleaned: set[Path] = set()
"""Folders that this process has cleaned, so that each folder is listed only once."""


def create_file(target: Path, mode: int | None) -> tuple[Path, IO[bytes]]:
    """Create an empty temporary file beside ``target``, and lock it."""

    def opener(name: str, flags: int) -> int:
        # The permissions are set at the start, so that a private file is never readable by others.
        # The owner may always write to the temporary file.
        return os.open(name, flags, 0o666 if mode is None else mode | stat.S_IWUSR)

    while True:
        temporary = temporary_name(target)
        held = open(temporary, "x+b", opener=opener)  # noqa: SIM115
        if try_lock(held) is not False and temporary.exists():
            return temporary, held
        # Another process locked the new file first and removes it as abandoned: try again.
        held.close()


def create_folder(target: Path) -> tuple[Path, int | None]:
    """Create an empty temporary folder beside ``target``, and lock it if the system can."""
    while True:
        temporary = temporary_name(target)
        temporary.mkdir()
        if sys.platform == "win32":
            return temporary, None
        with contextlib.suppress(FileNotFoundError):  # removed as abandoned, as in create_file
            held = os.open(temporary, os.O_RDONLY)
            if try_lock(held) is not False and temporary.exists():
                return temporary, held
            os.close(held)


def temporary_name(target: Path) -> Path:
    """Return a new random name beside ``target``."""
    return target.with_name(f".zoo-{secrets.token_hex(8)}.part")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in a folder.

    What is being written, on this machine or another, is kept. The folder may be missing.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _TEMPORARY_NAME.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    _remove_abandoned(path)


def clean(folder: Path) -> None:
    """Remove the leftovers of a folder, when this process writes there for the first time."""
    if folder not in _cleaned:
        remove_leftovers(folder)
        _cleaned.add(folder)


def _remove_abandoned(path: Path) -> None:
    """Remove a temporary file or folder if no process writes to it.

    We make no links. A link with such a name, and what it points to, are somebody else's.
    """
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return
    remove = shutil.rmtree if stat.S_ISDIR(mode) else Path.unlink
    if sys.platform == "win32":  # a file that a process has open cannot be removed
        if stat.S_ISREG(mode) or _is_old(path):
            remove(path)
        return
    # Network folders lock only files that are open for writing; folders never are.
    if stat.S_ISREG(mode):
        opened = open_regular(path, os.O_RDWR)
    else:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        locked = try_lock(opened)
        if locked or (locked is None and _is_old(path)):
            remove(path)
    finally:
        os.close(opened)


def _is_old(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > _OLD


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder during the block; False if another process has the lock."""
    if sys.platform == "win32":  # it cannot open folders
        yield True
        return
    opened = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        yield try_lock(opened) is not False
    finally:
        os.close(opened)
