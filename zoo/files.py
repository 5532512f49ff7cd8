"""Writing files whole or not at all, and sorting names as people do.

A file is written under a temporary name in its own folder and then renamed, so that nobody ever
sees half of it. A process that is killed leaves its temporary file behind; the next process that
writes into the folder removes it. A temporary file is in use as long as its writer holds a lock on
it. The system drops the lock when the process ends, however it ends.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from zoo.errors import WriteError

if sys.platform != "win32":
    import fcntl

_TEMPORARY_NAME = re.compile(r"\.zoo-[0-9a-f]{16}\.part")
"""Hidden and with a suffix of its own, so that nobody takes half a file for an image, and short, so
that files with the longest names can be written."""

_OLD = 24 * 3600
"""Seconds after which a temporary file counts as left over where the file system has no locks."""

_cleaned: set[Path] = set()
"""Folders that this process has cleaned, so that writing many files lists a folder once."""


@contextlib.contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to ``path`` when the block ends.

    If the block fails, the temporary file is removed and ``path`` stays as it was. A missing folder
    is made. The temporary file is there, and empty, when the block begins: write into it, do not
    replace it by another. Its suffix is ``.part``, which some libraries take for an unknown format.

    A new file gets the usual permissions (the umask); an existing one keeps its own. Where ``path``
    is a symbolic link, the file it points to is replaced and the link stays.

    Raises:
        WriteError: for any ``OSError``, also one of the block.
    """
    try:
        target, mode = _target_of(path)
        _clean(target.parent)
        temporary, held = _create(target, mode)
        try:
            yield temporary
            os.fsync(held.fileno())
            if mode is not None:
                with contextlib.suppress(OSError):  # some file systems have no permissions
                    temporary.chmod(mode)
            if sys.platform == "win32":
                held.close()  # Windows renames no open file
            temporary.replace(target)
        finally:
            held.close()
            temporary.unlink(missing_ok=True)
    except WriteError:
        raise
    except OSError as error:
        raise _write_error(path, error) from error


@contextlib.contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, and rename it to ``path`` when the block ends.

    If the block fails, the temporary folder is removed and ``path`` stays as it was. A folder that
    is there is replaced as a whole.

    Raises:
        WriteError: for any ``OSError``, also one of the block.
    """
    try:
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        _clean(target.parent)
        temporary, held = _create_folder(target)
        try:
            yield temporary
            _replace_folder(target, temporary)
        finally:
            if held is not None:
                os.close(held)
            shutil.rmtree(temporary, ignore_errors=True)
    except WriteError:
        raise
    except OSError as error:
        raise _write_error(path, error) from error


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write`` with the temporary path of :func:`partial_file`.

    Raises:
        WriteError: if the file cannot be written.
    """
    with partial_file(path) as temporary:
        write(temporary)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file; see :func:`partial_file`.

    Raises:
        WriteError: if the file cannot be written.
    """
    with partial_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8 with ``\\n`` at the end of lines; see :func:`partial_file`.

    Raises:
        WriteError: if the file cannot be written.
    """
    write_bytes(path, text.encode())


def check_writable(path: Path) -> None:
    """Find out before long work whether a file can be written; a missing folder is made.

    Raises:
        WriteError: if it cannot.
    """
    try:
        temporary, held = _create(*_target_of(path))
        held.close()
        temporary.unlink()
    except OSError as error:
        raise _write_error(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in a folder.

    Files that a process, here or on another machine, is writing stay. A missing folder is fine.
    """
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            if _TEMPORARY_NAME.fullmatch(file.name):
                with contextlib.suppress(OSError):
                    _remove_abandoned(file)


def _clean(folder: Path) -> None:
    if folder not in _cleaned:
        remove_leftovers(folder)
        _cleaned.add(folder)


def cache_folder() -> Path:
    """Where things are kept that are made once and can be made again.

    It is ``$ZOO_CACHE``, or ``mamba-restoration-zoo`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    if own := os.environ.get("ZOO_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser().absolute() / "mamba-restoration-zoo"


def natural_key(name: str | Path) -> tuple[list[str | int], str]:
    """A sort key by which ``a2.png`` comes before ``a10.png``."""
    # split() with a group alternates text and digits, so like is compared with like.
    parts = re.split(r"([0-9]+)", str(name).casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(name)


def _write_error(path: Path, error: OSError) -> WriteError:
    wrapped = WriteError(
        f"{path}: cannot write: {error.strerror or error}; check that the folder may be written to "
        "and has space left, or choose another place"
    )
    wrapped.errno = error.errno
    return wrapped


def _target_of(path: Path) -> tuple[Path, int | None]:
    """The file behind symbolic links and its permissions, None for a new file; makes its folder.

    Raises:
        OSError: for a folder or a device, which a rename would fail at or replace.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target, None
    if not stat.S_ISREG(mode):
        raise OSError("it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file")
    return target, mode & 0o777


def _create(target: Path, mode: int | None) -> tuple[Path, IO[bytes]]:
    """Make an empty temporary file beside ``target``, and hold it."""

    def opener(name: str, flags: int) -> int:
        # A private file is private from the start; its owner may write as long as it is temporary.
        return os.open(name, flags, 0o666 if mode is None else mode | stat.S_IWUSR)

    while True:
        temporary = _temporary_name(target)
        held = open(temporary, "x+b", opener=opener)  # noqa: SIM115
        try:
            ours = _lock(held)
        except OSError:
            ours = True  # no locks here
        if ours and temporary.exists():
            return temporary, held
        # A cleaner was faster: it locked the new file and removes it.
        held.close()


def _temporary_name(target: Path) -> Path:
    return target.with_name(f".zoo-{secrets.token_hex(8)}.part")


def _create_folder(target: Path) -> tuple[Path, int | None]:
    """Make an empty temporary folder beside ``target``, and hold it where the system can."""
    while True:
        temporary = _temporary_name(target)
        temporary.mkdir()
        if sys.platform == "win32":
            return temporary, None
        with contextlib.suppress(FileNotFoundError):  # a cleaner was faster, as in _create
            held = os.open(temporary, os.O_RDONLY)
            try:
                ours = _lock(held)
            except OSError:
                ours = True  # no locks here
            if ours and temporary.exists():
                return temporary, held
            os.close(held)


def _replace_folder(target: Path, new: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    old = _temporary_name(target)
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_abandoned(file: Path) -> None:
    if file.is_dir():
        _remove_abandoned_folder(file)
        return
    if sys.platform == "win32":
        file.unlink()  # fails for a file that a process holds open
        return
    with file.open("r+b") as opened:
        try:
            abandoned = _lock(opened)
        except OSError:
            abandoned = time.time() - file.stat().st_mtime > _OLD
        if abandoned:
            file.unlink()


def _remove_abandoned_folder(folder: Path) -> None:
    abandoned = time.time() - folder.stat().st_mtime > _OLD
    if sys.platform == "win32":
        if abandoned:
            shutil.rmtree(folder)
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # no locks here: age decides
            abandoned = _lock(held)
        if abandoned:
            shutil.rmtree(folder)
    finally:
        os.close(held)


def _lock(file: IO[bytes] | int) -> bool:
    """Lock an open file or folder unless it is locked already; say whether it is now ours.

    Raises:
        OSError: where the file system has no locks.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
