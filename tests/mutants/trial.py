"""Trying mutants: one process each, forked from this one, which has imported what takes long."""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.workspace import ROOT, Workspace, heed_interrupts

logger = logging.getLogger("mutants")

SLOW_IMPORTS = (
    *("torch", "torch.utils.data", "torch.onnx", "numpy", "cv2", "einops", "yaml", "safetensors"),
    *("onnx", "onnxruntime", "onnxscript", "hypothesis", "skimage.metrics", "sklearn", "tqdm"),
    *("_hypothesis_pytestplugin", "hypothesis.strategies", "pytest_benchmark.plugin"),
)
"""Imported before forking; nothing of the repository is, since that is what differs."""

_MEMORY = 10 * 2**30
"""Bytes that the tests of one mutant may hold: some faults allocate without end."""


@dataclass
class Outcome:
    """What the tests said of a mutant.

    Attributes:
        verdict: "noticed" or "survived".
        by: the test that noticed it, or how else it was noticed.
        seconds: that took.
        ran: number of tests that were to run.
    """

    verdict: str
    by: str
    seconds: float
    ran: int


@dataclass(frozen=True)
class Trial:
    """A changed file and the tests to run, in this sequence, within so many seconds."""

    path: str
    content: bytes
    cases: Sequence[str]
    seconds: float


class _Chosen:
    """A pytest plugin: just these tests, in this sequence; the first failure is written down."""

    def __init__(self, cases: Sequence[str], told: Path, every: bool) -> None:
        self.rank = {case: index for index, case in enumerate(cases)}
        self.told, self.every = told, every

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items[:] = sorted(
            (item for item in items if item.nodeid in self.rank),
            key=lambda item: self.rank[item.nodeid],
        )

    def pytest_runtest_logreport(self, report):
        if report.failed:
            with self.told.open("a") as file:
                file.write(json.dumps(report.nodeid) + "\n")

    def pytest_collectreport(self, report):
        if report.failed:
            with self.told.open("a") as file:
                file.write(json.dumps(f"import of {report.nodeid}") + "\n")


def run_cases(work: Workspace, cases: Sequence[str], *, every: bool = False) -> int:
    """In a fresh process: run tests of the copy, up to the first failure; never returns."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    heed_interrupts()
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    work.scratch.mkdir(exist_ok=True)
    with (work.scratch / "output.txt").open("w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    os.chdir(work.copy)
    os.environ.update(work.environment())
    tests = str(Path(__file__).parents[1])
    sys.path[:] = [str(work.copy), *(path for path in sys.path if path not in ("", tests))]
    told = work.scratch / "failed.jsonl"
    files = list(dict.fromkeys(case.split("::")[0] for case in cases))
    words = ["-q", "-p", "no:cacheprovider", f"--rootdir={work.copy}", "--tb=short"]
    words += [f"--basetemp={work.scratch / 'tmp'}", "-c", str(work.copy / "pyproject.toml")]
    if not every:
        words.append("-x")
    code = 3
    try:
        code = int(pytest.main([*words, *files], plugins=[_Chosen(cases, told, every)]))
    finally:
        sys.stdout.flush()
        os._exit(code)


@dataclass
class _Running:
    key: Any
    trial: Trial
    pid: int
    started: float
    undo: ExitStack = field(default_factory=ExitStack)


class Runner:
    """Tries mutants in copies of the repository, some at a time.

    Args:
        jobs: how many at a time.
        root: the repository.
        imports: modules to import before any is tried.
    """

    def __init__(self, jobs: int, root: Path = ROOT, imports: Sequence[str] = SLOW_IMPORTS) -> None:
        self._imports = imports
        self._running: dict[Workspace, _Running] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="mutants-")
        self.idle = [Workspace(Path(self._folder.name) / str(job), root) for job in range(jobs)]

    def __enter__(self) -> Runner:
        for name in self._imports:
            try:
                importlib.import_module(name)
            except ImportError:
                logger.debug("%s is not installed", name)
        return self

    def __exit__(self, *_: object) -> None:
        for found in self._running.values():
            _end_group(found.pid)
            os.waitpid(found.pid, 0)
            found.undo.close()
        self._folder.cleanup()

    def outcomes(self, trials: Iterable[tuple[Any, Trial]]) -> Iterator[tuple[Any, Outcome]]:
        """Each trial's key and outcome, as they end."""
        waiting, running = iter(trials), self._running
        exhausted = False
        while running or not exhausted:
            while self.idle and not exhausted:
                entry = next(waiting, None)
                if entry is None:
                    exhausted = True
                elif entry[1].cases:
                    work = self.idle.pop()
                    running[work] = self._start(work, *entry)
                else:
                    yield entry[0], Outcome("survived", "no test runs it", 0.0, 0)
            for work, found in list(running.items()):
                outcome = self._ended(work, found)
                if outcome is not None:
                    del running[work]
                    self.idle.append(work)
                    yield found.key, outcome
            time.sleep(0.02)

    def failing(self, cases: Sequence[str]) -> set[str]:
        """The tests of these that fail without any fault."""
        work = self.idle[0]
        pid = _forked(lambda: run_cases(work, cases, every=True))
        os.waitpid(pid, 0)
        return set(_failed(work))

    def _start(self, work: Workspace, key: Any, trial: Trial) -> _Running:
        undo = ExitStack()
        undo.enter_context(work.replaced(trial.path, trial.content))
        pid = _forked(lambda: run_cases(work, trial.cases))
        return _Running(key, trial, pid, time.monotonic(), undo)

    def _ended(self, work: Workspace, running: _Running) -> Outcome | None:
        seconds = time.monotonic() - running.started
        pid, status = os.waitpid(running.pid, os.WNOHANG)
        late = pid == 0 and seconds > running.trial.seconds
        if pid == 0 and not late:
            return None
        _end_group(running.pid)  # commands that the tests started as well
        if late:
            os.waitpid(running.pid, 0)
        running.undo.close()
        failed = _failed(work)
        ran = len(running.trial.cases)
        if late:
            return Outcome("noticed", "takes too long", seconds, ran)
        if os.WIFSIGNALED(status):
            return Outcome("noticed", f"signal {os.WTERMSIG(status)}", seconds, ran)
        code = os.waitstatus_to_exitcode(status)
        if code == pytest.ExitCode.NO_TESTS_COLLECTED:
            raise RuntimeError(f"no test of {running.trial.cases[:3]} was found; measure again")
        if code == 0:
            return Outcome("survived", "", seconds, ran)
        return Outcome("noticed", failed[0] if failed else f"exit {code}", seconds, ran)


def _forked(work: Callable[[], int]) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(3)
    return pid


def _end_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _failed(work: Workspace) -> list[str]:
    told = work.scratch / "failed.jsonl"
    if not told.exists():
        return []
    names = [json.loads(line) for line in told.read_text().splitlines()]
    told.unlink()
    return names
