"""Ratios of paths that take turns, also between two versions of the project."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

Timed = Callable[[], float]
"""Runs a path once and returns its time in seconds."""


def of_cpu(function: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> Timed:
    """Make a path of a function; by default its time is that of the CPU, of all its threads."""

    def run() -> float:
        start = clock()
        function()
        return clock() - start

    return run


def in_turns(paths: dict[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Run all paths ``rounds`` times in turns, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(rounds + 1):
        for name, path in paths.items():
            seconds = path()
            if turn:
                times[name].append(seconds)
    return times


def ratio(times: dict[str, list[float]], name: str, other: str) -> float:
    """The median of the ratios of two paths, of the same round each."""
    pairs = zip(times[name], times[other], strict=True)
    return statistics.median(mine / theirs for mine, theirs in pairs)


class OtherVersion:
    """Runs functions of a script in another version of the project, in a process that stays.

    Args:
        folder: a checkout of that version, with its kernel built.
        script: a script of this version that has the functions.
    """

    def __init__(self, folder: Path, script: Path) -> None:
        paths = os.pathsep.join(map(str, (folder, script.parent)))
        program = (
            f"import json, sys; import {script.stem} as script\n"
            "paths = {}\n"
            "for line in sys.stdin:\n"
            "    name, words = json.loads(line)\n"
            "    if line not in paths: paths[line] = getattr(script, name)(*words)\n"
            "    print(json.dumps(paths[line]()), flush=True)\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def path(self, name: str, *words: Any) -> Timed:
        """The path that the function ``name`` of the script makes of some words."""

        def run() -> float:
            process = self._process
            assert process.stdin is not None and process.stdout is not None
            print(json.dumps([name, words]), file=process.stdin, flush=True)
            return float(json.loads(process.stdout.readline()))

        return run

    def __enter__(self) -> OtherVersion:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
