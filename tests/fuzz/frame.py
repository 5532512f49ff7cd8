"""What all areas share: the contract of an area, what a refusal must look like, and the loop."""

from __future__ import annotations

import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from zoo.errors import ZooError

LONGEST_MESSAGE = 500
"""Characters of an error message."""

MOST_MEMORY = 2 * 2**30
"""Bytes that a process may hold at any time while it tries cases."""

SECONDS = 5.0
"""Processor time for one case, unless the area has its own ``SECONDS``."""

_PATIENCE = 6
"""A case that waits instead of computing may take so many times its limit: the machine may be
busy with other things."""

ACCEPTED = "accepted"


class Area(Protocol):
    """One kind of input. Each area is a module with these names.

    Attributes:
        COUNT: number of cases of a long run.
        SLICE: number of cases in the default suite.
    """

    COUNT: int
    SLICE: int

    def cases(self) -> SearchStrategy[Any]:
        """Strategy of cases. The ``repr`` of a case must be enough to repeat it."""
        ...

    def attempt(self, case: Any, folder: Path) -> str:
        """Try a case in an empty folder. Return a few words for the count of outcomes.

        Raises:
            Exception: if the case finds a fault.
        """
        ...

    def planted(self) -> AbstractContextManager[object]:
        """While entered, one check is gone from the package, which the cases must notice."""
        ...


class FaultError(AssertionError):
    """A case found a fault in the package."""


def refusal(
    call: Callable[[], object], allowed: tuple[type[Exception], ...] = (ZooError,)
) -> str | None:
    """Call a function with hostile input and check that it refuses the input properly.

    Args:
        call: the call.
        allowed: errors that are a refusal; any other exception is a finding and is passed on.

    Returns:
        The message of the refusal, or None if the input was accepted.

    Raises:
        FaultError: if the message is empty, too long, or has more than one line.
    """
    try:
        call()
    except allowed as error:
        return check_message(str(error))
    return None


def check_message(message: str) -> str:
    """Return the message of a refusal.

    Raises:
        FaultError: if it is empty, too long, or has more than one line.
    """
    if not message.strip():
        raise FaultError("the message is empty")
    if len(message) > LONGEST_MESSAGE:
        raise FaultError(f"the message has {len(message)} characters: {message[:200]} ...")
    if len(message.splitlines()) > 1:
        raise FaultError(f"the message has several lines: {message!r}")
    return message


@dataclass
class Tally:
    """What happened to the cases of a run.

    Attributes:
        outcomes: number of cases by outcome.
        slowest: seconds of processor time of the slowest case.
        memory: largest number of bytes that the process held.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    memory: int = 0

    @property
    def cases(self) -> int:
        return self.outcomes.total()

    def add(self, other: Tally) -> None:
        """Add the cases of another run."""
        self.outcomes.update(other.outcomes)
        self.slowest = max(self.slowest, other.slowest)
        self.memory = max(self.memory, other.memory)


def run(
    area: Area,
    first_seed: int,
    count: int,
    *,
    shrink: bool = True,
    before: Callable[[Any], None] = lambda case: None,
) -> Tally:
    """Try cases in this process until one finds a fault.

    Args:
        area: kind of input.
        first_seed: seed of the cases.
        count: number of cases; fewer if there are no more different ones.
        shrink: whether a case that finds a fault is made as simple as possible.
        before: called with each case before it is tried.

    Raises:
        Exception: what the simplest case raises that finds a fault.
    """
    tally = Tally()
    limit = getattr(area, "SECONDS", SECONDS)
    # Other tests may have run in this process before.
    most_memory = max(MOST_MEMORY, memory() + MOST_MEMORY // 2)

    @seed(first_seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(area.cases())
    def try_case(case: Any) -> None:
        before(case)
        start = time.process_time()
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, time_limit(limit):
            outcome = area.attempt(case, Path(folder))
        tally.slowest = max(tally.slowest, time.process_time() - start)
        tally.outcomes[outcome] += 1
        tally.memory = memory()
        if tally.memory > most_memory:
            raise FaultError(f"the process holds {tally.memory / 2**20:.0f} MiB")

    try_case()
    return tally


def memory() -> int:
    """Largest number of bytes that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise a FaultError in the main thread if the block takes longer.

    Args:
        seconds: processor time, of all threads together. By the clock, it may take some times
            longer.
    """

    def stop(*_: object) -> None:
        raise FaultError(f"the case took longer than {seconds:g} s")

    timers = (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, seconds * _PATIENCE),
    )
    before = {number: signal.signal(number, stop) for _, number, _ in timers}
    try:
        for timer, _, limit in timers:
            signal.setitimer(timer, limit)
        yield
    finally:
        for timer, _, _ in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
