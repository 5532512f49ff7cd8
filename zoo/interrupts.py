"""Ctrl-C while modules are imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def start_quietly() -> bool:
    """Let Ctrl-C end the process at once, until :func:`end_quiet_start`.

    Half-imported modules of NumPy and PyTorch turn a KeyboardInterrupt into other errors. Nothing
    has been done yet that needs an orderly end. Outside the main thread, and where the process has
    its own handler, nothing changes.

    Returns:
        Whether this call has changed what Ctrl-C does.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    try:
        signal.signal(signal.SIGINT, _end)
    except ValueError:  # not the main thread
        return False
    return True


def end_quiet_start() -> None:
    """Let Ctrl-C raise a KeyboardInterrupt again; nothing changes without a quiet start."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """In the block, which only imports modules, Ctrl-C ends the process at once."""
    ours = start_quietly()
    try:
        yield
    finally:
        if ours:
            end_quiet_start()


def _end(*_: object) -> None:
    try:
        os.write(2, b"interrupted\n")
    finally:  # standard error may be closed
        os._exit(INTERRUPTED)
