"""Recipes: a network, its training and its evaluation, as data.

A recipe is a YAML file (or a dict) with the keys of :class:`Recipe`. ``extends`` names another
recipe, and its values are the defaults of this one; :mod:`zoo.recipe_files` says how they are
merged, and what is not inherited. Every published model is a recipe in ``recipes/``, and is built
in the same way as a user's recipe.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from zoo.errors import RecipeError, shown
from zoo.networks import NETWORKS, Network
from zoo.networks.former import check_names_of_one_time, with_current_options
from zoo.networks.guide import check_names
from zoo.networks.size import build_within_limit
from zoo.plain_data import read_yaml
from zoo.recipe_files import check_overrides, extended, override, read_recipe
from zoo.schema import resolve, resolve_part
from zoo.shipped import list_models

T = TypeVar("T")

MOST_EXACT = 2**53
"""Largest number up to which a float holds every whole number."""

LONGEST_NAME = 200
"""Bytes of the name of a model, in UTF-8; most file systems allow 255 for the name of a file."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The publication of a model: title, arXiv number, and the table with its scores."""

    title: str
    arxiv: str = ""
    table: str = ""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A validated recipe.

    Attributes:
        name: name of the model; by default the file's name without suffix. It is also the name of
            the folder of its training.
        summary: one line on what the model is for.
        paper: the publication of the model.
        network: ``type`` and options of the network.
        train: settings of the training; the trainer checks them.
        evaluate: test sets, protocol and published scores; the evaluation checks them.
    """

    name: str
    summary: str = ""
    paper: Paper | None = None
    network: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    evaluate: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_plain_name(self.name):
            raise RecipeError(
                f"name is {shown(self.name)}; files are named after it, so give 1 to "
                f"{LONGEST_NAME} printable characters without '/', '\\' and ':'"
            )

    @property
    def takes_burst(self) -> bool:
        """Whether the network takes bursts; see :attr:`zoo.networks.Network.takes_burst`."""
        return NETWORKS.get(self.network["type"], "network").capabilities.takes_burst

    def data(self) -> dict[str, Any]:
        """Return the recipe as plain data, without empty entries; ``load_recipe`` accepts it."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value}


def _is_plain_name(name: str) -> bool:
    """Whether a name is one component of a path, on any system."""
    return (
        name.isprintable()
        and name.strip(" .") != ""  # some systems drop spaces and dots at the end
        and not re.search(r"[/\\:]", name)
        and len(name.encode()) <= LONGEST_NAME
    )


def parse_value(text: str) -> Any:
    """Parse a YAML value such as ``1e-4``, ``[6, 6]``, ``true``, ``{type: window, size: 8}``.

    ``1e3`` is the whole number 1000, for options that take whole numbers; those that take numbers
    take it, too.

    Raises:
        RecipeError: if the text is not valid YAML or too large.
    """
    try:
        value = read_yaml(text)
    except RecipeError as error:
        raise RecipeError(f"cannot read the value {shown(text)}: {error}") from error
    if isinstance(value, float) and "e" in text.lower() and value.is_integer():
        return int(value) if abs(value) <= MOST_EXACT else value
    return value


def _with_current_options(data: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(data.get("network"), dict):
        return data
    return {**data, "network": with_current_options(data["network"])}


def load_recipe(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe and check its network.

    Args:
        source: name of a published model, a path that ends in ``.yaml``, or the data itself.
        overrides: values by full dotted path, such as ``{"network.block.mixer.d_state": 8}``.

    Raises:
        RecipeError: if the recipe is wrong; the message gives the place of the first mistake and
            the likely fix.
    """
    if isinstance(source, Recipe):
        source = source.data()
    data, file = read_recipe(source)
    label = "recipe" if file is None else file.name
    try:
        if isinstance(data.get("network"), dict):
            check_names_of_one_time(data["network"])
        data = _with_current_options(extended(data, [] if file is None else [file]))
        check_overrides(overrides or {})
        for path, value in (overrides or {}).items():
            override(data, path, value)
        data = _with_current_options(data)
        recipe: Recipe = resolve(Recipe, data, "")
        resolve_part(NETWORKS, recipe.network, "network")
    except RecipeError as error:
        raise RecipeError(f"{label}: {error}") from error
    return recipe


def self_contained(data: Any) -> dict[str, Any]:
    """Return the data of a recipe that was found in a weights file, without ``extends``.

    A weights file may come from anyone, so it can name a published recipe only: no path is opened.

    Raises:
        RecipeError: if the data is not a recipe, or ``extends`` does not name a published recipe.
    """
    if not isinstance(data, dict):
        raise RecipeError("a recipe is a mapping with the key 'network'")
    base = data.get("extends")
    if base is not None and base not in list_models():
        raise RecipeError(
            f"'extends' is {shown(base)}, but the recipe in a file can only extend a published one"
        )
    return extended(data, [])


def section(recipe: Recipe, name: Literal["train", "evaluate"], kind: type[T]) -> T:
    """Check a section of a recipe against its dataclass, and return it as that dataclass.

    Raises:
        RecipeError: if the section is wrong; the message gives the place of the first mistake.
    """
    try:
        settings: T = resolve(kind, getattr(recipe, name), name)
    except RecipeError as error:
        raise RecipeError(f"{recipe.name}: {error}") from error
    return settings


def parse_overrides(words: Iterable[str], example: str) -> dict[str, Any]:
    """Parse the ``key=value`` words of a command line; the values are YAML.

    Args:
        words: words of the command line.
        example: a correct word, for the error message.

    Raises:
        RecipeError: if a word has no "=", or a value is not valid YAML.
    """
    overrides = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise RecipeError(f"{word!r} is not a setting; write key=value, such as {example}")
        overrides[key] = parse_value(value)
    return overrides


def build(source: str | Path | Mapping[str, Any] | Recipe, **overrides: Any) -> Network:
    """Build a network from a recipe, randomly initialised.

    Args:
        source: name of a published model, a path that ends in ``.yaml``, or the data itself.
        overrides: options of the network by dotted path, such as ``scale=2`` or
            ``**{"block.mixer.d_state": 8}``.

    Returns:
        The network, in training mode; ``network.recipe`` is its recipe.

    Raises:
        RecipeError: if the recipe or an override is wrong, or the network has more parameters than
            the limit (:mod:`zoo.networks.size`); the message gives the place of the first mistake
            and the likely fix.
    """
    recipe = load_recipe(source, {f"network.{path}": value for path, value in overrides.items()})
    try:
        network = build_within_limit(resolve_part(NETWORKS, recipe.network, "network"))
        check_names(network.guides)
    except (RecipeError, ValueError) as error:
        raise RecipeError(f"{recipe.name}: {error}") from error
    network.recipe = recipe
    return network
