"""Plain data (numbers, text, lists, mappings) from YAML, JSON or Python, within fixed limits.

Anyone may have written a recipe or the metadata of a weights file. Reading it takes less than a
second and little memory, whatever it holds, and its values are of plain types only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import yaml

from zoo.errors import RecipeError, shown

LONGEST_TEXT = 100_000
"""Characters of a text that is read; the longest published recipe has 2,000."""

MOST_VALUES = 5_000
"""Numbers, texts, lists and mappings in one text. What an alias names counts each time."""

DEEPEST = 32
"""Levels of lists and mappings inside each other."""

LARGEST = 2**64 - 1
"""Largest integer: the largest seed."""

_TOO_MANY = f"it has more than {MOST_VALUES:,} values"
_TOO_DEEP = f"its lists and mappings are nested more than {DEEPEST} levels deep"

_TOO_LARGE = "an integer has more than 64 bits, which is too large"

_PREFIX = "tag:yaml.org,2002:"


def read_yaml(text: str) -> Any:
    """Read a YAML text.

    Differences from YAML 1.1: 1e-4 is a number, dates are text, keys must be text and differ, and
    tags such as ``!!float`` are errors.

    Raises:
        RecipeError: if the text is not valid YAML or exceeds a limit; the message is the second
            half of a sentence and gives the line.
    """
    _check_length(text)
    try:
        return plain_copy(_loaded(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(f"not valid YAML: {error.problem}{where}") from error
    except RecipeError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: "\\U00110000"
        raise RecipeError(f"not valid YAML: {str(error)[:200]}") from error


@lru_cache(maxsize=256)
def _loaded(text: str) -> Any:
    """Parse YAML; a recipe that many others extend is parsed once. Callers must copy the result."""
    return yaml.load(text, _Loader)


def read_json(text: str) -> Any:
    """Read a JSON text.

    Raises:
        RecipeError: if the text is not valid JSON or exceeds a limit.
    """
    _check_length(text)
    try:
        return plain_copy(json.loads(text))
    except RecursionError as error:
        raise RecipeError(_TOO_DEEP) from error
    except json.JSONDecodeError as error:
        raise RecipeError(f"not valid JSON: {error}") from error
    except RecipeError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise RecipeError(_TOO_LARGE) from error


def plain_copy(data: Any) -> Any:
    """Return a deep copy of plain data.

    Raises:
        RecipeError: if a value is not plain data or a number is out of range, with its place; or
            if a limit is exceeded.
    """
    return _Copy().of(data, "", 0)


def _check_length(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise RecipeError(f"it has more than {LONGEST_TEXT:,} characters")


class _Copy:
    """Copies values and counts them."""

    def __init__(self) -> None:
        self.values = 0

    def of(self, value: Any, path: str, depth: int) -> Any:
        self.values += 1
        if self.values > MOST_VALUES:
            raise RecipeError(_TOO_MANY)
        if isinstance(value, (Mapping, list, tuple)) and depth >= DEEPEST:
            raise RecipeError(_TOO_DEEP)
        if isinstance(value, Mapping):
            prefix = f"{path}." if path else ""
            return {
                _text(key, path): self.of(item, f"{prefix}{key}", depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            items = [self.of(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
            return tuple(items) if isinstance(value, tuple) else items
        _check_scalar(value, f"{path}: " if path else "")
        return value


def _text(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise RecipeError(f"{path + ': ' if path else ''}the key {shown(key)} is not text")
    _check_scalar(key, f"{path}: " if path else "")
    return key


def _check_scalar(value: object, where: str) -> None:
    if isinstance(value, int) and abs(value) > LARGEST:
        raise RecipeError(f"{where}{_TOO_LARGE}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where}expected a finite number, got {value}")
    if isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
        raise RecipeError(f"{where}the text {shown(value)} has characters that do not exist")
    if not (value is None or isinstance(value, (int, float, str))):
        raise RecipeError(
            f"{where}expected a number, text, a list or a mapping, got {type(value).__name__}"
        )


class _Extent(NamedTuple):
    """Number of values in a node of YAML, and the levels of lists and mappings in it."""

    values: int
    levels: int


class _Loader(yaml.SafeLoader):
    """YAML loader that checks each node as soon as it is complete.

    A text of a few lines can describe a structure of any size, because an alias repeats all that
    its anchor holds. So the repeated values are counted before any of them is built.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0
        self._extents: dict[yaml.Node, _Extent] = {}

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        # The scanner reads up to a thousand brackets ahead, in quadratic time.
        if self.flow_level == DEEPEST:
            raise RecipeError(f"line {self.line + 1}: {_TOO_DEEP}")
        super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if node not in self._extents:
                raise RecipeError(
                    f"line {line}: the alias *{event.anchor} is part of what it names"
                )
            self._count(self._extents[node], line)
            return node
        if event.tag is not None:
            raise RecipeError(f"line {line}: the tag {event.tag!r} is not supported; leave it out")
        self._count(_Extent(1, 0 if isinstance(event, yaml.ScalarEvent) else 1), line)
        self._depth += 1
        node = super().compose_node(parent, index)
        assert node is not None  # an event of a node is next
        self._depth -= 1
        self._extents[node] = self._extent_of(node)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == f"{_PREFIX}merge":
                continue
            if key.tag != f"{_PREFIX}str":
                what = shown(key.value) if isinstance(key, yaml.ScalarNode) else key.id
                raise RecipeError(f"line {line}: the key {what} is not text; put it in quotes")
            if key.value in seen:
                start = node.start_mark.line + 1
                raise RecipeError(
                    f"key {shown(key.value)} is given twice in the mapping at line {start}"
                )
            seen.add(key.value)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        try:
            return int(super().construct_yaml_int(node))
        except ValueError as error:
            line = node.start_mark.line + 1
            raise RecipeError(
                f"line {line}: {shown(node.value)} is not an integer of 64 bits; put text in quotes"
            ) from error

    def _count(self, extent: _Extent, line: int) -> None:
        self._values += extent.values
        if self._values > MOST_VALUES:
            raise RecipeError(f"line {line}: {_TOO_MANY}")
        if self._depth + extent.levels > DEEPEST:
            raise RecipeError(f"line {line}: {_TOO_DEEP}")

    def _extent_of(self, node: yaml.Node) -> _Extent:
        if isinstance(node, yaml.ScalarNode):
            return _Extent(1, 0)
        pairs = isinstance(node, yaml.MappingNode)
        inner = [child for pair in node.value for child in pair] if pairs else node.value
        extents = [self._extents[child] for child in inner]
        levels = max((extent.levels for extent in extents), default=0)
        return _Extent(1 + sum(extent.values for extent in extents), 1 + levels)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_PREFIX}timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    f"{_PREFIX}float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
_Loader.add_constructor(f"{_PREFIX}int", _Loader.construct_yaml_int)
