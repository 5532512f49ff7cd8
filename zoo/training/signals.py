"""Stopping a training cleanly on SIGINT and SIGTERM."""

from __future__ import annotations

import signal
from types import TracebackType


class StopSignals:
    """Context in which SIGINT and SIGTERM set ``received`` instead of interrupting.

    So a signal never stops a training step in the middle; half an update could not be resumed. A
    second signal interrupts immediately.
    """

    received = 0

    def __enter__(self) -> StopSignals:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
