"""The reference that the registry tells: every part, every model, and a gallery of scan orders."""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import zoo
from zoo.description import PartDescription, describe
from zoo.networks import Network
from zoo.plots.scan_order import plot_order
from zoo.recipe import Recipe, build, load_recipe
from zoo.registry import Entry, entry_of, kinds
from zoo.scans import SCANS, Raster, ScanOrder, Spiral, Zigzag
from zoo.shipped import RECIPES, list_models, shipped_weights

SIZE = (12, 16)
"""Height and width in tokens of the pictures of scan orders."""

SHOWN: dict[str, dict[str, Any]] = {
    "cross_scale": {"size": 4},
    "compose": {"orders": (Spiral(), Zigzag())},
    "window": {"size": 4},
}
"""Settings of the orders that have no defaults, or too large ones for a small picture."""

BY_CONTENT = "![A photo, the classes of its tokens, and the path](../docs/images/by_class.png)"

SUPPLIED: dict[str, Any] = {
    "dim": 64,
    "out": 64,
    "scale": 2,
    "channels": 3,
    "directions": 4,
    "burst": 4,
    "drop_path": 0.0,
    "compat": None,
    "scan": Raster(),
    "frames": 4,
    "factor": 2,
    "mode": "raw",
}
"""What a network supplies to a part whose values are counted."""


def write_reference(folder: Path) -> list[str]:
    """Write the pages of all kinds of parts, of the models and of the gallery.

    Args:
        folder: the folder ``reference``; it is created.

    Returns:
        The names of the pages of parts, one for each kind.
    """
    (folder / "images").mkdir(parents=True)
    for entry in SCANS.entries():
        if (order := _order(entry)) is not None:
            plot_order(order, *SIZE, folder / "images" / f"{entry.name}.png")
    names = []
    for name in kinds():
        (folder / f"{name}.md").write_text(_kind_page(name), encoding="utf-8")
        names.append(name)
    (folder / "api.md").write_text(_api_page(), encoding="utf-8")
    (folder / "models.md").write_text(_models_page(), encoding="utf-8")
    (folder / "gallery.md").write_text(_gallery_page(), encoding="utf-8")
    return names


def _kind_page(kind_name: str) -> str:
    registry = kinds()[kind_name]
    contract = f"{registry.contract.__module__}.{registry.contract.__qualname__}"
    supplied = ", ".join(f"`{name}`" for name in registry.supplied) or "nothing"
    lines = [
        f"# {kind_name.replace('_', ' ').capitalize()}",
        "",
        f"Contract: `{contract}`. The network supplies {supplied}; the other arguments are options "
        "of a recipe.",
        "",
        *(
            f"- [`{entry.name}`](#{_anchor(entry)}): {_plain(entry.summary)}"
            for entry in registry.entries()
        ),
        "",
    ]
    for entry in registry.entries():
        lines += _part(entry)
    return "\n".join(lines)


def _part(entry: Entry[Any]) -> Iterator[str]:
    description = describe(f"{entry.kind}/{entry.name}")
    assert isinstance(description, PartDescription)
    yield from (f"## {entry.name} {{ #{_anchor(entry)} }}", "")
    if entry.kind == SCANS.kind and _order(entry) is not None:
        yield from (f"![{entry.name}](images/{entry.name}.png)", "")
    if description.options:
        yield from ("| option | type and default |", "|---|---|")
        for name, text in description.options.items():
            yield f"| `{name}` | {_plain(text)} |"
        yield ""
    values = _values(entry)
    if values is not None:
        yield from (f"Trainable values with 64 channels and the defaults: {values:,}.", "")
    recipes = users().get((entry.kind, entry.name), [])
    if recipes:
        named = ", ".join(f"[`{name}`](models.md#{name})" for name in recipes)
        yield from (
            '<details markdown="1">',
            f"<summary>Used by {len(recipes)} of the recipes</summary>",
            "",
        )
        yield from (named, "", "</details>", "")
    else:
        yield from ("No published recipe uses it.", "")
    target = entry.target
    yield from (f"::: {target.__module__}.{target.__qualname__}", "    options:")
    yield from ("      heading_level: 3", "")


