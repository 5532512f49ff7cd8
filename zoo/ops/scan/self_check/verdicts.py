"""Verdicts of self-checks, kept in the cache folder: one small file each.

A file is named by what the verdict depends on, so another driver or another version of the package
has another file. Several processes of a machine, such as the ranks of a training, take turns: the
first to get the lock of a verdict checks, and the others wait and read what it has found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from zoo.errors import WriteError
from zoo.files.locks import try_lock, unlock
from zoo.files.paths import cache_folder, open_regular
from zoo.files.single import write_text

logger = logging.getLogger(__name__)

_LARGEST = 1 << 16
"""Bytes of a file that are read; a verdict has less than 2,000."""
_POLL = 0.1
"""Seconds between two looks at a lock that another process has."""


_QUIET = 2.0
"""Seconds to wait before it is said: a CPU's check is over by then."""


@dataclass(frozen=True)
class Verdict:
    """What a self-check has found.

    Attributes:
        passed: whether every case was right.
        case: the case that was not; "" if all were right or none was the cause.
        error: what was wrong.
        seconds: how long the check took.
        kept: whether it holds for later processes; not if the check itself could not be made.
    """

    passed: bool
    case: str = ""
    error: str = ""
    seconds: float = 0.0
    kept: bool = True


def path_of(key: Mapping[str, str]) -> Path:
    """Return the path of the file of a verdict that depends on ``key``."""
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    return cache_folder() / "self-checks" / f"{name}.json"


def read(key: Mapping[str, str]) -> Verdict | None:
    """Return the verdict that is kept for ``key``; None if there is none or it is damaged."""
    try:
        with open(open_regular(path_of(key), os.O_RDONLY), "rb") as file:  # noqa: PTH123
            found = json.loads(file.read(_LARGEST))
        if found["key"] != dict(key):
            return None
        verdict = Verdict(**found["verdict"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return verdict if isinstance(verdict.passed, bool) else None


def write(key: Mapping[str, str], verdict: Verdict) -> str | None:
    """Keep a verdict; return why that is not possible, or None."""
    text = json.dumps({"key": dict(key), "verdict": asdict(verdict)}, indent=1)
    try:
        write_text(path_of(key), text + "\n")
    except WriteError as error:
        return str(error)
    return None


@contextlib.contextmanager
def turn(key: Mapping[str, str], patience: float) -> Iterator[bool]:
    """Wait until no other process checks ``key``.

    Args:
        key: what the verdict depends on.
        patience: seconds to wait at most.

    Yields:
        Whether it is this process's turn; False if another one has kept the lock for too long.
        Where nothing can be locked, every process has its turn at once.
    """
    try:
        path = path_of(key).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(open_regular(path, os.O_RDWR | os.O_CREAT), "r+b")  # noqa: PTH123, SIM115
    except OSError:
        yield True
        return
    with file:
        begin = time.monotonic()
        told = False
        while (locked := try_lock(file)) is False and time.monotonic() < begin + patience:
            if not told and time.monotonic() > begin + _QUIET:
                told = True
                logger.info("waiting for another process, which makes the same self-check")
            time.sleep(_POLL)
        try:
            yield locked is not False
        finally:
            if locked:
                unlock(file)  # a process that was forked meanwhile has the file open, too
