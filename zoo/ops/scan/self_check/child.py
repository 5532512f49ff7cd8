"""A process that examines a backend, so that a hang or a broken device does no harm to its parent.

It gets what to do as a line of JSON on its standard input, and prints a line of JSON before and
after each case. :mod:`processes` starts it and reads the lines.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch

from zoo.errors import is_out_of_memory
from zoo.ops.scan.self_check.comparison import Check, OwnCheck, fault, in_one_line

NOT_ITS_FAULT = (
    *("busy or unavailable", "cuda-capable device(s)", "no kernel image", "initialization error"),
    *("no space left on device", "disk quota exceeded", "read-only file system"),
)
"""In errors of a device or a disk that cannot be used now; they say nothing about the backend."""

CANNOT_TELL = 74
"""Exit code of a process that cannot write what it has found (EX_IOERR)."""


def main() -> None:
    """Examine the backend that standard input names, and print what happens."""
    order = json.loads(sys.stdin.readline())
    backend, device = find(order["backend"]), torch.device(order["device"])
    # If the parent is killed, nobody else would end a process that hangs.
    faulthandler.dump_traceback_later(order["most"], exit=True)
    try:
        _examine(backend, device, find(order["plan"])[order["group"]], order["all"])
    finally:
        faulthandler.cancel_dump_traceback_later()


def _examine(
    backend: Any, device: torch.device, checks: Sequence[Check | OwnCheck], go_on: bool
) -> None:
    torch.set_num_threads(1)  # there are other such processes, and the cases are small
    try:
        torch.empty(1, device=device)
    except RuntimeError as error:
        tell(undecided=in_one_line(error))
        return
    for check in checks:
        tell(starts=str(check))
        try:
            wrong = fault(backend, check, device)
        except Exception as error:
            wrong = in_one_line(error)
            if cannot_judge(error):
                tell(undecided=wrong)
                return
        if wrong is not None:
            tell(failed=str(check), error=wrong)
            if not go_on:
                return
    tell(done=True)


def cannot_judge(error: BaseException) -> bool:
    """Whether an error comes from a device that is full or in use, a disk, or another program.

    The last two are what Triton needs to compile: its cache folder, and a C compiler that works.
    """
    text = str(error).lower()
    others = isinstance(error, OSError | subprocess.SubprocessError | ImportError)
    return others or is_out_of_memory(error) or any(sign in text for sign in NOT_ITS_FAULT)


def find(place: str) -> Any:
    """Return what is at a place: a module, or MODULE:NAME."""
    module, _, name = place.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def tell(**line: object) -> None:
    """Print a line of JSON, on a line of its own whatever others have printed."""
    try:
        sys.stdout.write("\n" + json.dumps(line) + "\n")
        sys.stdout.flush()
    except OSError:  # the disk is full, so that errors could not be written either
        os._exit(CANNOT_TELL)
