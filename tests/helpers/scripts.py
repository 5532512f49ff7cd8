"""Shell scripts of the documentation, run with the commands of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_script(
    folder: Path, script: str, seconds: int, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder; ``python`` and ``zoo`` are those of this checkout."""
    programs = folder / ".bin"
    programs.mkdir(exist_ok=True)
    for name, words in (("python", ""), ("zoo", "-m zoo ")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        program.chmod(0o755)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    paths = {
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**inherited, **paths, **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
