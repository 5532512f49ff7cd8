"""Reads the table of facts; ``README.md`` beside it says how it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

DEFAULTS = Path(__file__).parent / "defaults.yaml"
"""The table of parts, which is no family of recipes: tests/test_part_defaults.py reads it."""

FAMILIES = sorted({*DEFAULTS.parent.glob("*.yaml")} - {DEFAULTS})

Facts = dict[str, Any]
"""Values by dotted path, such as ``train.optimizer.lr``."""


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            assert keys.count(key) == 1, f"{key} is given twice{node.start_mark}"
        return super().construct_mapping(node, deep)


def read_table() -> dict[str, Facts]:
    """Facts of every recipe by name."""
    table: dict[str, Facts] = {}
    for path in FAMILIES:
        rows = read_family(yaml.load(path.read_text(encoding="utf-8"), _Loader))
        _add(table, rows, path.name)
    return table


def read_family(family: Mapping[str, Any]) -> dict[str, Facts]:
    """Rows of one file: each the union of its blocks and its own facts.

    Raises:
        AssertionError: for a fact that is stated twice, and a block or group that is not there or
            that no row needs.
    """
    blocks, groups = family["blocks"], family["groups"]
    used: set[str] = set()
    rows = {}
    for name, row in family["recipes"].items():
        facts: Facts = {"name": name}
        for block in _spread(row["of"], groups, used):
            _add(facts, flatten(blocks[block]), f"{name}, block {block}")
            used.add(block)
        own = {key: value for key, value in row.items() if key != "of"}
        _add(facts, flatten(own), name)
        rows[name] = facts
    idle = (blocks.keys() | groups.keys()) - used
    assert not idle, f"no recipe needs {sorted(idle)}"
    return rows


def flatten(data: Any, path: str = "") -> Facts:
    """Nested facts by dotted path. Lists of plain values stay whole, others are numbered."""
    found: Facts = {}
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            _add(found, flatten(value, f"{path}.{key}" if path else key), path or "a row")
    elif isinstance(data, list) and any(isinstance(item, Mapping) for item in data):
        for index, value in enumerate(data):
            _add(found, flatten(value, f"{path}[{index}]"), path)
    else:
        found[path] = data
    return found


def _spread(names: Iterable[str], groups: Mapping[str, list[str]], used: set[str]) -> list[str]:
    blocks = []
    for name in names:
        used.add(name)
        blocks += _spread(groups[name], groups, used) if name in groups else [name]
    return blocks


def _add(facts: dict[str, Any], more: Mapping[str, Any], place: str) -> None:
    twice = facts.keys() & more.keys()
    assert not twice, f"{place}: {sorted(twice)} stated twice"
    facts |= more
