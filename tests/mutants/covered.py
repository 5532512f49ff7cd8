"""Which tests run which lines, from runs of the suite under coverage, kept between runs.

A later run measures again only the test files that changed, and those that had run a source file
that changed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.workspace import ROOT, Workspace, heed_interrupts

logger = logging.getLogger("mutants")

SELECTION = "not slow and not gpu and not docs"
"""The default suite, which is what is measured."""

AT_ONCE = 40
"""Test files that one process measures."""

_CONFIGURATION = """[run]
parallel = true
data_file = {data}
context = ${{MUTANTS_CASE-}}
concurrency = thread,multiprocessing
patch = _exit
sigterm = true
include = {include}
"""

_ITSELF = "tests/test_mutants.py"


@dataclass
class Case:
    """A test: its seconds, and the lines of each source file that it runs."""

    seconds: float
    lines: dict[str, set[int]]


@dataclass
class CoverageMap:
    """What a run of the suite has shown.

    Attributes:
        sources: digest of each source file.
        tests: digest of each file under tests.
        cases: the tests that passed.
        imported: the lines that ran when test files were imported, such as registrations.
        failed: test files with a test that failed; the next run measures them again.
    """

    sources: dict[str, str] = field(default_factory=dict)
    tests: dict[str, str] = field(default_factory=dict)
    cases: dict[str, Case] = field(default_factory=dict)
    imported: dict[str, set[int]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def covering(self, path: str, lines: set[int]) -> list[str]:
        """Tests that run any of the lines."""
        return [name for name, case in self.cases.items() if case.lines.get(path, set()) & lines]

    def write(self, path: Path) -> None:
        cases = {
            name: [case.seconds, {key: sorted(lines) for key, lines in case.lines.items()}]
            for name, case in self.cases.items()
        }
        imported = {key: sorted(lines) for key, lines in self.imported.items()}
        found = {"sources": self.sources, "tests": self.tests, "cases": cases, "imported": imported}
        text = json.dumps(found)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), 6))

    @classmethod
    def read(cls, path: Path) -> CoverageMap:
        if not path.exists():
            return cls()
        found = json.loads(gzip.decompress(path.read_bytes()))
        cases = {
            name: Case(seconds, {key: set(values) for key, values in lines.items()})
            for name, (seconds, lines) in found["cases"].items()
        }
        imported = {key: set(values) for key, values in found["imported"].items()}
        return cls(found["sources"], found["tests"], cases, imported)


def refreshed(path: Path, sources: list[str], root: Path = ROOT) -> CoverageMap:
    """The map of the working tree: kept where it still holds, measured otherwise.

    Args:
        path: where the map is kept.
        sources: the files that faults are planted in.
        root: the repository.
    """
    known = CoverageMap.read(path)
    found = {name: digest(root / name) for name in sources}
    tests = {
        str(file.relative_to(root)): digest(file)
        for file in sorted((root / "tests").rglob("*.py"))
        if "mutants" not in file.name and file.parent.name != "mutants"
    }
    stale = stale_tests(known, found, tests, root)
    if not stale:
        return known
    logger.info("measuring which tests run which lines: %d test files", len(stale))
    imported = {name: {*known.imported.get(name, ())} for name in found}
    renewed = {name for name, value in found.items() if known.sources.get(name) != value}
    failed: set[str] = set()
    for part in _parts(sorted(stale)):
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            measured = _measure(Workspace(Path(folder), root), part, sorted(found))
        stale -= {*part}
        current = tests.keys() - stale
        kept = {
            name: case
            for name, case in known.cases.items()
            if name.split("::")[0] in current.difference(part)
        }
        for name, lines in measured.imported.items():
            imported[name] = lines if name in renewed else imported[name] | lines
        renewed -= measured.imported.keys()
        failed |= measured.failed
        known = CoverageMap(
            found,
            {name: tests[name] for name in current - failed},
            {**kept, **measured.cases},
            {name: lines for name, lines in imported.items() if lines},
        )
        known.write(path)
    return known


def _parts(names: list[str]) -> Iterator[list[str]]:
    """Groups of test files; the map is kept after each, so that a run cut off is not lost."""
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]


def stale_tests(
    known: CoverageMap, sources: dict[str, str], tests: dict[str, str], root: Path
) -> set[str]:
    """Test files to measure: new, changed, using a changed helper, or running a changed source."""
    changed = {name for name, value in tests.items() if known.tests.get(name) != value}
    stale = {name for name in changed if Path(name).name.startswith("test_")}
    helpers = changed - stale
    moved = {name for name, value in sources.items() if known.sources.get(name, value) != value}
    for name in tests:
        if not Path(name).name.startswith("test_"):
            continue
        text = (root / name).read_text()
        for helper in helpers:
            below = Path(helper).parent in Path(name).parents
            if (Path(helper).stem == "conftest" and below) or Path(helper).stem in text:
                stale.add(name)
    stale.update(
        name.split("::")[0] for name, case in known.cases.items() if moved & case.lines.keys()
    )
    return stale & tests.keys()


def _measure(work: Workspace, tests: list[str], sources: list[str]) -> CoverageMap:
    work.scratch.mkdir()
    rows, settings = work.scratch / "rows.jsonl", work.scratch / "coveragerc"
    data = work.scratch / "data" / "lines"
    data.parent.mkdir()
    tops = sorted({name.split("/")[0] for name in sources})
    include = ",".join(f"{work.copy}/{top}/*" for top in tops)
    settings.write_text(_CONFIGURATION.format(data=data, include=include))
    environment = {
        **os.environ,
        **work.environment(),
        "PYTHONPATH": str(work.copy),
        "COVERAGE_PROCESS_START": str(settings),
        "MUTANTS_ROWS": str(rows),
    }
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.mutants.recorder",
        "-p",
        "no:cacheprovider",
    ]
    words += ["-m", SELECTION, f"--basetemp={work.scratch / 'tmp'}", f"--ignore={_ITSELF}", *tests]
    done = subprocess.run(
        words,
        cwd=work.copy,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=heed_interrupts,
    )
    logger.info("%s", "\n".join(done.stdout.splitlines()[-3:]))
    whole = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
    if done.returncode not in whole:
        raise RuntimeError(f"pytest did not reach the end:\n{done.stdout}\n{done.stderr}")
    return read_lines(work.copy, data, [json.loads(row) for row in rows.read_text().splitlines()])


def read_lines(copy: Path, data: Path, rows: list[dict[str, Any]]) -> CoverageMap:
    """Lines by test; those of shared fixtures go to every test that uses them."""
    from coverage import Coverage

    measured = Coverage(data_file=str(data))
    measured.combine([str(data.parent)])
    found = measured.get_data()
    by_number: dict[str, dict[str, set[int]]] = {}
    for file in found.measured_files():
        name = str(Path(file).relative_to(copy))
        for line, contexts in found.contexts_by_lineno(file).items():
            for context in contexts:
                by_number.setdefault(context, {}).setdefault(name, set()).add(line)
    cases = {}
    failed: set[str] = set()
    for row in rows:
        if set(row["outcomes"]) - {"passed"}:
            if "failed" in row["outcomes"]:
                logger.warning("%s fails without any fault; it is left out", row["case"])
                failed.add(row["case"].split("::")[0])
            continue
        lines: dict[str, set[int]] = {}
        for number in (row["number"], *row["shared"]):
            for name, values in by_number.get(str(number), {}).items():
                lines.setdefault(name, set()).update(values)
        cases[row["case"]] = Case(row["seconds"], lines)
    return CoverageMap(cases=cases, imported=by_number.get("", {}), failed=failed)


def digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()[:16]
