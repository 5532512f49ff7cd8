"""What this process has open."""

from __future__ import annotations

from pathlib import Path


def open_files() -> list[str]:
    """Numbers of the files that are open, in sequence."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())
