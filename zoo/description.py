"""What a part or a model is, in a form that people and tools can read.

``describe("block/rssb")`` tells a part's options; ``describe("mambair_light_x4")`` a model's size.
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
"""Side of the square input that operations are counted for unless said otherwise, in pixels."""


@dataclass(frozen=True)
class PartDescription:
    """A part: what it is, what it needs, and its options with type and default."""

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
    """A model: its size and what it takes.

    Attributes:
        parameters: number of trainable values.
        gigaflops: floating-point operations for one input in units of 1e9, the scan's included;
            a multiply-add counts as two.
        size: height and width of that input in pixels.
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
        """The description as plain data."""
        return asdict(self)


def list_parts(kind_name: str | None = None, pattern: str = "*") -> list[str]:
    """Names of registered parts: of one kind, or of all kinds as ``kind/name``.

    Raises:
        RecipeError: for an unknown kind.
    """
    if kind_name is not None:
        return kind(kind_name).names(pattern)
    return [f"{k}/{name}" for k, registry in kinds().items() for name in registry.names(pattern)]


def describe(
    name: str, *, height: int = MEASURED_SIZE, width: int = MEASURED_SIZE
) -> PartDescription | ModelDescription:
    """Describe a part (``"kind/name"``) or a model (``"name"``, or a recipe's path).

    Args:
        name: of the part or model.
        height: of the input that a model's operations are counted for, in pixels.
        width: of the same input, in pixels.

    Raises:
        RecipeError: for an unknown name, with the nearest known one.
    """
    kind_name, slash, part = name.partition("/")
    if slash and kind_name in kinds():
        return _describe_part(kind_name, part)
    if not slash and name not in list_models() and not name.endswith((".yaml", ".yml")):
        parts = [full for full in list_parts() if full.endswith(f"/{name}")]
        if parts:
            raise RecipeError(f"{name!r} is no model; did you mean {parts[0]!r}?")
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
        network = build(name).eval()
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
