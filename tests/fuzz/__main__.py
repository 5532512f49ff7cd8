"""``python -m tests.fuzz``: long runs of the areas; exit code 1 if a case found a fault."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from tests.fuzz.areas import AREAS, SLOW, load
from tests.fuzz.frame import Tally
from tests.fuzz.worker import ROOT, Found, run_area

ALL = (*AREAS, *SLOW)

FOLDER = ROOT / ".fuzz"
"""Where cases that found a fault are kept."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"default: {' '.join(ALL)}")
    parser.add_argument("--seed", type=int, help="first seed of the cases; default: random")
    parser.add_argument("--count", type=int, help="number of cases; default: the area's own")
    options = parser.parse_args()
    unknown = sorted(set(options.areas) - set(ALL))
    if unknown:
        parser.error(f"unknown area {unknown[0]!r}; known: {', '.join(ALL)}")
    return options


def main() -> int:
    options = parse()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    # All areas run, also after a finding.
    faults = [fuzz(name, seed, options.count) for name in options.areas or ALL]
    return 1 if any(faults) else 0


def fuzz(name: str, seed: int, count: int | None) -> int:
    """Run one area, print what happened, and return the number of kinds of faults found."""
    total, kinds = Tally(), dict[str, Found]()
    for tally, found in run_area(name, seed, load(name).COUNT if count is None else count):
        total.add(tally)
        if found and found.kind not in kinds:
            kinds[found.kind] = found
            path = keep(name, found)
            print(f"{name}: FOUND, seed {found.seed}, see {path}\n{found.what}", flush=True)
        if sys.stderr.isatty():
            print(f"\r{name}: {total.cases:,} cases", end="", file=sys.stderr)
    print(f"\r{name}: {summary(total)}; kinds of faults: {len(kinds)}", flush=True)
    return len(kinds)


def keep(name: str, found: Found) -> Path:
    """Write a case that found a fault to a file."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}-{found.seed}.txt"
    path.write_text(f"{found.case}\n\n{found.what}\n")
    return path.relative_to(ROOT)


def summary(tally: Tally) -> str:
    """Counts by outcome, the slowest case, and the memory of the process."""
    outcomes = ", ".join(f"{count:,} {what}" for what, count in tally.outcomes.most_common(8))
    return (
        f"{tally.cases:,} cases ({outcomes}); slowest {tally.slowest:.2f} s, "
        f"at most {tally.memory / 2**20:,.0f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
