"""Writing files whole or not at all, the cache folder, and natural sorting of file names.

A file is written under a temporary name in its folder and then renamed, so readers never see half a
file. A killed process leaves its temporary file behind; the next process that writes to the folder
removes it. A temporary file is in use as long as its writer holds a lock on it. The system releases
the lock when the process ends, even if it is killed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
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
"""Temporary names are hidden and have their own suffix, so that no program reads half a file as an
image. They are short, so that files with the longest possible names can be written."""

_OLD = 24 * 3600
"""Age in seconds at which a temporary file counts as abandoned if the file system has no locks."""

_NO_ROOM = {
    getattr(errno, name, None) for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG")
}
"""Errors of permission and of space."""

_cleaned: set[Path] = set()
"""Folders that this process has cleaned, so that each folder is listed only once."""


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
                held.close()  # Windows cannot rename an open file
            temporary.replace(target)
        finally:
            held.close()
            temporary.unlink(missing_ok=True)
    except WriteError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, and rename it to ``path`` when the block ends.

    If the block fails, the temporary folder is removed and ``path`` is unchanged. An existing
    folder is replaced as a whole. If a process is killed while it replaces the folder, the old
    folder comes back when the block for the same path starts again. The content is on the disk
    before the folder has its name.

    Raises:
        WriteError: for any ``OSError``, including those of the block; if the path exists and is not
            a folder.
    """
    try:
        target = _resolved(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        _restore_backup(target)
        if target.exists() and not target.is_dir():
            raise OSError("it is not a folder")
        _clean(target.parent)
        temporary, held = _create_folder(target)
        try:
            yield temporary
            _sync_folder(temporary)
            _replace_folder(target, temporary)
        finally:
            if held is not None:
                os.close(held)
            shutil.rmtree(temporary, ignore_errors=True)
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
        temporary, held = _create(*_target_of(path))
        held.close()
        temporary.unlink()
    except OSError as error:
        raise write_error(path, error) from error


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


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in a folder.

    Files that are being written, on this machine or another, are kept. The folder may be missing.
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
    """Return the folder for files that can be computed again.

    It is ``$ZOO_CACHE``, or ``mamba-restoration-zoo`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    if own := os.environ.get("ZOO_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser().absolute() / "mamba-restoration-zoo"


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


def _resolved(path: Path) -> Path:
    """Return the path behind symbolic links.

    Raises:
        OSError: if the path has a null character or belongs to the system.
    """
    if "\0" in str(path):
        raise OSError("the path has a null character")
    # /dev/stdout leads to the file that gets the output of the process, and replacing that file
    # would lose the output. /dev/shm is a file system in memory.
    absolute = Path(os.path.normpath(Path(path).absolute()))
    first, second = absolute.parts[1:2], absolute.parts[2:3]
    if sys.platform != "win32" and first in (("dev",), ("proc",)) and second != ("shm",):
        raise OSError(f"/{first[0]} has no regular files")
    return Path(os.path.realpath(path))


def _target_of(path: Path) -> tuple[Path, int | None]:
    """Return the file behind symbolic links and its permissions; create its folder if missing.

    The permissions of a new file are None.

    Raises:
        OSError: if the path is a folder or a device, or has a null character.
    """
    target = _resolved(path)
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target, None
    if not stat.S_ISREG(mode):
        raise OSError("it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file")
    return target, mode & 0o777


def _create(target: Path, mode: int | None) -> tuple[Path, IO[bytes]]:
    """Create an empty temporary file beside ``target``, and lock it."""

    def opener(name: str, flags: int) -> int:
        # The permissions are set at the start, so that a private file is never readable by others.
        # The owner may always write to the temporary file.
        return os.open(name, flags, 0o666 if mode is None else mode | stat.S_IWUSR)

    while True:
        temporary = _temporary_name(target)
        held = open(temporary, "x+b", opener=opener)  # noqa: SIM115
        try:
            ours = _lock(held)
        except OSError:
            ours = True  # this file system has no locks
        if ours and temporary.exists():
            return temporary, held
        # Another process locked the new file first and removes it as abandoned: try again.
        held.close()


def _temporary_name(target: Path) -> Path:
    return target.with_name(f".zoo-{secrets.token_hex(8)}.part")


def _create_folder(target: Path) -> tuple[Path, int | None]:
    """Create an empty temporary folder beside ``target``, and lock it if the system can."""
    while True:
        temporary = _temporary_name(target)
        temporary.mkdir()
        if sys.platform == "win32":
            return temporary, None
        with contextlib.suppress(FileNotFoundError):  # removed as abandoned, as in _create
            held = os.open(temporary, os.O_RDONLY)
            try:
                ours = _lock(held)
            except OSError:
                ours = True  # this file system has no locks
            if ours and temporary.exists():
                return temporary, held
            os.close(held)


def _sync_folder(folder: Path) -> None:
    """Write everything in a folder to the disk."""
    windows = sys.platform == "win32"
    for place, _, names in os.walk(folder):
        paths = [Path(place, name) for name in names]
        for path in paths if windows else [*paths, Path(place)]:  # Windows cannot sync folders
            if path.is_symlink():
                continue
            opened = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def _replace_folder(target: Path, new: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    backup = _backup_name(target)
    with _held(target):
        target.rename(backup)
        try:
            new.rename(target)
        except BaseException:
            with contextlib.suppress(OSError):  # the next start restores it
                backup.rename(target)
            raise
        _discard(backup)


def _backup_name(target: Path) -> Path:
    """Return the name of a folder while it is being replaced; it is never a leftover."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()
    return target.with_name(f".zoo-{digest[:16]}.old")


def _restore_backup(target: Path) -> None:
    """Bring back the folder that a killed process was replacing, or remove it if it is replaced."""
    backup = _backup_name(target)
    if not backup.is_dir():
        return
    with _held(backup) as ours:
        if not ours:
            return  # its process is alive
        if target.exists():
            _discard(backup)
        else:
            backup.rename(target)


def _discard(backup: Path) -> None:
    # Under a temporary name, it is a leftover if this process is killed.
    shutil.rmtree(backup.rename(_temporary_name(backup)), ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Lock a folder during the block; False if another process has the lock."""
    if sys.platform == "win32":
        yield True
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            ours = _lock(held)
        except OSError:
            ours = True  # this file system has no locks
        yield ours
    finally:
        os.close(held)


def _remove_abandoned(file: Path) -> None:
    if file.is_dir():
        _remove_abandoned_folder(file)
        return
    if sys.platform == "win32":
        file.unlink()  # fails for a file that a process has open
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
        with contextlib.suppress(OSError):  # without locks, the age decides
            abandoned = _lock(held)
        if abandoned:
            shutil.rmtree(folder)
    finally:
        os.close(held)


def _lock(file: IO[bytes] | int) -> bool:
    """Try to lock an open file or folder; return False if another process has the lock.

    Raises:
        OSError: if the file system has no locks.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
