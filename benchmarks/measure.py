"""Shared by all benchmarks: fair timing in turns, measurements in separate processes, tables."""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

PROC_CPU = Path("/proc/cpuinfo")


def best_times(
    paths: dict[str, Callable[[], Any]],
    seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Shortest time in seconds of each path; paths take turns until each has run for ``seconds``.

    Paths take turns, so that a temporary slowdown of a shared machine affects all of them. The
    shortest time counts, because it depends least on other programs. Each path runs at least twice,
    unless it takes longer than ``seconds``. With ``clock=time.process_time``, it is time of the
    CPU, for paths of one thread on a busy machine.
    """
    best = dict.fromkeys(paths, float("inf"))
    spent = dict.fromkeys(paths, 0.0)
    while min(spent.values()) < seconds:
        for name, function in paths.items():
            if spent[name] >= seconds:
                continue
            start = clock()
            function()
            took = clock() - start
            best[name], spent[name] = min(best[name], took), spent[name] + took
    return best


def own_process(script: str, *words: object) -> dict[str, Any]:
    """Run ``python script words`` and return the JSON that it prints.

    In a separate process, peak memory is that of one measurement only.
    """
    command = [sys.executable, script, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def peak_mebibytes() -> float:
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def added_mebibytes(run: Callable[[], Any]) -> float:
    """Increase in MiB of this process's peak resident memory during a call. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, which includes imports
    before = _status_mebibytes("VmHWM")
    run()
    return _status_mebibytes("VmHWM") - before


def _status_mebibytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def machine() -> str:
    """Machine and versions, for the title of a table."""
    name = platform.processor() or platform.machine()
    if PROC_CPU.exists():
        lines = PROC_CPU.read_text().splitlines()
        name = next((s.partition(": ")[2] for s in lines if s.startswith("model name")), name)
    return (
        f"{torch.get_num_threads()} threads of {name} "
        f"({torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Make a Markdown table."""
    lines = [list(head), *(list(map(str, row)) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
