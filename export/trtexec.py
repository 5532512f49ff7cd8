"""Where TensorRT's command-line builder is: Debian's packages and JetPack keep it off the PATH."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

USUAL = Path("/usr/src/tensorrt/bin/trtexec")
"""Place of ``trtexec`` in NVIDIA's packages for Debian and Ubuntu, and in JetPack."""


def trtexec() -> str:
    """Return the command for ``trtexec`` on this machine, as a shell needs it."""
    if shutil.which("trtexec") or not os.access(USUAL, os.X_OK):
        return "trtexec"
    return str(USUAL)


def find_in_shell() -> str:
    """Return lines of a shell script that set ``trtexec`` to a command, or stop with a sentence.

    The variable TRTEXEC comes first, then the PATH, then the usual place.
    """
    return f"""trtexec=${{TRTEXEC:-trtexec}}
if [ -z "${{TRTEXEC:-}}" ] && ! command -v trtexec > /dev/null; then trtexec={USUAL}; fi
if ! command -v "$trtexec" > /dev/null; then
    echo "$trtexec: there is no such program; install TensorRT with its programs, or set" \\
        "TRTEXEC to the absolute path of trtexec" >&2
    exit 2
fi
"""
