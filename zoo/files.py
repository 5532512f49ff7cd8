"""Files that appear whole or not at all, and names in the order in which people count."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo.errors import WriteError

PART = ".part"
"""Suffix of files that are being written; their names also begin with a dot."""

_PARTIAL_NAME = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.\d+\.part(?P<suffix>\.\w+)?")

_ABANDONED = 24 * 3600
"""Seconds after which a partial file of another machine or a container counts as left over."""


@contextlib.contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Within, a temporary path beside ``path``; afterwards it is renamed to ``path``.

    If the block fails, the temporary file is removed and ``path`` stays as it was. What a killed
    process left half written beside ``path`` is removed too. The folder is made where it is
    missing. The temporary name keeps the suffix of ``path``, which tells many libraries the format.

    Raises:
        WriteError: if the folder or the file cannot be written.
    """
    temporary = path.with_name(
        f".{path.name}.{os.getpid()}.{time.monotonic_ns()}{PART}{path.suffix}"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise WriteError(
            f"{path}: cannot write: {error.strerror or error}; check the folder, its permissions "
            "and the space left"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write`` with a temporary path and rename the file to ``path``; see `partial_file`."""
    with partial_file(path) as temporary:
        write(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all.

    Raises:
        WriteError: if the file cannot be written.
    """
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove partial files of processes that no longer run.

    Args:
        folder: where to look.
        name: of the file that was to be written; any, if None.
    """
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            found = _PARTIAL_NAME.fullmatch(file.name)
            if not found or name not in (None, found["name"]):
                continue
            with contextlib.suppress(OSError):
                old = time.time() - file.stat().st_mtime > _ABANDONED
                if old or not _is_running(int(found["process"])):
                    file.unlink()


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # signal 0 is Ctrl-C on Windows; there, age alone decides
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def natural_key(text: str) -> tuple[list[str | int], str]:
    """A sort key by which ``a2.png`` comes before ``a10.png``."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], text
