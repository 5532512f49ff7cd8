"""What tells a recipe from the facts of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differences(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """One line for each field that differs; none if the recipe is as the table says.

    Args:
        recipe: its fields by dotted path, see ``resolved``.
        facts: those of its row.
    """
    lines = []
    for path in sorted(recipe.keys() | facts.keys()):
        if path not in facts:
            lines.append(f"{path}: the table has no such fact; the recipe says {recipe[path]!r}")
        elif path not in recipe:
            lines.append(f"{path}: the recipe has no such field; the table says {facts[path]!r}")
        elif not _same(recipe[path], facts[path]):
            lines.append(f"{path}: the recipe says {recipe[path]!r}, the table {facts[path]!r}")
    return lines


def _same(value: Any, fact: Any) -> bool:
    """Equal, where 1 is 1.0 but neither is true."""
    if isinstance(value, list) and isinstance(fact, list):
        return len(value) == len(fact) and all(map(_same, value, fact))
    return value == fact and isinstance(value, bool) == isinstance(fact, bool)
