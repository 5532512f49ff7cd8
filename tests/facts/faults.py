"""Small faults planted in a recipe's data, one at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """Data with one fault.

    Attributes:
        what: place and kind, such as "network.dim: 180 is 181".
        data: a changed copy.
        removal: a key is left out, which says nothing new where its value is the one meant anyway.
    """

    what: str
    data: dict[str, Any]
    removal: bool = False


def faults(data: Mapping[str, Any], seen: Mapping[str, list[Any]] | None = None) -> Iterator[Fault]:
    """Every number changed, flag flipped, text altered, null filled; every list without an item or
    in another order; every mapping without a key.

    Args:
        data: nested plain data.
        seen: values by dotted path that stand in its place elsewhere; texts become these too.
    """
    for path in _places(data):
        *parents, last = path
        value = _at(data, path)
        name = _dotted(path)
        for changed in _changed(value, (seen or {}).get(name, [])):
            copied = copy.deepcopy(dict(data))
            _at(copied, parents)[last] = changed
            yield Fault(f"{name}: {value!r} is {changed!r}", copied)
        if isinstance(last, str):
            copied = copy.deepcopy(dict(data))
            del _at(copied, parents)[last]
            yield Fault(f"{name}: left out", copied, removal=True)


def _changed(value: Any, seen: list[Any]) -> list[Any]:
    """Other values for a place."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value * 1.25 + 0.01]
    if isinstance(value, str):
        return [f"{value} x", *(text for text in seen if isinstance(text, str) and text != value)]
    if value is None:
        return ["x", 1]
    if isinstance(value, list):
        shorter = [value[:index] + value[index + 1 :] for index in range(len(value))]
        turned = value[::-1]
        return shorter + ([turned] if turned != value else [])
    return []


def _places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from _places(value, (*path, key))
    if isinstance(data, list):
        for index, value in enumerate(data):
            yield from _places(value, (*path, index))


def _at(data: Any, path: Any) -> Any:
    for key in path:
        data = data[key]
    return data


def _dotted(path: tuple[Any, ...]) -> str:
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return "".join(parts).lstrip(".")
