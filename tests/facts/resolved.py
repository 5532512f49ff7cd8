"""A recipe with nothing left unsaid: every field and every default, as flat plain data."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from zoo.evaluation.image import Protocol
from zoo.evaluation.settings import evaluate_settings
from zoo.networks import NETWORKS
from zoo.recipe import Recipe
from zoo.registry import Entry, kinds
from zoo.schema import Factory, resolve_part
from zoo.training.settings import train_settings


def resolved(recipe: Recipe) -> dict[str, Any]:
    """All fields of a recipe by dotted path, such as ``network.block.mixer.d_state``."""
    return flat(nested(recipe))


def nested(recipe: Recipe) -> dict[str, Any]:
    """All fields of a recipe as nested plain data.

    Sections pass their own checks first, and options that the recipe leaves out have the defaults
    of the constructors. What an image is measured on is said as it holds for the network's scale.

    Raises:
        RecipeError: if a section is wrong.
    """
    network = resolve_part(NETWORKS, recipe.network, "network")
    evaluate = evaluate_settings(recipe)
    data = {
        "name": recipe.name,
        "summary": recipe.summary,
        "paper": explicit(recipe.paper),
        "network": explicit(network),
        "train": explicit(train_settings(recipe)),
        "evaluate": explicit(evaluate),
    }
    if network.entry.capabilities.input == "image":
        protocol = Protocol(channel=evaluate.channel, crop=evaluate.crop)
        channel, crop = protocol.for_scale(network.options.get("scale", 1))
        data["evaluate"] |= {"channel": channel, "crop": crop}
    return data


def explicit(value: Any) -> Any:
    """Plain data of a checked value: parts as mappings of their type and all their options."""
    if isinstance(value, Factory):
        return _part(value.entry, value.options)
    entry = _entry_of(value if isinstance(value, type) else type(value))
    if entry is not None:
        return _part(entry, {} if isinstance(value, type) else _Attributes(value))
    if dataclasses.is_dataclass(value):
        return {f.name: explicit(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: explicit(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [explicit(item) for item in value]
    assert value is None or isinstance(value, (bool, int, float, str)), value
    return value


def flat(data: Any, path: str = "") -> dict[str, Any]:
    """Nested data by dotted path. Lists of plain values stay whole, others are numbered."""
    if isinstance(data, Mapping) and data:
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in data.items()]
    elif isinstance(data, list) and any(isinstance(item, (Mapping, list)) for item in data):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(data)]
    else:
        return {path: data}
    return {place: leaf for where, item in items for place, leaf in flat(item, where).items()}


class _Attributes(dict[str, Any]):
    """Options of a built part: it keeps each as an attribute of that name."""

    def __init__(self, part: object) -> None:
        super().__init__()
        self.part = part

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self.part, key)


def _part(entry: Entry[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    supplied = kinds()[entry.kind].supplied
    parameters = inspect.signature(entry.target).parameters.items()
    return {"type": entry.name} | {
        name: explicit(options.get(name, parameter.default))
        for name, parameter in parameters
        if name not in supplied
    }


def _entry_of(target: type) -> Entry[Any] | None:
    entries = (entry for registry in kinds().values() for entry in registry.entries())
    return next((entry for entry in entries if entry.target is target), None)
