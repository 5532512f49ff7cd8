"""Paths: names of one file, the file behind links, the cache folder, and natural order of names."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from pathlib import Path

from zoo.errors import WriteError

_NO_ROOM = {
    getattr(errno, name, None) for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG")
}
"""Errors of permission and of space."""


def is_same_file(a: Path, b: Path) -> bool:
    """Whether writing to one path would replace the other's file, however the paths are spelled.

    Links, ``..`` and, where the file system ignores it, the case of letters make no difference. Two
    names of one file (hard links) are two files here: writing replaces a name, not its content.
    """
    if os.path.realpath(a) == os.path.realpath(b):
        return True
    try:
        return a.samefile(b) and a.stat().st_nlink == 1
    except OSError:  # one is not there
        return False


def cache_folder() -> Path:
    """Return the folder for files that can be computed again.

    It is ``$ZOO_CACHE``, or ``mamba-restoration-zoo`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        WriteError: if the user has no home folder, as in some containers.
    """
    own = os.environ.get("ZOO_CACHE")
    try:
        if own:
            return Path(own).expanduser().absolute()
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base).expanduser().absolute() / "mamba-restoration-zoo"
    except RuntimeError as error:
        whose = f"ZOO_CACHE is {own!r:.80}, and there is" if own else "there is"
        raise WriteError(
            f"{whose} no such home folder, so files have no cache folder; set the environment "
            "variable ZOO_CACHE to a folder"
        ) from error


def natural_key(name: str | Path) -> tuple[list[str | int], str]:
    """Return a sort key that puts ``a2.png`` before ``a10.png``."""
    # split() with a group alternates text and digits, so text is compared with text only.
    parts = re.split(r"([0-9]+)", str(name).casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(name)


def write_error(path: Path, error: OSError) -> WriteError:
    """Return the error that says why a file or folder cannot be written, and what to do."""
    check = "check that the folder is writable and has space left, or "
    wrapped = WriteError(
        f"{path}: cannot write: {error.strerror or error}; "
        f"{check if error.errno in _NO_ROOM else ''}choose another place"
    )
    wrapped.errno = error.errno
    return wrapped


def resolved(path: Path) -> Path:
    """Return the path behind symbolic links, which a file or folder is to be written to.

    Raises:
        OSError: if the path has a null character or belongs to the system.
    """
    if "\0" in str(path):
        raise OSError("the path has a null character")
    step = Path(path).absolute()
    for _ in range(_MOST_LINKS):
        if step.name != "..":
            step = Path(os.path.realpath(step.parent)) / step.name
        _check_not_of_the_system(step)
        if not step.is_symlink():
            return Path(os.path.realpath(step))
        step = step.parent / step.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


_MOST_LINKS = 40
"""Number of links to links after which Linux, too, gives up."""


def _check_not_of_the_system(path: Path) -> None:
    # /dev/stdout leads to the file that gets the output of the process, and replacing that file
    # would lose the output. /dev/shm is a file system in memory.
    first, second = path.parts[1:2], path.parts[2:3]
    if sys.platform != "win32" and first in (("dev",), ("proc",)) and second != ("shm",):
        raise OSError(f"/{first[0]} has no regular files")


def open_regular(path: Path, flags: int) -> int:
    """Open a file that another process may have replaced with anything; never wait for it.

    Opening a pipe waits until a process opens its other end, and opening a device can do anything.

    Returns:
        The descriptor of the file.

    Raises:
        OSError: if the path is a link or not a regular file, or cannot be opened.
    """
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with contextlib.suppress(FileNotFoundError):
        _check_regular(path.lstat().st_mode)
    opened = os.open(path, flags | careful, 0o666)
    try:
        _check_regular(os.fstat(opened).st_mode)
    except OSError:
        os.close(opened)
        raise
    return opened


def _check_regular(mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a link, which is not followed here")
    if not stat.S_ISREG(mode):
        raise OSError("it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file")


def target_of(path: Path) -> tuple[Path, int | None]:
    """Return the file behind symbolic links and its permissions; create its folder if missing.

    The permissions of a new file are None.

    Raises:
        OSError: if the path is a folder or a device, or has a null character.
    """
    target = resolved(path)
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target, None
    _check_regular(mode)
    return target, mode & 0o777
