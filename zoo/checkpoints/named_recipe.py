"""Weights that are loaded into a named recipe, although their file has a recipe of its own.

The named recipe counts, in every command. Two recipes may have the same tensors and still compute
different images, so a log line says where they differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any

from zoo.errors import shown

MOST = 3
"""Number of places that a message lists."""

_ABSENT = object()


def differences(
    named: Mapping[str, Any], held: Mapping[str, Any], overrides: Collection[str]
) -> str | None:
    """Say where two ``network`` sections differ, or return None if they do not.

    Args:
        named: the section that counts.
        held: the section in the file; it is not checked, so any text in it is shortened.
        overrides: dotted paths in the section that the caller has changed; they are not compared.
    """
    own = tuple(f"network.{path}" for path in overrides)
    found = (
        f"{shown(place)} is {_value(ours)}, not {_value(theirs)}"
        for place, ours, theirs in _differing(named, held, "network")
        if not any(place == path or place.startswith(f"{path}.") for path in own)
    )
    places = list(islice(found, MOST))
    rest = " and so on" if next(found, None) else ""
    return "; ".join(places) + rest if places else None


def _differing(named: Any, held: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield each place with both values; a part is its name or a mapping with ``type``."""
    if isinstance(named, str) and isinstance(held, Mapping):
        named = {"type": named}
    elif isinstance(held, str) and isinstance(named, Mapping):
        held = {"type": held}
    if isinstance(named, Mapping) and isinstance(held, Mapping):
        for key in dict.fromkeys([*named, *held]):
            ours, theirs = named.get(key, _ABSENT), held.get(key, _ABSENT)
            yield from _differing(ours, theirs, f"{place}.{key}")
    elif isinstance(named, list) and isinstance(held, list) and len(named) == len(held):
        for index, (ours, theirs) in enumerate(zip(named, held, strict=True)):
            yield from _differing(ours, theirs, f"{place}[{index}]")
    elif named != held:
        yield place, named, held


def _value(value: Any) -> str:
    return "the default" if value is _ABSENT else shown(value)
