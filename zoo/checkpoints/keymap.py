"""Renaming of state-dict keys between the authors' names and ours, both ways from one table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from zoo.errors import MisfitError

State = dict[str, Tensor]

_FIELD = re.compile(r"\{(\w+)\}")


class Rule(NamedTuple):
    """``theirs`` and ``ours`` name the same tensor; ``{i}`` stands for the same text in both."""

    theirs: str
    ours: str


def _pattern(template: str) -> re.Pattern[str]:
    pieces = _FIELD.split(template)
    text = "".join(
        # A field ending in "rest" takes the remainder of a key, any other one a number.
        (f"(?P<{piece}>.+)" if piece.endswith("rest") else rf"(?P<{piece}>\d+)")
        if index % 2
        else re.escape(piece)
        for index, piece in enumerate(pieces)
    )
    return re.compile(text)


class KeyMap:
    """An ordered table of rules; the first that matches a whole key renames it."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        rules = list(rules)
        self._to_ours = [(_pattern(rule.theirs), rule.ours) for rule in rules]
        self._to_theirs = [(_pattern(rule.ours), rule.theirs) for rule in rules]

    def to_ours(self, key: str) -> str | None:
        """Our name for a key of theirs, or None."""
        return _renamed(key, self._to_ours)

    def to_theirs(self, key: str) -> str | None:
        """Their name for a key of ours, or None."""
        return _renamed(key, self._to_theirs)


def _renamed(key: str, table: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in table:
        match = pattern.fullmatch(key)
        if match:
            return template.format(**match.groupdict())
    return None


def chained(outer: Iterable[tuple[str, str]], inner: Iterable[Rule]) -> list[Rule]:
    """Every inner rule under every outer pair of prefixes."""
    inner = list(inner)
    return [Rule(a + r.theirs, b + r.ours) for a, b in outer for r in inner]


def fit(state: Mapping[str, Tensor], shapes: Mapping[str, Tensor], what: str) -> State:
    """Give each tensor the shape of its namesake in ``shapes``, where the sizes agree.

    Raises:
        MisfitError: listing the keys that are missing, unexpected or of the wrong size.
    """
    missing = [key for key in shapes if key not in state]
    unexpected = [key for key in state if key not in shapes]
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(shapes[key].shape)}"
        for key in shapes
        if key in state and state[key].numel() != shapes[key].numel()
    ]
    faults = [
        f"{label} {len(keys)}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
        for label, keys in (("missing", missing), ("unexpected", unexpected), ("wrong size", wrong))
        if keys
    ]
    if faults:
        raise MisfitError(f"{what} does not fit the network: {'; '.join(faults)}")
    return {key: state[key].reshape(shapes[key].shape) for key in shapes}
