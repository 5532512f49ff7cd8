"""Recipe files as plain data: reading them, ``extends``, and overrides.

Mappings are merged key by key; lists and other values are replaced; a part is replaced as a whole
if its ``type`` changes. Some things belong to one recipe only and are not inherited, see
:func:`_inherited`. PyTorch is not imported; :mod:`zoo.recipe` checks the data.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import RecipeError, nearest, shown
from zoo.plain_data import LONGEST_TEXT, plain_copy, read_yaml
from zoo.shipped import RECIPES, list_models

MOST_FILES = 16
"""Files that a recipe may lead through, itself and those that it extends one after another."""

OF_ONE_NETWORK = {
    "train": ("initial",),
    "evaluate": ("paper", "paper_ensemble", "released", "source"),
}
"""Keys that a recipe does not inherit. Another network would start from the few tensors that happen
to fit, and be compared with scores that are not its own, both without a word."""


EITHER = (("iterations", "epochs"),)
"""Keys that say the same in two ways: a recipe that gives one replaces the other of its parent."""


def read_recipe(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """Return the data of a recipe, with ``extends`` as it stands, and its file if it has one.

    Args:
        source: name of a published model, a path that ends in ``.yaml``, or the data itself.

    Raises:
        RecipeError: if the name is unknown, or the file cannot be read.
    """
    if isinstance(source, Mapping):
        try:
            return {"name": "custom", **plain_copy(source)}, None
        except RecipeError as error:
            raise RecipeError(f"recipe: {error}") from error
    if not isinstance(source, (str, Path)):
        raise RecipeError(
            f"a recipe is the name of a model, a path or a mapping, not {type(source).__name__}"
        )
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        known = list_models()
        if str(source) not in known:
            raise RecipeError(f"unknown model {shown(str(source))}{nearest(str(source), known, 3)}")
        path = RECIPES / f"{source}.yaml"
    try:
        data = read_yaml(_text_of(path))
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the key 'network'")
    return {"name": path.stem, **data}, path


def summary_of(model: str) -> str:
    """Return the summary of a published model; "" if it has none. Nothing is inherited."""
    summary = read_recipe(model)[0].get("summary")
    return summary if isinstance(summary, str) else ""


def _text_of(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise RecipeError("cannot read the recipe: it is not a file")
        with path.open(encoding="utf-8") as file:
            return file.read(LONGEST_TEXT + 1)
    except OSError as error:
        raise RecipeError(f"cannot read the recipe: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError("not a text file; a recipe is YAML") from error
    except RecipeError:
        raise
    except ValueError as error:  # a path with a null character
        raise RecipeError(f"cannot read the recipe: {error}") from error


def extended(data: dict[str, Any], files: list[Path]) -> dict[str, Any]:
    """Merge data into the recipe that it extends.

    Args:
        data: the data of a recipe.
        files: the files that were read up to this data, its own last.

    Raises:
        RecipeError: if ``extends`` does not name a recipe that can be read, or leads in a circle.
    """
    base = data.pop("extends", None)
    if base is None:
        return data
    label = files[-1].name if files else "recipe"
    if not isinstance(base, str):
        raise RecipeError(f"{label}: 'extends' must name a recipe, got {shown(base)}")
    parent, file = read_recipe(_beside(base, files))
    assert file is not None  # a name was given, so it was read from a file
    if file.resolve() in (earlier.resolve() for earlier in files):
        names = [*(earlier.name for earlier in files), base]
        raise RecipeError(f"{label}: 'extends' is circular: {' -> '.join(names)}")
    if len(files) >= MOST_FILES:
        raise RecipeError(f"{label}: 'extends' leads through more than {MOST_FILES} files")
    published = bool(files) and files[-1].resolve().parent == RECIPES
    return _merged(_inherited(extended(parent, [*files, file]), published=published), data)


def _beside(base: str, files: list[Path]) -> str:
    """Return where the recipe is that the last file extends.

    A path is looked for beside that file first, then in the current folder.
    """
    if files and base.endswith((".yaml", ".yml")):
        beside = files[-1].parent / base
        if beside.is_file():
            return str(beside)
    return base


def _inherited(data: dict[str, Any], *, published: bool) -> dict[str, Any]:
    """Return what a recipe inherits of another: all but what is true of that one only.

    That is :data:`OF_ONE_NETWORK`, and ``summary``, which describes the other recipe. ``paper`` has
    published the other network and not this one, except if this recipe is a published one too: a
    paper has several.
    """
    kept = {key: value for key, value in data.items() if key != "summary"}
    if not published:
        kept.pop("paper", None)
    for name, left in OF_ONE_NETWORK.items():
        if isinstance(section := kept.get(name), dict):
            kept[name] = {key: value for key, value in section.items() if key not in left}
    return kept


def _merged(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    if "type" in change and change["type"] != base.get("type"):
        return copy.deepcopy(dict(change))
    merged = dict(base)
    for key, value in change.items():
        _drop_other(merged, key, change)
        old = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = _merged(old if isinstance(old, dict) else {}, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Check that overrides do not say the same in two ways; see :data:`EITHER`.

    Raises:
        RecipeError: if they do: the later one would replace the other without a word.
    """
    for path, value in overrides.items():
        section, dot, key = path.rpartition(".")
        for first, second in EITHER:
            if key == first and value and overrides.get(f"{section}{dot}{second}"):
                raise RecipeError(
                    f"{section}{dot}{first} and {section}{dot}{second} are both given; omit one"
                )


def override(data: dict[str, Any], path: str, value: Any) -> None:
    """Set one value by its dotted path; ``scans[0].size`` and ``scans.0.size`` are the same.

    Raises:
        RecipeError: if the value is not plain data, or the path leads nowhere.
    """
    try:
        value = plain_copy(value)
    except RecipeError as error:
        raise RecipeError(f"override {path}: {error}") from error
    *parents, last = re.sub(r"\[(\d+)\]", r".\1", path).split(".")
    place: Any = data
    for depth, key in enumerate(parents):
        place = _step(place, key, path, ".".join(parents[: depth + 1]))
    if isinstance(place, list):
        place[_index(place, last, path)] = value
    elif isinstance(value, Mapping):
        place[last] = _merged(_as_mapping(place.get(last)), value)
    else:
        _drop_other(place, last)
        place[last] = value


def _drop_other(section: dict[str, Any], key: str, given: Iterable[str] = ()) -> None:
    """Remove what the key replaces, if it is not given with it; see :data:`EITHER`."""
    for pair in EITHER:
        if key in pair:
            for other in set(pair) - {key, *given}:
                section.pop(other, None)


def _step(place: Any, key: str, path: str, here: str) -> Any:
    container: Any = place
    if isinstance(place, list):
        key = _index(place, key, path)  # type: ignore[assignment]
    else:
        place.setdefault(key, {})
    inner = container[key]
    if isinstance(inner, str):
        inner = container[key] = {"type": inner}
    if not isinstance(inner, (dict, list)):
        raise RecipeError(f"override {path}: {here} is {shown(inner)}, which has no options")
    return inner


def _index(place: list[Any], key: str, path: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", key) or int(key) >= len(place):
        raise RecipeError(
            f"override {path}: {shown(key)} is not an index of a list of {len(place)}"
        )
    return int(key)


def _as_mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"type": value}
    return value if isinstance(value, dict) else {}
