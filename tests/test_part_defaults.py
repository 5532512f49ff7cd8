"""Defaults of the options of every part, against a table that was written by hand."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest
import yaml

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
        # A scan order; one with other settings than its own defaults would need a row of its own.
        assert value == type(value)(), value
        return type(value).__name__
    return value


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
