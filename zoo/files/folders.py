"""Folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import WriteError
from zoo.files.paths import resolved, write_error
from zoo.files.temporary import clean, create_folder, locked_folder, temporary_name


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
        target = resolved(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        _restore_backup(target)
        if target.exists() and not target.is_dir():
            raise OSError("it is not a folder")
        clean(target.parent)
        temporary, held = create_folder(target)
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
    with locked_folder(target):
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
    if backup.is_symlink() or not backup.is_dir():
        return  # a link is not ours
    with locked_folder(backup) as ours:
        if not ours:
            return  # its process is alive
        if target.exists():
            _discard(backup)
        else:
            backup.rename(target)


def _discard(backup: Path) -> None:
    # Under a temporary name, it is a leftover if this process is killed.
    shutil.rmtree(backup.rename(temporary_name(backup)), ignore_errors=True)