def _models_page() -> str:
    lines = [
        "# Models",
        "",
        "Every published recipe. `zoo show NAME` prints the size of a model, and `zoo show NAME "
        "--recipe` everything that it inherits.",
        "",
    ]
    for name in list_models():
        recipe = load_recipe(name)
        paper = recipe.paper
        lines += [f"## {name} {{ #{name} }}", "", _plain(recipe.summary or "A variant."), ""]
        facts = [f"trainable values: {_trainable(network_of(name)):,}"]
        facts.append(f"scale: x{network_of(name).scale}")
        if name in shipped_weights():
            facts.append("weights ship with the package")
        if paper is not None:
            facts.append(f"[{_plain(paper.title)}](https://arxiv.org/abs/{paper.arxiv})")
        lines += [f"- {fact}" for fact in facts]
        parts = sorted(key for key, recipes in users().items() if name in recipes)
        lines += ["- parts: " + ", ".join(f"[`{k}/{p}`]({k}.md#{k}-{p})" for k, p in parts), ""]
        text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").rstrip()
        lines += ['??? abstract "Recipe"', "", "    ```yaml"]
        lines += [f"    {line}".rstrip() for line in text.splitlines()] + ["    ```", ""]
    return "\n".join(lines)


def _api_page() -> str:
    lines = ["# Python interface", "", "Everything that `import zoo` offers.", ""]
    for name in zoo.__all__:
        target = getattr(zoo, name)
        lines += [f"::: {target.__module__}.{target.__qualname__}", "    options:"]
        lines += [f"      heading: zoo.{name}", f"      toc_label: {name}", ""]
    return "\n".join(lines)


def _gallery_page() -> str:
    lines = [
        "# Gallery of scan orders",
        "",
        f"Every scan order with its defaults on a grid of {SIZE[0]} x {SIZE[1]} tokens. A path "
        "goes from dark to bright. `zoo scans plot` draws other sizes and settings.",
        "",
    ]
    for entry in SCANS.entries():
        lines += [f"## {entry.name}", "", _plain(entry.summary), ""]
        if _order(entry) is None:
            lines += ["Its path depends on the image; here it is in a photo.", "", BY_CONTENT, ""]
        else:
            lines += [f"![{entry.name}](images/{entry.name}.png)", ""]
        lines += [f"[Options](scan.md#{_anchor(entry)})", ""]
    return "\n".join(lines)


@cache
def network_of(name: str) -> Network:
    """Return the network of a recipe, without memory for its values."""
    with torch.device("meta"):
        return build(name)


@cache
def users() -> dict[tuple[str, str], list[str]]:
    """Return the recipes that use each part, by its kind and name.

    Parts of the network are those that it is built of, defaults too. Those of the training and the
    evaluation are what the recipe names.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name in list_models():
        for key in sorted({*_built(network_of(name)), *_named(load_recipe(name))}):
            found.setdefault(key, []).append(name)
    return found


def _built(network: Network) -> Iterator[tuple[str, str]]:
    for module in network.modules():
        for value in (module, *_held(vars(module))):
            entry = entry_of(type(value))
            if entry is not None:
                yield entry.kind, entry.name


def _held(values: Mapping[str, Any]) -> Iterator[Any]:
    """Scan orders among the attributes of a module, in lists too."""
    for value in values.values():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, ScanOrder):
                yield one
                yield from _held(vars(one))


def _named(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Losses, metrics and other parts that a recipe names outside its network."""
    known = {
        name: kind_name
        for kind_name in ("loss", "metric", "degradation", "burst_synthesis")
        for name in kinds()[kind_name].names()
    }
    for section in (recipe.train, recipe.evaluate):
        for text in _texts(section):
            if text in known:
                yield known[text], text


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _texts(value)
            yield str(key)
    elif isinstance(data, (list, tuple)):
        for value in data:
            yield from _texts(value)


def _order(entry: Entry[Any]) -> ScanOrder | None:
    """Return a scan order as its picture shows it; None if its path depends on the image."""
    if entry.target.by_content:
        return None
    order = entry.target(**SHOWN.get(entry.name, {}))
    assert isinstance(order, ScanOrder)
    return order


def _values(entry: Entry[Any]) -> int | None:
    """Return the number of trainable values of a part; None if it has none, or needs options."""
    if not issubclass(entry.target, nn.Module) or entry.kind == "network":
        return None
    parameters = inspect.signature(entry.target).parameters
    required = [name for name, p in parameters.items() if p.default is inspect.Parameter.empty]
    given = {name: SUPPLIED[name] for name in required if name in SUPPLIED}
    try:
        with torch.device("meta"):
            part = entry.target(**given)
    except (TypeError, ValueError):  # an option without a default
        return None
    return _trainable(part)


def _trainable(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def _anchor(entry: Entry[Any]) -> str:
    return f"{entry.kind}-{entry.name}"


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is, in a table too."""
    escaped = html.escape(text.replace("``", "`"), quote=False)
    return escaped.replace("|", "&#124;").replace("*", "&#42;").replace("_", "&#95;")
