"""Ctrl-C while modules are imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


@contextmanager
def quiet_imports() -> Iterator[None]:
    """In the block, which only imports modules, Ctrl-C ends the process at once.

    Half-imported modules of NumPy and PyTorch turn a KeyboardInterrupt into other errors. Nothing
    has been done yet that needs an orderly end. Outside the main thread, and where the process has
    its own handler, nothing changes.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, _end)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> None:
    try:
        os.write(2, b"interrupted\n")
    finally:  # standard error may be closed
        os._exit(INTERRUPTED)
