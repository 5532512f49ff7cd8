"""What jobs log that run at the same time, in the sequence of the jobs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

_place: ContextVar[tuple[OrderedLog, int] | None] = ContextVar("ordered_log", default=None)


class OrderedLog(logging.Filter):
    """Within its block, what a job logs is held until all jobs before it are done.

    What is logged outside of jobs, or by the first job that is not done, appears at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._turn = 0
        self._done: set[int] = set()
        self._held: dict[int, list[logging.LogRecord]] = {}
        self._handlers: list[logging.Handler] = []

    def __enter__(self) -> OrderedLog:
        loggers = [logging.root, *logging.root.manager.loggerDict.values()]
        found = {h for each in loggers if isinstance(each, logging.Logger) for h in each.handlers}
        if logging.lastResort is not None:
            found.add(logging.lastResort)
        self._handlers = list(found)
        for handler in self._handlers:
            handler.addFilter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let all that is held appear."""
        for handler in self._handlers:
            handler.removeFilter(self)
        with self._lock:
            for place in sorted(self._held):
                self._tell(place)

    @contextmanager
    def of(self, place: int) -> Iterator[None]:
        """In the block, what this thread logs is of the job at this place, from 0."""
        token = _place.set((self, place))
        try:
            yield
        finally:
            _place.reset(token)

    def done(self, place: int) -> None:
        """Note that a job is done, so that the next may be heard."""
        with self._lock:
            self._done.add(place)
            while self._turn in self._done:
                self._done.remove(self._turn)
                self._turn += 1
                self._tell(self._turn)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a handler may show a record now; called by each handler in turn."""
        log, place = _place.get() or (None, 0)
        if log is not self:
            return True
        with self._lock:
            if place <= self._turn:
                return True
            held = self._held.setdefault(place, [])
            if not any(other is record for other in held[-1:]):  # another handler saw it
                held.append(record)
            return False

    def _tell(self, place: int) -> None:
        for record in self._held.pop(place, ()):
            logging.getLogger(record.name).handle(record)


__all__ = ["OrderedLog"]
