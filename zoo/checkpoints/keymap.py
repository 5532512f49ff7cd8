"""Renaming state-dict keys between the authors' names and ours, both ways with one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from zoo.errors import CheckpointError, MisfitError
from zoo.key_rules import FIELD, Rule

State = dict[str, Tensor]


class SameNameError(CheckpointError):
    """Two tensors would get one name, so one would be lost; the message is half a sentence."""


class MissingKeyError(CheckpointError):
    """A file lacks a key that its format needs; the message is the second half of a sentence."""


def pattern_of(template: str) -> re.Pattern[str]:
    """Return the pattern of the keys that a name with fields stands for."""
    pieces = FIELD.split(template)
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
        buffers: tensors of the authors that follow from their others, by name, each with the
            function that makes it from those. They are dropped on reading.
        unused: names of tensors in the authors' files that their network does not use.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        buffers: Mapping[str, Callable[[State], Tensor]] | None = None,
        unused: Iterable[str] = (),
    ) -> None:
        self.rules, self.buffers, self.unused = list(rules), dict(buffers or {}), list(unused)
        self._unused = [pattern_of(name) for name in self.unused]
        self._to_ours = [(pattern_of(rule.theirs), rule.ours, rule) for rule in self.rules]
        self._to_theirs = [(pattern_of(rule.ours), rule.theirs, rule) for rule in self.rules]

    def to_ours(self, key: str) -> str | None:
        """Return our name for one of their keys, or None if no rule matches."""
        found = _renamed(key, self._to_ours)
        return found and found[0]

    def to_theirs(self, key: str) -> str | None:
        """Return their name for one of our keys, or None if no rule matches."""
        found = _renamed(key, self._to_theirs)
        return found and found[0]

    def knows(self, key: str) -> bool:
        """Return whether one of their keys has a rule or is a buffer."""
        return key in self.buffers or self.to_ours(key) is not None

    def state_to_ours(self, state: Mapping[str, Tensor]) -> State:
        """Rename the authors' tensors; a key without a rule keeps its name, so that it is told."""
        kept = (key for key in state if key not in self.buffers and not self.is_unused(key))
        return {self.to_ours(key) or key: state[key] for key in kept}

    def state_to_theirs(self, state: Mapping[str, Tensor]) -> State | None:
        """Rename and reshape our tensors, and make the buffers; None if a key has no rule.

        Raises:
            SameNameError: if two tensors get one name.
        """
        renamed: State = {}
        owners = dict.fromkeys(self.buffers, "a tensor that follows from others")
        for key, value in state.items():
            found = _renamed(key, self._to_theirs)
            if found is None:
                return None
            name, rule = found
            if name in owners:
                raise SameNameError(
                    f"the key rules give {_brief(key)} the name {_brief(name)}, which "
                    f"{_brief(owners[name])} has already"
                )
            owners[name] = key
            renamed[name] = value if rule.shape is None else rule.shape(value)
        try:
            return renamed | {name: make(renamed) for name, make in self.buffers.items()}
        except KeyError:  # a tensor that every network of the authors has
            return None

    def preceded_by(self, rules: Iterable[Rule]) -> KeyMap:
        """Return a key map that tries these rules first."""
        return KeyMap([*rules, *self.rules], self.buffers, self.unused)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The starts of the names of blocks, as pairs (theirs, ours); ``{j}`` is their number."""
        cut = [
            (theirs[: theirs.find("{j}.") + 4], ours[: ours.find("{j}.") + 4])
            for theirs, ours, _ in self.rules
            if "{j}." in ours
        ]
        return list(dict.fromkeys(cut))

    def is_unused(self, key: str) -> bool:
        """Return whether one of their keys names a tensor that their network does not use."""
        return any(pattern.fullmatch(key) for pattern in self._unused)


def _renamed(key: str, table: list[tuple[re.Pattern[str], str, Rule]]) -> tuple[str, Rule] | None:
    for pattern, template, rule in table:
        match = pattern.fullmatch(key)
        if match:
            return template.format(**match.groupdict()), rule
    return None


def chained(outer: Iterable[tuple[str, str]], inner: Sequence[Rule]) -> list[Rule]:
    """Combine rules with prefixes: each inner rule under each outer pair (theirs, ours)."""
    return [r._replace(theirs=a + r.theirs, ours=b + r.ours) for a, b in outer for r in inner]


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
