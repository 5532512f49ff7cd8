"""Single files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo.errors import WriteError
from zoo.files.paths import target_of, write_error
from zoo.files.temporary import clean, create_file


@contextlib.contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to ``path`` when the block ends.

    If the block fails, the temporary file is removed and ``path`` is unchanged. A missing folder is
    created. When the block starts, the temporary file exists and is empty: write to it, do not
    replace it. Its suffix is ``.part``, so libraries cannot derive the format from it.

    A new file gets the usual permissions (the umask); an existing file keeps its permissions, but
    not the set-uid, set-gid and sticky bits. If ``path`` is a symbolic link, the file it points to
    is replaced, and the link stays.

    Raises:
        WriteError: for any ``OSError``, including those of the block; if the path is a folder or
            a device, or has a null character.
    """
    try:
        target, mode = target_of(path)
        clean(target.parent)
        temporary, held = create_file(target, mode)
        try:
            yield temporary
            os.fsync(held.fileno())
            if mode is not None:
                with contextlib.suppress(OSError):  # some file systems have no permissions
                    temporary.chmod(mode)
            if sys.platform == "win32":
                held.close()  # Windows cannot rename an open file
            temporary.replace(target)
        finally:
            held.close()
            temporary.unlink(missing_ok=True)
    except WriteError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file by calling ``write`` with the temporary path of :func:`partial_file`.

    Raises:
        WriteError: if the file cannot be written.
    """
    with partial_file(path) as temporary:
        write(temporary)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes to a file; it appears whole or not at all, see :func:`partial_file`.

    Raises:
        WriteError: if the file cannot be written.
    """
    with partial_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 with ``\\n`` line ends; see :func:`partial_file`.

    Raises:
        WriteError: if the file cannot be written.
    """
    write_bytes(path, text.encode())


def check_writable(path: Path) -> None:
    """Check, before long work, that a file can be written; a missing folder is created.

    Raises:
        WriteError: if the file cannot be written.
    """
    try:
        temporary, held = create_file(*target_of(path))
        held.close()
        temporary.unlink()
    except OSError as error:
        raise write_error(path, error) from error
