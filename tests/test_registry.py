"""The registry of parts: what it takes, and that no import before changes what is known."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import zoo
from zoo.errors import RecipeError
from zoo.networks import SingleImage
from zoo.registry import (
    HOMES,
    Capabilities,
    Registry,
    capabilities_of,
    kind,
    kinds,
    temporary_registrations,
)

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


class Animal:
    """An animal."""


def test_capabilities_are_a_parts_own_or_those_of_the_class_that_it_derives_from():
    class Mine(SingleImage): ...

    registered = Capabilities(size_multiple=8)
    assert capabilities_of(zoo.build("mambair_realdn", dim=32, depths=[1] * 4)) == registered
    network = Mine(dim=32, depths=(1,))
    assert capabilities_of(network) == Capabilities() == capabilities_of(object())
    network.capabilities = Capabilities(size_multiple=3)
    assert capabilities_of(network).size_multiple == 3

    class Turned(type(zoo.build("mambair_realdn", dim=32, depths=[1] * 4))): ...

    assert capabilities_of(Turned(dim=32, depths=[1] * 4)) == registered


def test_temporary_registrations_are_forgotten():
    before = {name: registry.names() for name, registry in kinds().items()}
    with temporary_registrations():
        Registry("test animal", Animal).register("cat")(Animal)
        zoo.register("head", "test_head")(kind("head").get("pixelshuffle").target)
        assert kind("test animal").names() == ["cat"] and "test_head" in kind("head").names()
    assert {name: registry.names() for name, registry in kinds().items()} == before


def test_a_registry_refuses_what_is_no_part_and_stays_as_it_was():
    animals = Registry("test animal", Animal, supplied=("dim",))

    @animals.register("cat", capabilities=Capabilities(size_multiple=4))
    class Cat(Animal):
        """A cat."""

        def __init__(self, dim, *, legs: int = 4): ...

    with pytest.raises(RecipeError, match="already registered"):
        animals.register("cat")(Cat)
    with pytest.raises(RecipeError, match="derived from"):
        animals.register("stone")(int)

    class Loose(Animal):
        def __init__(self, dim, legs: int = 4): ...

    class Untyped(Animal):
        def __init__(self, dim, *, legs=4): ...

    with pytest.raises(RecipeError, match="keyword-only"):
        animals.register("loose")(Loose)
    with pytest.raises(RecipeError, match="type annotation"):
        animals.register("untyped")(Untyped)
    assert animals.names() == ["cat"]
    assert animals.get("cat").summary == "A cat."
