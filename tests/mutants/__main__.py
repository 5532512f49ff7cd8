"""Plant faults and count those that the tests notice."""

from __future__ import annotations

import argparse
import hashlib
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.mutants.areas import AREAS
from tests.mutants.cases import CaseFinder, within
from tests.mutants.covered import CoverageMap, refreshed
from tests.mutants.mutant import Mutant
from tests.mutants.report import Result, Results, known_equivalents, report
from tests.mutants.sampling import Pool, sources
from tests.mutants.trial import Outcome, Runner, Trial
from tests.mutants.workspace import ROOT, changed_files

logger = logging.getLogger("mutants")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("--area", default="", help=f"names with commas between [all]: {[*AREAS]}")
    parser.add_argument("--count", type=int, default=60, help="mutants to try [60]")
    parser.add_argument("--seed", type=int, default=0, help="another sample [0]")
    parser.add_argument("--base", default="", help="only files that differ from this commit")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time [1]")
    parser.add_argument("--limit", type=float, default=120, help="seconds of tests a mutant [120]")
    parser.add_argument("--store", type=Path, default=ROOT / ".mutants", help="map and results")
    parser.add_argument("--list", action="store_true", help="show the mutants, try nothing")
    parser.add_argument("--fresh", action="store_true", help="measure all tests' lines again")
    return parser


def main(words: list[str] | None = None) -> int:
    """Try a sample of mutants; exit code 1 if one survives that is not known as equivalent."""
    options = _parser().parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends its processes and copies
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    pool = Pool(ROOT, changed_files(ROOT, options.base) if options.base else None)
    asked = set(options.area.split(",")) - {""}
    if asked - AREAS.keys():
        logger.error("no such area: %s", ", ".join(sorted(asked - AREAS.keys())))
        return 2
    if asked:
        pool.lines = {area: lines for area, lines in pool.lines.items() if area in asked}
    mutants = pool.chosen(options.count, options.seed)
    if options.list or not mutants:
        for mutant in mutants:
            difference = mutant.difference(pool.contents[mutant.path])
            logger.info("%s:%d %s\n    %s", mutant.path, mutant.line, mutant.operator, difference)
        logger.info("%d mutants", len(mutants))
        return 0
    kept = options.store / "map.json.gz"
    if options.fresh:
        kept.unlink(missing_ok=True)
    known = refreshed(kept, list(sources(ROOT)))
    results = Results(options.store / "results.jsonl")
    with Runner(options.jobs) as runner:
        try_all(mutants, pool, known, results, runner, options.limit)
    found = [results.found[mutant.key] for mutant in mutants]
    equivalents = known_equivalents()
    logger.info("\n%s", report(found, equivalents))
    survived = [item for item in found if item.verdict == "survived"]
    return int(any(item.entry not in equivalents for item in survived))


def try_all(
    mutants: list[Mutant],
    pool: Pool,
    known: CoverageMap,
    results: Results,
    runner: Runner,
    limit: float,
) -> None:
    """Try the mutants whose result is not known, and add their results.

    A test that fails without any fault, by chance or because of its neighbours, has noticed
    nothing: the tests that noticed are run once more on the unchanged code.
    """
    tests = hashlib.sha1(repr(sorted(known.tests.items())).encode()).hexdigest()[:12]
    finder = CaseFinder(known, pool.contents)
    unreliable: set[str] = set()
    left_out: dict[str, int] = {}
    unseen: set[str] = set()

    def trials(wanted: list[Mutant]) -> Iterator[tuple[Mutant, Trial]]:
        for mutant in wanted:
            cases = finder.cases(mutant)
            if not cases:
                unseen.add(mutant.key)
                cases = finder.near(mutant)
            cases = [case for case in cases if case not in unreliable]
            some = within(cases, known, limit)
            left_out[mutant.key] = len(cases) - len(some)
            if results.holds(mutant.key, tests, left_out[mutant.key]) and not unreliable:
                continue
            expected = sum(known.cases[case].seconds for case in some)
            content = mutant.applied(pool.contents[mutant.path])
            yield mutant, Trial(mutant.path, content, some, 60 + 5 * expected)

    def keep(mutant: Mutant, outcome: Outcome) -> None:
        difference = mutant.difference(pool.contents[mutant.path])
        by = outcome.by
        if not by and mutant.key in unseen:
            by = f"no test is known to run it, and {outcome.ran} near it do not notice"
        result = Result(
            key=mutant.key,
            area=pool.areas[mutant.path],
            path=mutant.path,
            line=mutant.line,
            operator=mutant.operator,
            difference=difference,
            verdict=outcome.verdict,
            by=by,
            seconds=round(outcome.seconds, 1),
            ran=outcome.ran,
            left_out=left_out[mutant.key],
            tests=tests,
        )
        results.add(result)
        logger.info(
            "%-9s%6.1f s  %s:%d  %s\n%18s%s",
            *(outcome.verdict, outcome.seconds, mutant.path, mutant.line, mutant.operator),
            *("", difference[:160]),
        )

    wanted = mutants
    while wanted:
        fresh: list[Mutant] = []
        for mutant, outcome in runner.outcomes(trials(wanted)):
            keep(mutant, outcome)
            fresh.append(mutant)
        blamed = {results.found[mutant.key].by for mutant in fresh} & known.cases.keys()
        failing = runner.failing(sorted(blamed)) if blamed else set()
        unreliable |= failing
        if failing:
            logger.warning("without any fault fail: %s", ", ".join(sorted(failing)))
        wanted = [mutant for mutant in fresh if results.found[mutant.key].by in failing]


if __name__ == "__main__":
    sys.exit(main())
