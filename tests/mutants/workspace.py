"""Copies of the repository in which faults are planted; the working tree is only read."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_NATIVE = "zoo/ops/scan/_native.so"
"""Compiled by the installation, and ignored by git."""


class Workspace:
    """A copy of the repository.

    Args:
        folder: to create; ``folder/copy`` is the copy, the rest is scratch space of its tests.
        root: the repository.
    """

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        self.copy, self.scratch = folder / "copy", folder / "scratch"
        self._writes = 0
        for name in repository_files(root):
            target = self.copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target)

    def environment(self) -> dict[str, str]:
        """What makes this process's children import from the copy."""
        return {"PYTHONPATH": str(self.copy), "OMP_NUM_THREADS": "1"}

    @contextmanager
    def replaced(self, name: str, content: bytes) -> Iterator[None]:
        """Within, a file of the copy has another content."""
        path = self.copy / name
        original, times = path.read_bytes(), path.stat()
        try:
            path.write_bytes(content)
            # Python takes a compiled file for fresh if size and whole seconds agree.
            self._writes += 1
            os.utime(path, (times.st_atime, times.st_mtime + 10 * self._writes))
            yield
        finally:
            path.write_bytes(original)
            os.utime(path, (times.st_atime, times.st_mtime))


def heed_interrupts() -> None:
    """In a new process: Ctrl-C interrupts it.

    A shell lets what it starts in the background ignore that, and tests that send it would fail.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def repository_files(root: Path) -> list[str]:
    """Files that git tracks or would track, and the compiled kernel."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    told = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout
    return [name for name in [*told.splitlines(), _NATIVE] if (root / name).is_file()]


def changed_files(root: Path, base: str) -> set[str]:
    """Files that differ from a commit, untracked ones included."""
    names: set[str] = set()
    for words in (
        ["diff", "--name-only", "--diff-filter=d", "--merge-base", base],
        ["ls-files", "--others", "--exclude-standard"],
    ):
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
        names.update(done.stdout.splitlines())
    return names
