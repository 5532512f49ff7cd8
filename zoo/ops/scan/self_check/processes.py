"""Starts the processes that examine a backend, and watches them.

Groups of cases run beside each other, because the time goes into compiling. A process that shows no
progress for :data:`LIMIT` seconds hangs: it is ended, and the case that it was at has failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import torch

from zoo.ops.scan.self_check.child import CANNOT_TELL, NOT_ITS_FAULT, find
from zoo.ops.scan.self_check.verdicts import Verdict

LIMIT = 90.0
"""Seconds without a finished case after which a process hangs. On a slow machine the first case,
which compiles the most, takes twenty."""

_START_LIMIT = 120.0
"""Seconds until a process has imported PyTorch and has its first case."""
_MOST = 1800.0
"""Seconds after which a process ends itself, in case that nobody watches it any more."""
_POLL = 0.02
_LONGEST_LOOK = 1.0
"""Seconds between two looks that count at most: all processes may have been stopped (Ctrl-Z)."""
_FROM_OUTSIDE = {
    -getattr(signal, name)
    for name in ["SIGHUP", "SIGINT", "SIGKILL", "SIGTERM", "SIGXCPU"]
    if hasattr(signal, name)
}
"""Codes of a process that somebody else has ended, or the system for want of memory or time."""
_ROOT = Path(__file__).parents[4]
"""The folder that holds this package. A child does not see the user's own site-packages, so it
would not find a package that is installed there as editable."""
_FEW_PROCESSES, _MANY_PROCESSES = 6, 16
"""Processes at a time: in the self-check, where the user waits, and for a report."""
_MEMORY_OF_EACH = 1 << 30
"""Bytes of the device that must be free for each process; its context takes half of them."""

_START = (
    "import json, sys; line = sys.stdin.readline(); sys.path[:] = json.loads(line); "
    "from zoo.ops.scan.self_check.{module} import main; main()"
)
"""The program of a process, which must find the same modules as this one, and no others."""


class _Process:
    """A process with its group of cases, and what it has told."""

    def __init__(
        self, started: subprocess.Popen[bytes], output: IO[bytes], errors: IO[bytes]
    ) -> None:
        self.started, self.output, self.errors = started, output, errors
        self.looked, self.idle, self.length, self.begun = time.monotonic(), 0.0, 0, 0

    def told(self) -> list[dict[str, object]]:
        """The lines so far; others print there too."""
        self.output.seek(0)
        content = self.output.read()
        if len(content) != self.length:
            self.length, self.idle = len(content), 0.0
        lines = []
        for line in content.decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                read = json.loads(line)
                lines += [read] if isinstance(read, dict) else []
        return lines

    def last_words(self) -> str:
        """The last line that it has printed as an error."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")

    def look(self, task: _Task, begun: Callable[[], None]) -> list[Verdict] | None:
        """The faults that it has found, if it has ended or must be ended; None while it works."""
        now = time.monotonic()
        self.idle += min(now - self.looked, _LONGEST_LOOK)
        self.looked = now
        code = self.started.poll()  # first: what it has told then is all
        lines = self.told()
        cases = [str(line["starts"]) for line in lines if "starts" in line]
        while self.begun < len(cases):
            self.begun += 1
            begun()
        faults = [
            Verdict(False, str(line["failed"]), str(line["error"]))
            for line in lines
            if "failed" in line
        ]
        unjudged = [_cannot(str(line["undecided"])) for line in lines if "undecided" in line]
        if any("done" in line for line in lines) or unjudged or (faults and not task.go_on):
            return [*faults, *unjudged]
        case = cases[-1] if cases else ""
        if code is not None:
            return [*faults, self._died(code, case)]
        limit = task.limit if case else _START_LIMIT
        if self.idle <= limit:
            return None
        if not case:
            return [_cannot(f"the process of the check did not start within {limit:.0f} seconds")]
        return [*faults, Verdict(False, case, f"no result after {limit:.0f} seconds")]

    def _died(self, code: int, case: str) -> Verdict:
        words = self.last_words()
        if code in _FROM_OUTSIDE:
            return _cannot(f"the process was ended from outside ({signal.Signals(-code).name})")
        if code == CANNOT_TELL:
            return _cannot("the process could not write to the folder of temporary files")
        text = f"the process ended with code {code}: {words}"
        if not case or any(sign in words.lower() for sign in (*NOT_ITS_FAULT, "out of memory")):
            return _cannot(text)
        return Verdict(False, case, text)

    def end(self) -> None:
        """End it, whatever it does, and close its files."""
        if self.started.poll() is None:
            self.started.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver
            self.started.wait(timeout=5)
        self.output.close()
        self.errors.close()


def place_of(backend: object) -> str:
    """Where another process finds a backend: its module, or MODULE:NAME."""
    return getattr(backend, "PLACE", "") or str(getattr(backend, "__name__", ""))


