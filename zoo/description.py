"""Descriptions of parts and models, for people and for tools.

``describe("block/rssb")`` returns a part's options, ``describe("mambair_light_x4")`` a model's
size.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo.errors import RecipeError, nearest
from zoo.recipe import build, list_models
from zoo.registry import Capabilities, capabilities_of, kind, kind_of, kinds

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
        summary: one line on what the model is for.
        paper: title, arXiv number and table of the publication; empty if there is none.
        scale: output over input size.
        channels: channels of the input image, or of a frame.
        parameters: number of trainable values.
        gigaflops: floating-point operations for one input in units of 1e9, including the scan; a
            multiply-add counts as two.
        size: height and width of that input in pixels.
        capabilities: accepted inputs, sizes and dtypes.
    """

    name: str
    summary: str
    paper: str
    scale: int
    channels: int
    parameters: int
    gigaflops: float
    size: tuple[int, int]
    capabilities: Capabilities

    def __str__(self) -> str:
        c = self.capabilities
        return "\n".join(
            [
                f"{self.name}: {self.summary}",
                f"  scale       x{self.scale}, {self.channels} channels, one {c.input} in",
                f"  parameters  {self.parameters:,}",
                f"  operations  {self.gigaflops:.2f} GFLOPs for {self.size[0]} x {self.size[1]}",
                f"  sizes       any from {c.minimum_size} px; works on multiples of "
                f"{c.size_multiple}",
                f"  dtypes      {', '.join(c.dtypes)}",
                f"  paper       {self.paper or '-'}",
            ]
        )

    def data(self) -> dict[str, Any]:
        """Return the description as a dict of plain data."""
        return asdict(self)


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
    name: str, *, height: int = MEASURED_SIZE, width: int = MEASURED_SIZE
) -> PartDescription | ModelDescription:
    """Describe a part (``"kind/name"``) or a model (``"name"``, or a recipe's path).

    Args:
        name: name of the part or model.
        height: height in pixels of the input for counting a model's operations.
        width: width in pixels of that input.

    Raises:
        RecipeError: if the name is unknown; the message suggests the nearest known name.
    """
    kind_name, slash, part = name.partition("/")
    if slash and kind_name in kinds():
        return _describe_part(kind_name, part)
    if not slash and name not in list_models() and not name.endswith((".yaml", ".yml")):
        parts = [full for full in list_parts() if full.endswith(f"/{name}")]
        if parts:
            raise RecipeError(f"{name!r} is not a model; did you mean {parts[0]!r}?")
        raise RecipeError(f"unknown model {name!r}{nearest(name, list_models())}")
    return _describe_model(name, height, width)


def _describe_part(kind_name: str, name: str) -> PartDescription:
    registry = kind(kind_name)
    entry = registry.get(name)
    hints = typing.get_type_hints(entry.target.__init__)
    options = {}
    for option, parameter in entry.options(registry.supplied).items():
        text = _type_name(hints[option])
        if parameter.default is not inspect.Parameter.empty:
            text += f" = {_default_name(parameter.default)}"
        options[option] = text
    return PartDescription(kind_name, name, entry.summary, options, entry.capabilities)


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
    return default.__name__ if isinstance(default, type) else repr(default)


def _describe_model(name: str, height: int, width: int) -> ModelDescription:
    with torch.device("meta"):
        # Counting hooks into autograd, which fails at slices of parameters made without gradients.
        network = build(name).eval().requires_grad_(False)
        image = network.example(height, width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    recipe = network.recipe
    paper = recipe.paper
    return ModelDescription(
        name=recipe.name,
        summary=recipe.summary,
        paper=f"{paper.title}, arXiv:{paper.arxiv} {paper.table}".rstrip() if paper else "",
        scale=network.scale,
        channels=network.channels,
        parameters=sum(p.numel() for p in network.parameters()),
        gigaflops=counter.get_total_flops() / 1e9,
        size=(height, width),
        capabilities=capabilities_of(network),
    )
