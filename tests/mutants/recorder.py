"""A pytest plugin: which lines each test runs, and how long it takes.

Coverage must have been started by the environment (``COVERAGE_PROCESS_START``). Commands that a
test starts measure themselves, under the number of the test that is in ``MUTANTS_CASE``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from coverage import Coverage

CASE, ROWS = "MUTANTS_CASE", "MUTANTS_ROWS"


class Recorder:
    """Numbers tests and shared fixtures; the lines they run carry their numbers.

    A fixture that several tests share is measured apart, since only the first of them runs it.
    """

    def __init__(self, rows: Path) -> None:
        self.rows = rows.open("w")
        self.numbers: dict[str, int] = {}
        self.outcomes: dict[str, list[str]] = {}

    def switch(self, name: str | None) -> None:
        context = "" if name is None else str(self.number(name))
        os.environ[CASE] = context
        found = Coverage.current()
        assert found is not None, "coverage was not started"
        found.switch_context(context)

    def number(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers) + 1)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        forget_caches(item.config.rootpath)
        self.switch(item.nodeid)
        start = time.perf_counter()
        result = yield
        seconds = time.perf_counter() - start
        self.switch(None)
        shared = [
            self.number(_name(found[-1]))
            for found in item._fixtureinfo.name2fixturedefs.values()
            if found[-1].scope != "function"
        ]
        row = {
            "case": item.nodeid,
            "number": self.numbers[item.nodeid],
            "shared": shared,
            "seconds": round(seconds, 3),
            "outcomes": self.outcomes.pop(item.nodeid, []),
        }
        self.rows.write(json.dumps(row) + "\n")
        self.rows.flush()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        if fixturedef.scope == "function":
            return (yield)
        self.switch(_name(fixturedef))
        try:
            return (yield)
        finally:
            self.switch(request.config.stash.get(_CURRENT, None))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        item.config.stash[_CURRENT] = item.nodeid

    def pytest_runtest_logreport(self, report):
        self.outcomes.setdefault(report.nodeid, []).append(report.outcome)


_CURRENT = pytest.StashKey[str]()


def _name(fixture) -> str:
    return f"fixture {fixture.baseid}::{fixture.argname}"


def forget_caches(root: Path) -> None:
    """Empty functools' caches of the repository's modules: each test shows all lines it needs."""
    for module in list(sys.modules.values()):
        if str(getattr(module, "__file__", None) or "").startswith(str(root)):
            for value in list(vars(module).values()):
                if callable(getattr(value, "cache_clear", None)):
                    value.cache_clear()


def pytest_configure(config):
    config.pluginmanager.register(Recorder(Path(os.environ[ROWS])), "recorder of lines")
