"""Renaming state-dict keys between the authors' names and ours, both ways with one table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from zoo.errors import CheckpointError, MisfitError

State = dict[str, Tensor]

_FIELD = re.compile(r"\{(\w+)\}")


class MissingKeyError(CheckpointError):
    """A file lacks a key that its format needs; the message is the second half of a sentence."""


class Rule(NamedTuple):
    """Two names of the same tensor; a field such as ``{i}`` is the same text in both names.

    Attributes:
        theirs: the authors' name.
        ours: our name.
        kernel: whether their tensor is the kernel of a 1x1 convolution where ours is a matrix.
    """

    theirs: str
    ours: str
    kernel: bool = False


def _pattern(template: str) -> re.Pattern[str]:
    pieces = _FIELD.split(template)
    text = "".join(
        # A field whose name ends in "rest" matches any text, any other field a number.
        (f"(?P<{piece}>.+)" if piece.endswith("rest") else rf"(?P<{piece}>\d+)")
        if index % 2
        else re.escape(piece)
        for index, piece in enumerate(pieces)
    )
    return re.compile(text)


class KeyMap:
    """An ordered table of rules; the first rule that matches the whole key renames it.

    Args:
        rules: the rules.
        unused: names of tensors in the authors' files that their network does not use.
    """

    def __init__(self, rules: Iterable[Rule], unused: Iterable[str] = ()) -> None:
        rules = list(rules)
        self._unused = [_pattern(name) for name in unused]
        self._kernels = [_pattern(rule.ours) for rule in rules if rule.kernel]
        self._to_ours = [(_pattern(rule.theirs), rule.ours) for rule in rules]
        self._to_theirs = [(_pattern(rule.ours), rule.theirs) for rule in rules]

    def to_ours(self, key: str) -> str | None:
        """Return our name for one of their keys, or None if no rule matches."""
        return _renamed(key, self._to_ours)

    def to_theirs(self, key: str) -> str | None:
        """Return their name for one of our keys, or None if no rule matches."""
        return _renamed(key, self._to_theirs)

    def is_unused(self, key: str) -> bool:
        """Return whether one of their keys names a tensor that their network does not use."""
        return any(pattern.fullmatch(key) for pattern in self._unused)

    def is_kernel(self, key: str) -> bool:
        """Return whether one of our keys names a matrix that they store as a 1x1 kernel."""
        return any(pattern.fullmatch(key) for pattern in self._kernels)


def _renamed(key: str, table: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in table:
        match = pattern.fullmatch(key)
        if match:
            return template.format(**match.groupdict())
    return None


def chained(outer: Iterable[tuple[str, str]], inner: Iterable[Rule]) -> list[Rule]:
    """Combine rules with prefixes: each inner rule under each outer pair (theirs, ours)."""
    inner = list(inner)
    return [Rule(a + r.theirs, b + r.ours, r.kernel) for a, b in outer for r in inner]


def fit(state: Mapping[str, Tensor], shapes: Mapping[str, Tensor], what: str) -> State:
    """Reshape each tensor to the shape of the tensor with the same key in ``shapes``.

    Args:
        state: tensors by key.
        shapes: tensors with the expected keys and shapes.
        what: name of the state dict, such as its file, for error messages.

    Raises:
        MisfitError: if keys are missing, unexpected, or of the wrong size or dtype; the message
            lists them.
    """
    missing = [key for key in shapes if key not in state]
    unexpected = [key for key in state if key not in shapes]
    both = [(key, state[key], shapes[key]) for key in shapes if key in state]
    wrong = [
        f"{_brief(key)} {tuple(given.shape)} instead of {tuple(own.shape)}"
        for key, given, own in both
        if not _is_same_shape(given, own)
    ]
    types = [
        f"{_brief(key)} {given.dtype} instead of {own.dtype}"
        for key, given, own in both
        if given.is_floating_point() != own.is_floating_point()
    ]
    faults = [
        f"{label} {len(keys)}: {', '.join(map(_brief, keys[:4]))}{', ...' if len(keys) > 4 else ''}"
        for label, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong size", wrong),
            ("wrong dtype", types),
        )
        if keys
    ]
    if faults:
        raise MisfitError(f"{what} does not match the network: {'; '.join(faults)}")
    return {key: state[key].reshape(shapes[key].shape) for key in shapes}


def _is_same_shape(given: Tensor, own: Tensor) -> bool:
    """Return whether a tensor has our shape, or the authors' way of storing it.

    The authors store the directions and channels of a scan in one axis, and a 1x1 convolution may
    be a linear layer. A tensor that only has as many values could be a transposed one.
    """
    if given.numel() != own.numel():
        return False
    if given.dim() == own.dim() - 1 and given.shape[1:] == own.shape[2:]:
        return True
    return [size for size in given.shape if size > 1] == [size for size in own.shape if size > 1]


def _brief(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."
