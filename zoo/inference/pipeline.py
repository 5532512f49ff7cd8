"""Several jobs in three stages: while one is restored, the next are read and the last are written.

A thread reads and another one writes. What each job logs appears as if the jobs ran one after
another, and a failure belongs to its job, whichever thread met it.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from zoo.errors import is_out_of_memory
from zoo.inference.ordered_log import OrderedLog
from zoo.inference.tiling import Progress

ReadT = TypeVar("ReadT")
RestoredT = TypeVar("RestoredT")

AHEAD, WAITING = 2, 2
"""Most inputs that are read ahead, and most outputs that are not yet written."""

AHEAD_BYTES, WAITING_BYTES = 2**26, 2**28
"""Largest input that is read ahead, and how much all outputs that are not yet written may take. A
larger input is read when it is its turn; after a larger output, the work goes on once it is
written."""


PATIENCE = 2.0
"""Seconds that the end of the work waits for an input that is being read: that of a network's disk
may never come."""


@dataclass(frozen=True, kw_only=True)
class Stages(Generic[ReadT, RestoredT]):
    """The stages of a job.

    Attributes:
        read: reads the input; takes its path and that of the output.
        restore: restores what was read; told how it tells its progress. It runs in the thread that
            the caller is in.
        write: writes what was restored; takes the path of the output.
        read_bytes: how much memory an input will take, before it is read; None if that is unknown.
        restored_bytes: how much memory what was restored takes.
    """

    read: Callable[[Path, Path], ReadT]
    restore: Callable[[ReadT, Progress], RestoredT]
    write: Callable[[Path, RestoredT], None]
    read_bytes: Callable[[Path], int | None] = lambda source: None
    restored_bytes: Callable[[RestoredT], int] = lambda restored: 0


class Pipeline(Generic[ReadT, RestoredT]):
    """Runs jobs (input, output) in stages, which overlap.

    Args:
        jobs: all jobs, by their numbers.
        stages: the stages of each.
        progress: how a job tells its progress, by its number.
        ends: whether an error of ``restore`` ends the work, as that of a progress function does.
    """

    def __init__(
        self,
        jobs: Sequence[tuple[Path, Path]],
        stages: Stages[ReadT, RestoredT],
        progress: Callable[[int], Progress],
        ends: Callable[[Exception], bool],
    ) -> None:
        self.jobs, self.stages, self.progress, self.ends = jobs, stages, progress, ends
        self.failures: dict[int, Exception | None] = {}
        self.log = OrderedLog()
        self._places: dict[int, int] = {}
        self._reader, self._writer = _Worker("reader"), _Worker("writer")
        self._writing: deque[tuple[int, int, Future[None]]] = deque()

    def run(
        self, numbers: Iterator[int], begin: Callable[[int], object], ahead: Callable[[int], int]
    ) -> dict[int, Exception | None]:
        """Run jobs, and return the error of each by its number, or None where there is none.

        On Ctrl-C, the output that is being written is finished, and the others are not begun. On
        any other error that ends the work, what was restored before is written.

        Args:
            numbers: numbers of the jobs, each asked for when it may be read.
            begin: called with a job's number before it is restored.
            ahead: how many jobs may be read ahead of the one with this number.
        """
        finish = False
        try:
            with self.log:
                self._run(numbers, begin, ahead)
                finish = True
        except Exception:
            finish = True
            raise
        finally:
            self._reader.stop(finish=False, most=PATIENCE)
            self._writer.stop(finish=finish)
        return self.failures

    def _run(
        self, numbers: Iterator[int], begin: Callable[[int], object], ahead: Callable[[int], int]
    ) -> None:
        coming: deque[tuple[int, Future[ReadT | _Later]]] = deque()
        while True:
            self._take(numbers, coming, 1)
            if not coming:
                break
            number, future = coming.popleft()
            begin(number)
            self._take(numbers, coming, ahead(number))
            self._one(number, future)
            del future  # with what was read
            self._collect(most=WAITING)
        self._collect(most=0)

    def _take(
        self,
        numbers: Iterator[int],
        coming: deque[tuple[int, Future[ReadT | _Later]]],
        count: int,
    ) -> None:
        """Ask for jobs until so many are coming, and have them read."""
        while len(coming) < count and (number := next(numbers, None)) is not None:
            self._places[number] = len(self._places)
            coming.append((number, self._reader.submit(partial(self._read_ahead, number))))

    def _one(self, number: int, future: Future[ReadT | _Later]) -> None:
        """Restore a job, and have its output written."""
        try:
            value = future.result()
            if isinstance(value, _Later):
                value = self._reader.submit(partial(self._read, number)).result()
            with self.log.of(self._places[number]):
                restored = self.stages.restore(value, self.progress(number))
        except Exception as error:
            if self.ends(error):
                raise
            self._done(number, error)
            told = self.progress(number)
            if callable(told):
                told(1.0)
            return
        size = self.stages.restored_bytes(restored)
        while self._writing and size + sum(each[1] for each in self._writing) > WAITING_BYTES:
            self._collect(most=len(self._writing) - 1)
        output = self.jobs[number][1]
        written = self._writer.submit(partial(self._write, number, output, restored))
        self._writing.append((number, size, written))
        if size > WAITING_BYTES:
            self._collect(most=0)

    def _read_ahead(self, number: int) -> ReadT | _Later:
        """Read an input before its turn, if it is small and there is memory."""
        size = self.stages.read_bytes(self.jobs[number][0])
        if size is None or size > AHEAD_BYTES:
            return _Later()
        try:
            return self._read(number)
        except Exception as error:
            if is_out_of_memory(error):
                return _Later()
            raise

    def _read(self, number: int) -> ReadT:
        with self.log.of(self._places[number]):
            return self.stages.read(*self.jobs[number])

    def _write(self, number: int, output: Path, restored: RestoredT) -> None:
        with self.log.of(self._places[number]):
            self.stages.write(output, restored)

    def _collect(self, *, most: int) -> None:
        """Note what was written, until at most so many outputs wait."""
        while self._writing and (len(self._writing) > most or self._writing[0][2].done()):
            number, _, written = self._writing[0]
            error = written.exception()
            self._writing.popleft()
            if error is not None and not isinstance(error, Exception):
                raise error
            self._done(number, error)

    def _done(self, number: int, error: Exception | None) -> None:
        self.failures[number] = error
        self.log.done(self._places[number])


class _Later:
    """In place of an input that is read when it is its turn."""


class _Worker:
    """A thread that runs functions one after another, in a copy of the context of its start."""

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        run = contextvars.copy_context().run
        # A daemon, so that a second Ctrl-C ends the process without waiting for it.
        self._thread = threading.Thread(target=run, args=(self._run,), name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((future, function))
        return future

    def stop(self, *, finish: bool, most: float | None = None) -> None:
        """End the thread after its current function, or after all functions.

        Args:
            finish: whether all functions are run.
            most: seconds to wait for the end; None for as long as it takes.
        """
        with suppress(Empty):
            while not finish:
                self._tasks.get_nowait()
        self._tasks.put(None)
        self._thread.join(most)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, function = task
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            del task, future, function  # what they hold is large


__all__ = ["AHEAD", "Pipeline", "ReadT", "RestoredT", "Stages"]
