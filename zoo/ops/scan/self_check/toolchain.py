"""What Triton needs besides itself: a C compiler and Python's headers, for its launchers."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path


def missing() -> str | None:
    """Say what Triton misses on this machine, and how to get it; None if it has all.

    Triton compiles a launcher in C for each kernel the first time that it runs. On Windows it
    brings what that needs.
    """
    if sys.platform == "win32":
        return None
    lacks, packages = [], []
    compiler = os.environ.get("CC", "").strip()
    if compiler and shutil.which(_program(compiler)) is None:
        lacks.append(f"the C compiler that the environment variable CC names ({compiler:.80})")
        packages.append("gcc")
    elif not compiler and not any(map(shutil.which, ("gcc", "clang"))):
        lacks.append("a C compiler")
        packages.append("gcc")
    if not header().is_file():
        lacks.append(f"Python's headers ({header()})")
        packages.append("python3-dev")
    if not lacks:
        return None
    return (
        f"Triton misses {' and '.join(lacks)}; on Debian and Ubuntu: "
        f"apt install {' '.join(packages)}"
    )


def _program(command: str) -> str:
    """The first word of a command, which may be quoted; a path that is there is one word."""
    if shutil.which(command):
        return command
    with contextlib.suppress(ValueError):  # a quote that is not closed
        return shlex.split(command)[0]
    return command.split()[0]


def header() -> Path:
    """Where Triton looks for ``Python.h``."""
    scheme = sysconfig.get_default_scheme()
    # Debian's own scheme adds "local"; Triton, too, leaves that out.
    scheme = "posix_prefix" if scheme == "posix_local" else scheme
    return Path(sysconfig.get_paths(scheme=scheme)["include"]) / "Python.h"
