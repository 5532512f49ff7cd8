"""Descriptions of parts and models, for people and for tools.

``describe("block/rssb")`` returns a part's options, ``describe("mambair_light_x4")`` a model's
size.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

import torch

from zoo.errors import RecipeError, nearest
from zoo.networks import Network
from zoo.networks.operations import Operations, count_operations, layer_parameters
from zoo.recipe import Recipe, build
from zoo.recipe_files import read_recipe
from zoo.registry import Capabilities, Entry, capabilities_of, entry_of, kind, kind_of, kinds
from zoo.shipped import list_models

Count: TypeAlias = Literal["flops", "macs"]
"""How operations are counted, for people: see :mod:`zoo.networks.operations`."""

MEASURED_SIZE = 64
"""Default side in pixels of the square input for counting operations."""


@dataclass(frozen=True)
class PartDescription:
    """Description of a part: its summary, capabilities, and options with type and default."""

    kind: str
    name: str
    summary: str
    options: dict[str, str]
    capabilities: Capabilities

    def __str__(self) -> str:
        lines = [f"{self.kind}/{self.name}: {self.summary}"]
        width = max(map(len, self.options), default=0)
        lines += [f"  {name:<{width}}  {text}" for name, text in self.options.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class ModelDescription:
    """Description of a model: its input, its number of parameters, and its operations.

    Attributes:
        name: name of the model.
        summary: one line on what the model is for; empty if its recipe has none of its own.
        extends: the recipe that its recipe extends; empty if there is none.
        paper: title and arXiv number of the publication; empty if there is none.
        scores: where the published scores stand; empty if there are none.
        scale: output over input size.
        channels: channels of the input image, or of a frame.
        out_channels: channels of the output image.
        guides: channels and size of each guide, by name.
        parameters: number of trainable values.
        layer_parameters: those that tools see which look at layers only: not those of scans.
        gigaflops: floating-point operations for one input in units of 1e9, including the scan; a
            multiply-add counts as two.
        gigamacs: the same as papers count it since August 2024; see
            :mod:`zoo.networks.operations`.
        layer_gigamacs: the same as papers counted it before: in layers only.
        size: height and width of that input in pixels.
        capabilities: accepted inputs, sizes and dtypes.
    """

    name: str
    summary: str
    extends: str
    paper: str
    scores: str
    scale: int
    channels: int
    out_channels: int
    guides: dict[str, str]
    parameters: int
    layer_parameters: int
    gigaflops: float
    gigamacs: float
    layer_gigamacs: float
    size: tuple[int, int]
    capabilities: Capabilities

    def __str__(self) -> str:
        return self.text()

    def text(self, count: Count = "flops") -> str:
        """Return the description for people.

        Args:
            count: how operations are counted: "flops", ours, or "macs", as papers do.
        """
        c = self.capabilities
        size = f"for {self.size[0]} x {self.size[1]}"
        operations = [f"  operations  {self.gigaflops:.2f} GFLOPs {size}"]
        if count == "macs":
            operations = [
                f"  operations  {self.gigamacs:.2f} GMACs {size}, as papers count since August "
                "2024",
                f"  in layers   {self.layer_gigamacs:.2f} GMACs, {self.layer_parameters:,} "
                "parameters, as papers counted before: without scans",
            ]
        out = "" if self.out_channels == self.channels else f", {self.out_channels} channels out"
        guides = [f"  guide       {name}: {text}" for name, text in self.guides.items()]
        multiple = c.size_multiple
        multiples = f"; works on multiples of {multiple}" if multiple > 1 else ""
        return "\n".join(
            [
                f"{self.name}: {self.summary or self._derived}",
                f"  scale       x{self.scale}, {self.channels} channels, one {c.input} in{out}",
                *guides,
                f"  parameters  {self.parameters:,}",
                *operations,
                f"  sizes       any from {c.minimum_size} px{multiples}",
                f"  dtypes      {', '.join(c.dtypes)}",
                f"  paper       {self.paper or '-'}",
                *([f"  scores      {self.scores}"] if self.scores else []),
            ]
        )

    @property
    def _derived(self) -> str:
        return f"a recipe that extends {self.extends}" if self.extends else "a recipe"

    def data(self) -> dict[str, Any]:
        """Return the description as a dict of plain data."""
        return asdict(self)


class Measured(NamedTuple):
    """A network on PyTorch's device ``meta``, its number of parameters, and its operations.

    Attributes:
        network: the network; its parameters have shapes but no values.
        parameters: number of trainable values.
        gigaflops: floating-point operations for one input in units of 1e9; see
            :class:`ModelDescription`.
        operations: the same, also as papers count.
    """

    network: Network
    parameters: int
    gigaflops: float
    operations: Operations


def list_parts(kind_name: str | None = None, pattern: str = "*") -> list[str]:
    """Return the names of registered parts.

    Args:
        kind_name: kind of the parts; None for all kinds, with names as ``kind/name``.
        pattern: shell-style pattern of names.

    Raises:
        RecipeError: if the kind is unknown.
    """
    if kind_name is not None:
        return kind(kind_name).names(pattern)
    return [f"{k}/{name}" for k, registry in kinds().items() for name in registry.names(pattern)]


def describe(
    name: str | Recipe, *, height: int = MEASURED_SIZE, width: int = MEASURED_SIZE
) -> PartDescription | ModelDescription:
    """Describe a part (``"kind/name"``) or a model (``"name"``, a recipe's path, or a recipe).

    Args:
        name: name of the part or model, or the recipe of a model.
        height: height in pixels of the input for counting a model's operations.
        width: width in pixels of that input.

    Raises:
        RecipeError: if the name is unknown; the message suggests the nearest known name.
    """
    if isinstance(name, Recipe):
        return _describe_model(name, height, width)
    kind_name, slash, part = name.partition("/")
    if slash and kind_name in kinds():
        return _describe_part(kind_name, part)
    unknown = name not in list_models() and not name.endswith((".yaml", ".yml"))
    if unknown and kind_name and part:
        raise RecipeError(
            f"{name!r}: unknown kind of part {kind_name!r}{nearest(kind_name, kinds())}"
        )
    if not slash and unknown:
        parts = [full for full in list_parts() if full.endswith(f"/{name}")]
        if parts:
            raise RecipeError(f"{name!r} is not a model; did you mean {parts[0]!r}?")
        raise RecipeError(f"unknown model {name!r}{nearest(name, list_models(), 3)}")
    return _describe_model(name, height, width)


def _describe_part(kind_name: str, name: str) -> PartDescription:
    registry = kind(kind_name)
    entry = registry.get(name)
    options = dict(_options(entry.target, registry.supplied))
    return PartDescription(kind_name, name, entry.summary, options, entry.capabilities)


def _options(
    target: type, supplied: tuple[str, ...] = (), prefix: str = "", given: object = None
) -> Iterator[tuple[str, str]]:
    """Yield the options of a part by dotted path, as recipes set them, with type and default.

    Those of a default part inside it follow it, and so do the fields of a section.

    Args:
        target: class of the part.
        supplied: constructor arguments that recipes may not set.
        prefix: path of the part, with a dot at its end.
        given: a part whose settings are the defaults; None for those of the class.
    """
    hints = typing.get_type_hints(target.__init__)  # type: ignore[misc]
    for option, parameter in inspect.signature(target).parameters.items():
        if option in supplied:
            continue
        annotation, default = hints[option], getattr(given, option, parameter.default)
        text = _type_name(annotation)
        if default is not inspect.Parameter.empty:
            text += f" = {_default_name(default)}"
        yield f"{prefix}{option}", text
        below = f"{prefix}{option}."
        entry = _entry_of(default)
        if entry is not None:
            inner = None if isinstance(default, type) else default
            yield from _options(entry.target, kind(entry.kind).supplied, below, inner)
        for section in (annotation, *get_args(annotation)):
            if isinstance(section, type) and is_dataclass(section) and kind_of(section) is None:
                yield from _options(section, prefix=below)


def _type_name(annotation: Any) -> str:
    registry = kind_of(annotation)
    if registry is not None:
        return registry.kind
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, arguments))
    if arguments and kind_of(arguments[-1]) is not None and len(arguments) == 2:
        inner = _type_name(arguments[-1])
        return inner if _is_callable(annotation) else f"list of {inner}"
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join("none" if a is type(None) else _type_name(a) for a in arguments)
    if is_dataclass(annotation):
        return f"mapping of {', '.join(field.name for field in fields(annotation))}"
    if arguments:
        return f"list of {_type_name(arguments[0])}"
    return getattr(annotation, "__name__", str(annotation))


def _is_callable(annotation: Any) -> bool:
    return get_origin(annotation) is get_origin(Callable[..., Any])


def _default_name(default: Any) -> str:
    entry = _entry_of(default)
    return repr(default) if entry is None else entry.name


def _entry_of(default: Any) -> Entry[Any] | None:
    """Return the registration of the part that an option has by default, a class or an object."""
    return entry_of(default if isinstance(default, type) else type(default))


def measured(
    source: str | Path | Mapping[str, Any] | Recipe,
    height: int = MEASURED_SIZE,
    width: int = MEASURED_SIZE,
) -> Measured:
    """Build a network without memory for its values, and count its parameters and operations.

    Args:
        source: name of a published model, a path that ends in ``.yaml``, or the data itself.
        height: height in pixels of the input for counting operations.
        width: width in pixels of that input.

    Raises:
        RecipeError: if the recipe is wrong.
    """
    with torch.device("meta"):
        # Counting hooks into autograd, which fails at slices of parameters made without gradients.
        network = build(source).eval().requires_grad_(False)
        inputs = network.example_inputs(height, width)
    operations = count_operations(network, inputs)
    parameters = sum(p.numel() for p in network.parameters())
    return Measured(network, parameters, operations.flops, operations)


def _describe_model(source: str | Recipe, height: int, width: int) -> ModelDescription:
    network, parameters, gigaflops, operations = measured(source, height, width)
    extends = "" if isinstance(source, Recipe) else read_recipe(source)[0].get("extends", "")
    recipe = network.recipe
    paper = recipe.paper
    return ModelDescription(
        name=recipe.name,
        summary=recipe.summary,
        extends=str(extends),
        paper=f"{paper.title}, arXiv:{paper.arxiv}" if paper else "",
        scores=str(recipe.evaluate.get("source") or (paper.table if paper else "")),
        scale=network.scale,
        channels=network.channels,
        out_channels=network.out_channels,
        guides={name: str(guide) for name, guide in network.guides.items()},
        parameters=parameters,
        layer_parameters=layer_parameters(network),
        gigaflops=gigaflops,
        gigamacs=operations.macs,
        layer_gigamacs=operations.layer_macs,
        size=(height, width),
        capabilities=capabilities_of(network),
    )
