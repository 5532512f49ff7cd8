"""Locks of open files, which the system releases when their process ends, even if it is killed."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import IO, TypeAlias

if sys.platform != "win32":
    import fcntl

Opened: TypeAlias = IO[bytes] | int


def try_lock(file: Opened) -> bool | None:
    """Try to lock an open file or folder; processes that this one starts hold the lock too.

    Returns:
        Whether this process has the lock now. False means that another one has it, and None that
        the system or the file system has no locks.
    """
    if sys.platform == "win32":
        return None
    return _locked(fcntl.flock, file)


def unlock(file: Opened) -> None:
    """Give a lock of :func:`try_lock` back, for all processes that hold it with this one."""
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_UN)


def try_own(file: Opened) -> bool | None:
    """Try to lock an open file for this process alone; see :func:`try_lock`.

    The lock is lost when this process closes the file, however often it has opened it.
    """
    if sys.platform == "win32":
        return None
    return _locked(fcntl.lockf, file)


def _locked(lock: Callable[[Opened, int], None], file: Opened) -> bool | None:
    try:
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True
