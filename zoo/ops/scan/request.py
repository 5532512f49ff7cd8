"""The backend that a block of the program asks for, also in the threads of its backward pass.

The request belongs to the code in the block, not to the process, so it is a context variable. But
on a GPU PyTorch runs backward passes, and what they compute again under checkpointing, in a thread
of its own, where context variables are unset. PyTorch hands some objects on from the thread that
calls ``backward`` to those threads; the request is one of them.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_KEY = "zoo_scan_backend"
_PROBE = "zoo_probe"

_requested: ContextVar[str] = ContextVar(_KEY, default="")


@contextmanager
def request(name: str) -> Iterator[None]:
    """Ask for a backend within the block."""
    token, before = _requested.set(name), _handed_on()
    _hand_on((threading.get_ident(), name))
    try:
        yield
    finally:
        _requested.reset(token)
        _hand_on(before)


def requested() -> str:
    """Name of the backend that the innermost block asks for; "" if none does.

    In a thread of a backward pass, that is the block in which ``backward`` was called.
    """
    if name := _requested.get():
        return name
    if torch._C._current_graph_task_id() == -1:  # in no backward pass
        return ""
    handed = _handed_on()
    if handed is None:
        return ""
    thread, name = handed
    # In the thread of the block itself, the context variable is right, and unset.
    return "" if thread == threading.get_ident() else name


def _hand_on(value: tuple[int, str] | None) -> None:
    if not _counts_references():
        _add_reference(value)
    torch._C._stash_obj_in_tls(_KEY, value)


@functools.cache
def _counts_references() -> bool:
    """Whether PyTorch counts its reference to what it hands on.

    It does since 2.13. Before, it gives back a reference that it has never taken: the object is
    freed while others still use it, and the process crashes later, anywhere.
    """
    handed: object = []
    before = sys.getrefcount(handed)
    torch._C._stash_obj_in_tls(_PROBE, handed)
    counted = sys.getrefcount(handed) > before
    for value in (handed, None):
        if not counted:
            _add_reference(value)
    torch._C._stash_obj_in_tls(_PROBE, None)
    return counted


def _add_reference(value: object) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _handed_on() -> tuple[int, str] | None:
    if not torch._C._is_key_in_tls(_KEY):
        return None
    found: tuple[int, str] | None = torch._C._get_obj_in_tls(_KEY)
    return found
