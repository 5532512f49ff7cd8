"""Verdicts of self-checks, kept in the cache folder: one small file each.

A file is named by what the verdict depends on, so another driver or another version of the package
has another file. Several processes of a machine, such as the ranks of a training, take turns: the
first to get the lock of a verdict checks, and the others wait and read what it has found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from zoo.errors import WriteError
from zoo.files.locks import try_lock
from zoo.files.paths import cache_folder
from zoo.files.single import write_text

_POLL = 0.1
"""Seconds between two looks at a lock that another process has."""


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
        found = json.loads(path_of(key).read_text(encoding="utf-8"))
        if found["key"] != dict(key):
            return None
        verdict = Verdict(**found["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
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
    path = path_of(key).with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError:
        yield True
        return
    with file:
        end = time.monotonic() + patience
        while (locked := try_lock(file)) is False and time.monotonic() < end:
            time.sleep(_POLL)
        yield locked is not False
