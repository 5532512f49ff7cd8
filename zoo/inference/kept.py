"""Memory that a network frees on a CPU and takes again for its next layer, kept in between.

The C library gives large blocks back to the system at once, and the system fills each new one with
zeros. A network frees and takes the features of a large image hundreds of times, so that this takes
a third of the time.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Numbers of settings in ``malloc.h``."""

_NEVER_TRIM, _NO_BLOCKS = -1, 0
"""Keep all that is freed, and take no block from the system that goes back to it when freed."""

_BLOCKS, _BLOCK_BYTES, _TRIM_BYTES = 65536, 2**25, 2**26
"""What the C library sets itself: the number of such blocks, and once a large one has been freed,
from which size blocks are such, and how much is kept."""

_VARIABLES = (
    "GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_",
)  # fmt: skip
"""Environment variables by which someone has chosen these settings."""

_lock, _depth = threading.Lock(), 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """In the block, memory that is freed stays with the process; afterwards it is given back.

    This is for the GNU C library with its own settings; elsewhere nothing changes. The settings
    belong to the process, so the block may be entered again inside it, and by several threads.
    """
    global _depth
    library = _library()
    if library is None:
        yield
        return
    with _lock:
        _depth += 1
        if _depth == 1:
            library.mallopt(_MMAP_MAX, _NO_BLOCKS)
            library.mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                library.mallopt(_MMAP_MAX, _BLOCKS)
                library.mallopt(_MMAP_THRESHOLD, _BLOCK_BYTES)
                library.mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
                library.malloc_trim(0)


def give_back() -> None:
    """Give memory that is kept, and not in use, back to the system."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


@cache
def _library() -> ctypes.CDLL | None:
    """The GNU C library, or None where there is another, or where its settings were chosen."""
    if sys.platform != "linux" or any(name in os.environ for name in _VARIABLES):
        return None
    library = ctypes.CDLL(None)
    if not all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt")):
        return None
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library
