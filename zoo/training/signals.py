"""Stopping in good order."""

from __future__ import annotations

import signal
from types import TracebackType


class StopSignals:
    """Within, SIGINT and SIGTERM are noted in ``received`` instead of interrupting.

    A training step is never cut in half, because half an update cannot be resumed. A second signal
    interrupts at once.
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