def examine(backend: str, device: torch.device, plan: str, *, limit: float = LIMIT) -> Verdict:
    """Examine a backend in processes of their own, up to the first fault.

    Args:
        backend: the module of the backend, or MODULE:NAME.
        device: the device to run on.
        plan: MODULE:NAME of the groups of cases.
        limit: seconds without progress after which a process hangs.
    """
    begin = time.monotonic()
    ended = _ended(_Task(backend, device, plan, limit), lambda: None)
    faults = (fault for faults in ended for fault in faults)
    found = next(faults, Verdict(passed=True))
    ended.close()  # ends the processes that still run
    return replace(found, seconds=round(time.monotonic() - begin, 1))


def examine_all(
    backend: str,
    device: torch.device,
    plan: str,
    *,
    limit: float = LIMIT,
    begun: Callable[[], None] = lambda: None,
) -> list[Verdict]:
    """Examine a backend in processes of their own, and go on after a fault.

    Args:
        backend: as for :func:`examine`; so are the next three.
        device: see there.
        plan: see there.
        limit: see there.
        begun: is called whenever a case has begun.

    Returns:
        A verdict for each case that has failed.
    """
    task = _Task(backend, device, plan, limit, go_on=True)
    return [fault for faults in _ended(task, begun) for fault in faults]


@dataclass(frozen=True)
class _Task:
    """What the processes do; see :func:`examine`."""

    backend: str
    device: torch.device
    plan: str
    limit: float
    go_on: bool = False

    def start(self, group: int) -> _Process:
        order = {
            **{"backend": self.backend, "device": str(self.device), "plan": self.plan},
            **{"group": group, "most": _MOST, "all": self.go_on},
        }
        return _start("child", **order)


def _ended(task: _Task, begun: Callable[[], None]) -> Generator[list[Verdict], None, None]:
    """Run all groups of a task; the faults of each process when it has ended."""
    if not _has_python():
        yield [_cannot(_NO_PYTHON)]
        return
    waiting = list(range(len(find(task.plan))))
    at_once = _at_once(task, len(waiting))
    running: list[_Process] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(task.start(waiting.pop(0)))
            for process in list(running):
                faults = process.look(task, begun)
                if faults is not None:
                    running.remove(process)
                    process.end()
                    yield faults
            time.sleep(_POLL)
    except OSError as error:
        yield [_cannot(f"no process could be started: {error}")]
    finally:
        for process in running:
            process.end()


def tiny_kernel_fails(device: torch.device, *, limit: float = LIMIT) -> str | None:
    """Say why a kernel of three lines does not run on a device; None if it does."""
    if not _has_python():
        return _NO_PYTHON
    try:
        process = _start("tiny", device=str(device))
    except OSError as error:
        return f"no process could be started: {error}"
    try:
        process.started.wait(timeout=limit)
        answers = [line for line in process.told() if "wrong" in line]
        if not answers:
            return process.last_words() or f"it ended with code {process.started.returncode}"
        wrong = answers[0]["wrong"]
        return None if wrong is None else str(wrong)
    except subprocess.TimeoutExpired:
        return f"no result after {limit:.0f} seconds"
    finally:
        process.end()


_PYTHONS = ("python", "pypy", "graalpy")
_NO_PYTHON = "this program has no Python of its own that could make the check"


def _has_python() -> bool:
    if not sys.executable or getattr(sys, "frozen", False):
        return False
    # In a program that embeds Python it may be the program itself, which would start once more.
    return os.path.basename(sys.executable).lower().startswith(_PYTHONS)  # noqa: PTH119


def _cannot(reason: str) -> Verdict:
    return Verdict(passed=False, error=reason, kept=False)


def _at_once(task: _Task, groups: int) -> int:
    """How many processes run at a time: not more than there are processors and room for."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    most = _MANY_PROCESSES if task.go_on else _FEW_PROCESSES
    room = groups
    if task.device.type == "cuda":
        room = torch.cuda.mem_get_info(task.device)[0] // _MEMORY_OF_EACH
    return max(1, min(groups, most, cores, room))


def _start(module: str, **order: object) -> _Process:
    """Start a module of this folder and tell it what to do."""
    output, errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
    # -I: nothing is imported from the current folder.
    command = [sys.executable, "-I", "-c", _START.format(module=module)]
    try:
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            # Ctrl-C is for this process, which may finish its work first.
            start_new_session=True,
        )
    except OSError:
        output.close()
        errors.close()
        raise
    with contextlib.suppress(OSError):  # it has ended already, and its errors say why
        assert started.stdin is not None
        # Python leaves out what is no string, too.
        paths = [path or os.curdir for path in [*sys.path, str(_ROOT)] if isinstance(path, str)]
        started.stdin.write(f"{json.dumps(paths)}\n{json.dumps(order)}\n".encode())
        started.stdin.close()
    return _Process(started, output, errors)
