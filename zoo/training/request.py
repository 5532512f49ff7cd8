"""What a run was asked for, and what of it may differ when the run is resumed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.data.photos import SAMPLES_SOURCE
from zoo.errors import RecipeError, shown
from zoo.files import is_same_file
from zoo.recipe import Recipe, load_recipe
from zoo.shipped import list_models
from zoo.training.budget import parse_duration

BUDGET = "--budget"

MEASURED = (
    "evaluate",
    "train.data.validate",
    "train.data.validate_degraded",
    "train.data.validate_guides",
    "train.data.validate_real",
    "train.data.validate_patch",
    "train.data.validate_bursts",
)
"""Keys that say what a validation measures."""

# A resumed run equals an uninterrupted one bit for bit. These keys change neither the weights nor
# the state of a training: when numbers, scores and files are written; what is measured, because the
# random numbers that a validation draws are put back; how many photos are kept in memory, because
# a pair depends on pixels, seed and index alone; and texts. All others are refused: also
# accumulate, precision, compile and gradient_checkpointing, which round differently.
FREE = (
    *MEASURED,
    "train.log_every",
    "train.save_every",
    "train.keep",
    "train.data.memory",
    "train.data.paper",
    "name",
    "summary",
    "paper",
)
"""Keys that may differ when a run is resumed, each with all below it."""

SHOWN = 3
"""Differences that a message names."""

_UNSET = object()
"""The value of a key that is not given."""


def request_of(recipe: Recipe, budget: str | None) -> str:
    """Return what a run is asked for as text, which its checkpoints hold.

    Args:
        recipe: the network and its training.
        budget: the time that was given, if any.
    """
    return json.dumps([recipe.data(), budget], sort_keys=True)


def differences(before: str, now: str) -> dict[str, tuple[Any, Any]]:
    """Return the keys that differ between two requests, with the value before and the one now.

    Two spellings of the path of one file or folder are the same.

    Raises:
        ValueError: if a text is no request.
    """
    (recipe, budget), (new_recipe, new_budget) = (_parsed(text) for text in (before, now))
    old, new = dict(_leaves(recipe, "")), dict(_leaves(new_recipe, ""))
    pairs = {
        key: (old.get(key, _UNSET), new.get(key, _UNSET))
        for key in [*new, *(key for key in old if key not in new)]
    }
    pairs[BUDGET] = (_seconds(budget), _seconds(new_budget))
    found = {key: pair for key, pair in pairs.items() if not _is_same(*pair)}
    if BUDGET in found:
        found[BUDGET] = (_UNSET if budget is None else budget, new_budget or _UNSET)
    return found


def is_below(key: str, names: Collection[str]) -> bool:
    """Whether a key is one of the names, or below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def refusal(found: Mapping[str, tuple[Any, Any]], folder: Path) -> str | None:
    """Say why a run in a folder is not resumed: what differs, and what to do; None if it may be.

    Args:
        found: the keys that differ, of :func:`differences`.
        folder: folder of the run.
    """
    wrong = {key: pair for key, pair in found.items() if not is_below(key, FREE)}
    if not wrong:
        return None
    told = [
        f"{key} was {_told(before)} and is {_told(now)}"
        for key, (before, now) in list(wrong.items())[:SHOWN]
    ]
    if len(wrong) > SHOWN:
        told.append(f"{len(wrong) - SHOWN} more")
    fix = "give the settings of that run, or choose another --output"
    if wrong.keys() <= {"train.iterations", "train.epochs"}:
        fix = (
            "to train longer, choose another --output and start from these weights: "
            f"initial={folder / 'weights.safetensors'}"
        )
    return f"the run was begun with other settings ({'; '.join(told)}); {fix}"


def continued(recipe: Recipe, begun: Mapping[str, Any], changed: Collection[str]) -> Recipe:
    """Return a recipe with the schedule that its run began with.

    The schedule was shortened if there was a budget, and depends on the number of photos if the
    recipe has epochs. Both are decided once, when the run begins.

    Args:
        recipe: what is asked for now.
        begun: the recipe of the checkpoint, as plain data.
        changed: keys whose values are new; they stay as they are.
    """
    data = recipe.data()
    train, then = data["train"], begun["train"]
    train.pop("epochs", None)
    for key in ("iterations", "schedule", "save_every", "log_every"):
        if f"train.{key}" not in changed:
            _take(key, then, train)
    _take("stages", then.get("data", {}), train.get("data", {}))
    _take("schedule", then.get("adversarial") or {}, train.get("adversarial") or {})
    return load_recipe(data)


def _take(key: str, source: Mapping[str, Any], target: dict[str, Any]) -> None:
    if key in source:
        target[key] = source[key]  # in its place: the recipe in the weights stays the same text
    else:
        target.pop(key, None)


def _parsed(text: str) -> tuple[Mapping[str, Any], str | None]:
    try:
        recipe, budget = json.loads(text)
    except (TypeError, RecursionError) as error:
        raise ValueError("no request") from error
    if not isinstance(recipe, dict) or not isinstance(budget, (str, type(None))):
        raise ValueError("no request")
    return recipe, budget


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted path; that of a part is its name."""
    if not isinstance(value, dict) or not value:
        yield path, value
    else:
        for key, held in value.items():
            place = f"{path}.{key}" if path else key
            yield from _leaves(held, path if key == "type" and path else place)


def _seconds(budget: str | None) -> float | None:
    try:
        return None if budget is None else parse_duration(budget)
    except RecipeError:  # of a damaged checkpoint
        return 0.0


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if a == b or not (isinstance(a, str) and isinstance(b, str)):
        return bool(a == b)
    named = {SAMPLES_SOURCE, *list_models()}  # these are no paths
    return not {a, b} & named and is_same_file(Path(a), Path(b))


def _told(value: Any) -> str:
    text = "not set" if value is _UNSET else shown(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
