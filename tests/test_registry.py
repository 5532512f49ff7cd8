"""The known kinds and parts do not depend on what was imported before."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from zoo.registry import HOMES, kinds

LISTED = "import zoo; print(*zoo.list_parts({0!r}), sep=chr(10))"


def test_every_kind_of_the_package_names_the_module_that_defines_it():
    ours = {n: r for n, r in kinds().items() if r.contract.__module__.startswith("zoo.")}
    assert ours.keys() == HOMES.keys()
    for name, registry in ours.items():
        home = importlib.import_module(HOMES[name])
        assert any(value is registry for value in vars(home).values()), f"{name}: {HOMES[name]}"
        for part in registry.entries():
            module = part.target.__module__
            inside = module == HOMES[name] or module.startswith(f"{HOMES[name]}.")
            assert inside or not module.startswith("zoo."), f"{name}/{part.name} is in {module}"


def fresh(code):
    """Run Python code in a process that has imported nothing, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["loss", "burst_synthesis"])
def test_a_kind_is_known_before_anything_is_imported(name):
    assert fresh(LISTED.format(name)).split() == kinds()[name].names()


def test_registering_and_describing_work_before_anything_is_imported():
    fresh("import zoo; zoo.register('block', 'x')")
    assert fresh("import zoo; print(zoo.describe('loss/l1'))").startswith("loss/l1: ")


def test_all_parts_are_listed_before_anything_is_imported():
    listed = fresh(LISTED.format(None)).split()
    assert listed == [f"{k}/{name}" for k, r in kinds().items() for name in r.names()]
    assert {name.partition("/")[0] for name in listed} == HOMES.keys()
