"""Reading the bytes of an input file, whatever is at its path."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from zoo.errors import ImageError

LARGEST = 2**33
"""Largest input in bytes: more than the samples of the largest image that can be decoded."""


def read_input(path: Path, kind: str, largest: int = LARGEST) -> bytes:
    """Read the bytes of a file.

    Only regular files are read, also through links. A pipe or a device could wait forever or never
    end.

    Args:
        path: the file.
        kind: what the file is, such as "image file", for error messages.
        largest: largest size in bytes.

    Raises:
        ImageError: if the file is missing, empty, too large, not a regular file, or cannot be read.
    """
    name = f"{kind} {str(path)!r}"
    if "\0" in str(path):
        raise ImageError(f"{name} cannot exist: the path has a null character")
    try:
        found = path.stat()
        _check(found, name, largest)
        data = path.read_bytes()
    except FileNotFoundError as error:
        fault = "is a link to a missing file" if path.is_symlink() else "does not exist"
        raise ImageError(f"{name} {fault}; check the path") from error
    except OSError as error:
        raise ImageError(
            f"{name} cannot be read: {error.strerror}; check the path and its permissions"
        ) from error
    except MemoryError as error:
        raise ImageError(
            f"{name} has {found.st_size} bytes, more than the free memory; check that it is the "
            "right file"
        ) from error
    if not data:
        raise ImageError(f"{name} is empty; copy it again")
    return data


def _check(found: os.stat_result, name: str, largest: int) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise ImageError(f"{name} is a folder; name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(f"{name} is a pipe or a device; copy its content to a file")
    if found.st_size > largest:
        raise ImageError(
            f"{name} has {found.st_size} bytes, and at most {largest} can be right; check the path"
        )
