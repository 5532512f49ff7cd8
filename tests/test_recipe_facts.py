"""Every field of every published recipe is as the papers and the authors' settings have it."""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.facts.compare import differences
from tests.facts.faults import faults
from tests.facts.resolved import flat, nested, resolved
from tests.facts.table import read_family, read_table
from zoo.errors import RecipeError
from zoo.recipe import Recipe, load_recipe, parse_value
from zoo.recipe_files import extended
from zoo.shipped import RECIPES

table = functools.cache(read_table)


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_field_of_a_recipe_is_as_the_table_of_facts_says(name):
    assert name in table(), "the table has no row for this recipe; write one in tests/facts"
    found = differences(resolved(load_recipe(name)), table()[name])
    assert not found, "\n".join([f"{name} is not as tests/facts says:", *found])


def test_every_row_of_the_table_of_facts_is_a_published_recipe():
    assert sorted(table()) == zoo.list_models()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"of": ["a"], "x.y": 2}, "stated twice"),
        ({"of": ["a"], "x": {"y": 2}}, "stated twice"),
        ({"of": ["a", "g"]}, "stated twice"),
        ({"of": ["a"]}, "no recipe needs"),
    ],
)
def test_the_table_of_facts_states_everything_once(row, message):
    family = {"blocks": {"a": {"x.y": 1}}, "groups": {"g": ["a"]}, "recipes": {"r": row}}
    with pytest.raises(AssertionError, match=message):
        read_family(family)


def test_a_flag_is_no_number_and_a_missing_field_is_a_difference():
    assert differences({"a": True}, {"a": 1}) and differences({"a": [1]}, {"a": [True]})
    assert differences({"a": None}, {}) and differences({}, {"a": None})
    assert not differences({"a": 1, "b": [2.0]}, {"a": 1.0, "b": [2]})


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list_models())
def test_any_fault_in_a_resolved_recipe_is_a_difference(name):
    """Every leaf of the resolved recipe, defaults included, is compared with the table."""
    for fault in faults(nested(load_recipe(name))):
        assert differences(flat(fault.data), table()[name]), f"unnoticed: {fault.what}"


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list_models())
def test_any_fault_in_the_file_of_a_recipe_is_noticed(name):
    """The file is changed as its author might, then read: an error, or a difference.

    A key that is left out is no fault where the recipe that is extended, or the default, says the
    same; then all fields are as they were.
    """
    path = RECIPES / f"{name}.yaml"
    data = parse_value(path.read_text(encoding="utf-8"))
    before = resolved(load_recipe(name))
    assert resolved(_from_file(path, data)) == before, "then any fault would seem to be noticed"
    for fault in faults(data, values_of_all_recipes()):
        try:
            found = resolved(_from_file(path, fault.data))
        except RecipeError:
            continue
        noticed = differences(found, table()[name])
        assert noticed or (fault.removal and found == before), f"unnoticed: {fault.what}"


def _from_file(path: Path, data: dict[str, Any]) -> Recipe:
    """The recipe that a published file with this data would be: one that inherits its paper."""
    return load_recipe(extended(copy.deepcopy(data), [path]))


@functools.cache
def values_of_all_recipes() -> dict[str, list[Any]]:
    """Values that stand at a dotted path in any recipe, each once."""
    values: dict[str, list[Any]] = defaultdict(list)
    for name in zoo.list_models():
        for path, value in resolved(load_recipe(name)).items():
            if path not in ("name", "summary") and value not in values[path]:
                values[path].append(value)
    return values
