"""Memory of a process that trains."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the options in glibc's ``malloc.h``."""

MOST_FREE = 2**31 - 1
"""Bytes at the end of the heap that stay with the process."""

LARGEST_IN_HEAP = 2**30
"""Blocks of more bytes are given back when they are freed."""


def keep_freed_memory() -> bool:
    """Let the process keep memory that it frees, and return whether it does.

    Each step of a training takes and frees blocks of the same sizes. glibc gives large ones back to
    the system, which clears each page when it hands it out again; in a small network, that is a
    tenth of a step. Call this at the start of a process of one's own. Settings of the user
    (``MALLOC_...``, ``GLIBC_TUNABLES``) come first. Other allocators are left as they are.
    """
    if sys.platform != "linux" or _is_set_by_the_user():
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:  # musl
        return False
    kept = set_option(_MMAP_THRESHOLD, LARGEST_IN_HEAP), set_option(_TRIM_THRESHOLD, MOST_FREE)
    return all(kept)


def _is_set_by_the_user() -> bool:
    return "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") and name.endswith("THRESHOLD_") for name in os.environ
    )
