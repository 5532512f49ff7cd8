"""Results kept between runs, known equivalents, and the table of what was noticed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

EQUIVALENT = Path(__file__).with_name("equivalent.txt")


@dataclass
class Result:
    """What came of a mutant; see :class:`mutants.trial.Outcome`.

    Attributes:
        key: names the mutant.
        area, path, line, operator: where and what it is.
        difference: the changed lines, ``old => new``.
        verdict: "noticed" or "survived".
        by: the test that noticed it.
        seconds: that took.
        ran, left_out: tests that were run, and that would have taken longer than allowed.
        tests: digest of all tests.
    """

    key: str
    area: str
    path: str
    line: int
    operator: str
    difference: str
    verdict: str
    by: str
    seconds: float
    ran: int
    left_out: int
    tests: str

    @property
    def entry(self) -> str:
        """How ``equivalent.txt`` names it, which no edit elsewhere changes."""
        return f"{self.path}: {self.difference}"


class Results:
    """A file of results, one a line; a later line replaces an earlier one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Result] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    result = Result(**json.loads(line))
                except (ValueError, TypeError):
                    continue  # the last line of a run that was killed
                self.found[result.key] = result

    def add(self, result: Result) -> None:
        self.found[result.key] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")

    def holds(self, key: str, tests: str, left_out: int) -> bool:
        """Whether a mutant need not be tried again: one that survived is, by other tests."""
        result = self.found.get(key)
        if result is None or result.verdict == "noticed":
            return result is not None
        return result.tests == tests and result.left_out <= left_out


def known_equivalents(path: Path = EQUIVALENT) -> dict[str, str]:
    """Entries and reasons: ``FILE: old => new  ## reason`` a line."""
    found = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            entry, _, reason = line.partition("  ## ")
            found[entry] = reason
    return found


def report(results: Iterable[Result], equivalents: dict[str, str]) -> str:
    """The share noticed by area, and what survived."""
    results = list(results)
    same = [result for result in results if result.entry in equivalents]
    counted = [result for result in results if result.entry not in equivalents]
    lines = [f"{'area':<14}{'tried':>6}{'noticed':>9}{'share':>8}"]
    areas = sorted({result.area for result in counted})
    for area in [*areas, "all"]:
        here = [result for result in counted if area in (result.area, "all")]
        noticed = sum(result.verdict == "noticed" for result in here)
        share = f"{noticed / len(here):.0%}" if here else "-"
        lines.append(f"{area:<14}{len(here):>6}{noticed:>9}{share:>8}")
    if same:
        lines.append(f"{len(same)} equivalent ones are not counted")
    survivors = [result for result in counted if result.verdict == "survived"]
    if survivors:
        lines += ["", "Survivors:"]
    for result in sorted(survivors, key=lambda item: (item.area, item.path, item.line)):
        note = result.by or f"{result.ran} tests ran it"
        if result.left_out:
            note += f", {result.left_out} more would take longer than LIMIT"
        lines += [
            f"{result.path}:{result.line}  {result.operator}; {note}",
            *(f"    {sign} {text}" for sign, text in _sides(result.difference)),
        ]
    return "\n".join(lines)


def _sides(difference: str) -> list[tuple[str, str]]:
    old, _, new = difference.partition(" => ")
    return [("-", old), ("+", new)]
