"""Folders in which one process works at a time."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from zoo.errors import WriteError
from zoo.files.locks import try_own
from zoo.files.paths import open_regular, write_error

_NAME = ".zoo.lock"

_owned: dict[Path, dict[str, str]] = {}
"""Lock files of this process, with its facts: the system's lock keeps out only other processes."""


@contextmanager
def owned_folder(folder: Path, work: str) -> Iterator[None]:
    """Work alone in a folder during the block.

    A file in the folder has a lock and says which process holds it. The lock of a process that has
    ended, or was killed, is taken over. Without locks, as on Windows and in some network folders,
    only a living process of this machine keeps others out.

    Args:
        folder: an existing folder.
        work: what is done, for the error message, such as "a training".

    Raises:
        WriteError: if another process works in the folder, or it cannot be written.
    """
    path = Path(os.path.realpath(folder)) / _NAME
    if path in _owned:
        raise _in_use(folder, work, _owned[path])
    facts = _facts()
    try:
        opened = _claim(path, facts)
        if isinstance(opened, dict):
            raise _in_use(folder, work, opened)
    except WriteError:
        raise
    except OSError as error:
        raise write_error(path, error) from error
    _owned[path] = facts
    try:
        yield
    finally:
        del _owned[path]
        # First the name, then the lock: whoever waits for the lock sees that the name is gone.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(opened)


def _claim(path: Path, ours: dict[str, str]) -> int | dict[str, str]:
    """Lock the file; return its descriptor, or the facts of the process that has the lock."""
    while True:
        # A link, a pipe or a folder is not ours: somebody else has put it there.
        opened, claimed = open_regular(path, os.O_RDWR | os.O_CREAT), False
        try:
            locked, facts = try_own(opened), _read(opened)
            if locked is False or (locked is None and _lives(facts)):
                return facts
            claimed = _has_name(opened, path)
            if claimed:
                os.ftruncate(opened, 0)
                os.lseek(opened, 0, os.SEEK_SET)
                os.write(opened, json.dumps(ours).encode())
                return opened
            # The owner removed the file before it released the lock: try again.
        finally:
            if not claimed:
                os.close(opened)


def _has_name(opened: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), path.lstat())
    except FileNotFoundError:
        return False


def _facts() -> dict[str, str]:
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    return {"process": str(os.getpid()), "host": platform.node(), "since": since}


def _read(opened: int) -> dict[str, str]:
    """Return the facts in a lock file; those that are missing or damaged are left out."""
    try:
        found = json.loads(os.read(opened, 1000))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    plain = re.compile(r"[\w.:+ -]{1,80}", re.ASCII)
    return {key: str(value) for key, value in found.items() if plain.fullmatch(str(value))}


def _lives(facts: dict[str, str]) -> bool:
    """Whether the process is alive and runs on this machine."""
    process = facts.get("process", "")
    is_here = facts.get("host") == platform.node() and os.name == "posix"
    if not is_here or not re.fullmatch("[0-9]{1,9}", process):
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def _in_use(folder: Path, work: str, facts: dict[str, str]) -> WriteError:
    who = "another process"
    if facts.keys() >= {"process", "host", "since"}:
        who = f"process {facts['process']} on {facts['host']}, since {facts['since']}"
    return WriteError(
        f"{folder}: {work} is running here already ({who}); wait until it ends, stop it, or choose "
        "another folder"
    )
