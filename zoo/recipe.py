"""Recipes: a network, its training and its evaluation, as data.

A recipe is a YAML file (or a dict) with the keys of :class:`Recipe`. ``extends`` names another
recipe, and its values are the defaults of this one. Mappings are merged key by key; lists and other
values are replaced; a part is replaced as a whole if its ``type`` changes. What belongs to one
network only is not inherited: the weights that a training starts from, and published scores
(:data:`OF_ONE_NETWORK`). Every published model is a recipe in ``recipes/``, and is built in the
same way as a user's recipe.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from zoo.errors import RecipeError, nearest, shown
from zoo.networks import NETWORKS, Network
from zoo.networks.size import build_within_limit
from zoo.plain_data import LONGEST_TEXT, plain_copy, read_yaml
from zoo.schema import resolve, resolve_part

T = TypeVar("T")

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
"""Folder of the published recipes, beside this package."""

MOST_FILES = 16
"""Files that one recipe may extend, one after another."""

OF_ONE_NETWORK = {"train": ("initial",), "evaluate": ("paper", "paper_ensemble", "source")}
"""Keys that a recipe does not inherit. Another network would start from the few tensors that happen
to fit, and be compared with scores that are not its own, both without a word."""

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

    Raises:
        RecipeError: if the text is not valid YAML or too large.
    """
    try:
        return read_yaml(text)
    except RecipeError as error:
        raise RecipeError(f"cannot read the value {shown(text)}: {error}") from error


def list_models(pattern: str = "*") -> list[str]:
    """Return the sorted names of the published models that match a shell-style pattern."""
    return sorted(fnmatch.filter((path.stem for path in RECIPES.glob("*.yaml")), pattern))


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
    data, file = _read(source)
    label = "recipe" if file is None else file.name
    try:
        data = _extended(data, [] if file is None else [file])
        for path, value in (overrides or {}).items():
            _override(data, path, _override_value(path, value))
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
    return _extended(data, [])


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
    except RecipeError as error:
        raise RecipeError(f"{recipe.name}: {error}") from error
    network.recipe = recipe
    return network


def _read(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """Return the data of a recipe, and its file if it has one."""
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
            raise RecipeError(f"unknown model {shown(str(source))}{nearest(str(source), known)}")
        path = RECIPES / f"{source}.yaml"
    try:
        data = read_yaml(_text_of(path))
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the key 'network'")
    return {"name": path.stem, **data}, path


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


def _extended(data: dict[str, Any], files: list[Path]) -> dict[str, Any]:
    """Merge data into the recipe that it extends.

    Args:
        data: the data of a recipe.
        files: the files that were read up to this data, its own last.
    """
    base = data.pop("extends", None)
    if base is None:
        return data
    label = files[-1].name if files else "recipe"
    if not isinstance(base, str):
        raise RecipeError(f"{label}: 'extends' must name a recipe, got {shown(base)}")
    parent, file = _read(base)
    assert file is not None  # a name was given, so it was read from a file
    if file.resolve() in (earlier.resolve() for earlier in files):
        names = [*(earlier.name for earlier in files), base]
        raise RecipeError(f"{label}: 'extends' is circular: {' -> '.join(names)}")
    if len(files) >= MOST_FILES:
        raise RecipeError(f"{label}: 'extends' leads through more than {MOST_FILES} files")
    return _merged(_inheritable(_extended(parent, [*files, file])), data)


def _inheritable(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a recipe without :data:`OF_ONE_NETWORK`."""
    kept = dict(data)
    for name, keys in OF_ONE_NETWORK.items():
        values = kept.get(name)
        if isinstance(values, dict):
            kept[name] = {key: value for key, value in values.items() if key not in keys}
    return kept


def _merged(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    if "type" in change and change["type"] != base.get("type"):
        return copy.deepcopy(dict(change))
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = _merged(old if isinstance(old, dict) else {}, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _override_value(path: str, value: Any) -> Any:
    try:
        return plain_copy(value)
    except RecipeError as error:
        raise RecipeError(f"override {path}: {error}") from error


def _override(data: dict[str, Any], path: str, value: Any) -> None:
    """Set one value by its dotted path; ``scans[0].size`` and ``scans.0.size`` are the same."""
    *parents, last = re.sub(r"\[(\d+)\]", r".\1", path).split(".")
    place: Any = data
    for depth, key in enumerate(parents):
        place = _step(place, key, path, ".".join(parents[: depth + 1]))
    if isinstance(place, list):
        place[_index(place, last, path)] = value
    elif isinstance(value, Mapping):
        place[last] = _merged(_as_mapping(place.get(last)), value)
    else:
        place[last] = value


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
