"""Defaults of parts and of public functions, against a table that was written by hand."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from zoo.recipe import Paper, Recipe
from zoo.registry import Registry, kinds
from zoo.scans import CrossScale, Raster

TABLE = yaml.safe_load((Path(__file__).parent / "facts" / "defaults.yaml").read_text())

PACKAGES = ("zoo.", "export.", "recipes.")


def plain(value):
    """A default as the table has it."""
    if value is inspect.Parameter.empty:
        return "required"
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if inspect.isclass(value):
        return value.__name__
    if dataclasses.is_dataclass(value):
        # One with other settings than its own defaults would need a row of its own.
        assert value == type(value)(), value
    return type(value).__name__ if type(value).__module__.startswith(PACKAGES) else value


def defaults(part, registry: Registry):
    return {
        name: plain(parameter.default)
        for name, parameter in inspect.signature(part).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in registry.supplied
    }


@pytest.mark.parametrize("kind", kinds())
def test_defaults_of_all_parts_are_those_of_the_table(kind):
    registry = kinds()[kind]
    found = {
        entry.name: defaults(entry.target, registry)
        for entry in registry.entries()
        if entry.target.__module__.startswith(PACKAGES)
    }
    assert found == TABLE[kind]


def test_a_scan_order_with_other_settings_is_told_apart():
    assert plain(Raster()) == "Raster"
    with pytest.raises(AssertionError):
        plain(CrossScale(size=8))


PUBLIC = (
    *("zoo", "zoo.checkpoints", "zoo.data", "zoo.data.burst", "zoo.data.prepare"),
    *("zoo.evaluation", "zoo.inference", "zoo.metrics", "zoo.networks", "zoo.ops", "zoo.recipe"),
    *("zoo.registry", "zoo.training", "zoo.training.burst_task", "zoo.training.photo_task"),
    *("zoo.training.settings", "zoo.evaluation.settings", "recipes.train"),
    *("export.engine", "export.model_repository", "export.onnx", "export.verify"),
)
"""Modules whose names other people import."""


def public():
    """Functions and classes of these modules, without parts, errors and sections of recipes."""
    parts = {entry.target for registry in kinds().values() for entry in registry.entries()}
    for name in PUBLIC:
        module = importlib.import_module(name)
        own = [
            word
            for word, item in vars(module).items()
            if getattr(item, "__module__", "") == name and not word.startswith("_")
        ]
        for word in getattr(module, "__all__", own):
            item = getattr(module, word)
            home = getattr(item, "__module__", "")
            aside = inspect.isclass(item) and issubclass(item, Exception | Recipe | Paper)
            if callable(item) and home.startswith(PACKAGES) and not aside and item not in parts:
                yield f"{home}.{item.__name__}", item


def test_what_parts_can_do_is_what_the_table_says():
    found = {
        f"{kind}.{entry.name}": {
            field.name: plain(getattr(entry.capabilities, field.name))
            for field in dataclasses.fields(entry.capabilities)
            if getattr(entry.capabilities, field.name) != field.default
        }
        for kind, registry in kinds().items()
        for entry in registry.entries()
        if entry.target.__module__.startswith(PACKAGES)
    }
    assert {name: told for name, told in found.items() if told} == TABLE["capabilities"]


def test_defaults_of_public_functions_are_those_of_the_table():
    found = {}
    for name, item in public():
        fields = dataclasses.fields(item) if dataclasses.is_dataclass(item) else ()
        made = {
            field.name: field.default_factory()
            for field in fields
            if field.default_factory is not dataclasses.MISSING and field.init
        }
        parameters = inspect.signature(item).parameters.items()
        given = {name: made.get(name, parameter.default) for name, parameter in parameters}
        values = {k: plain(value) for k, value in given.items() if value is not None}
        values = {k: value for k, value in values.items() if value != "required"}
        if values:
            found[name] = values
    assert found == TABLE["functions"]
