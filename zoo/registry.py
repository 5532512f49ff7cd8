"""Registries of parts, one for each kind of part.

A *kind* (``scan``, ``block``, ``head``, ...) has a contract class, and a list of constructor
arguments that the network supplies. All other arguments of a part's constructor are keyword-only
and typed: recipes are checked against the signature.

    BLOCKS = Registry("block", Block, supplied=("dim", "scan", "drop_path"))

    @BLOCKS.register("rssb")
    class RSSB(Block): ...
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from zoo.errors import RecipeError, nearest, shown
from zoo.key_rules import Keys, Rule, checked_rules

T = TypeVar("T")

HOMES = {
    "adversarial_loss": "zoo.training.losses.adversarial",
    "aligner": "zoo.blocks",
    "block": "zoo.blocks",
    "branch": "zoo.blocks",
    "burst_fusion": "zoo.blocks",
    "burst_synthesis": "zoo.data.burst",
    "degradation": "zoo.data",
    "discriminator": "zoo.training.discriminators",
    "downsampler": "zoo.blocks",
    "guided_block": "zoo.blocks",
    "head": "zoo.heads",
    "loss": "zoo.training.losses",
    "merge": "zoo.blocks",
    "metric": "zoo.metrics",
    "mixer": "zoo.blocks",
    "network": "zoo.networks",
    "norm": "zoo.blocks",
    "scale_fusion": "zoo.blocks",
    "scan": "zoo.scans",
    "skip": "zoo.blocks",
    "upsampler": "zoo.heads",
}
"""The module that defines each kind of the package, with all its parts.

They are imported on demand, so that the known kinds and parts do not depend on earlier imports.
"""

_KINDS: dict[str, Registry[Any]] = {}


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What tools need to know about a part; set when the part is registered.

    Attributes:
        input: "image" for one image ``(B, C, H, W)``, "burst" for a burst ``(B, T, C, H, W)``.
        size_multiple: the part pads its input to multiples of this, in pixels, and crops its
            output. Any size works; tiles that are multiples of it need no padding.
        minimum_size: smallest height and width of the input, in pixels.
        dtypes: dtypes that the whole part can be cast to.
    """

    input: Literal["image", "burst"] = "image"
    size_multiple: int = 1
    minimum_size: int = 1
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16", "float64")

    @property
    def takes_burst(self) -> bool:
        """Whether the input is a burst ``(B, T, C, H, W)`` instead of an image."""
        return self.input == "burst"


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered part: its kind, name, class, capabilities and key rules."""

    kind: str
    name: str
    target: type[T]
    capabilities: Capabilities
    keys: tuple[Rule, ...] = ()

    @property
    def summary(self) -> str:
        """First line of the part's docstring."""
        return (inspect.getdoc(self.target) or "").partition("\n")[0].rstrip(":")

    def options(self, supplied: tuple[str, ...] = ()) -> dict[str, inspect.Parameter]:
        """Return the constructor parameters that recipes may set: all except ``supplied``."""
        parameters = inspect.signature(self.target).parameters
        return {name: p for name, p in parameters.items() if name not in supplied}


@dataclass
class Registry(Generic[T]):
    """The parts of one kind, by name.

    Args:
        kind: name of the kind, as in ``zoo.list_parts(kind)``.
        contract: base class of all parts of the kind.
        supplied: constructor arguments that the network passes and recipes may not set.
    """

    kind: str
    contract: type[T]
    supplied: tuple[str, ...] = ()
    _entries: dict[str, Entry[T]] = field(default_factory=dict, init=False, repr=False)
    _by_class: dict[type, Entry[T]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _KINDS[self.kind] = self

    def _restore(self, entries: dict[str, Entry[T]]) -> None:
        self._entries = entries
        # The first of several names of a class, sorted, is the one that is kept.
        self._by_class = {entries[name].target: entries[name] for name in sorted(entries)[::-1]}

    def register(
        self, name: str, *, capabilities: Capabilities | None = None, keys: Keys = ()
    ) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that registers a part.

        Args:
            name: name of the part.
            capabilities: capabilities of the part; None for the defaults.
            keys: names of the part's tensors in other code, as pairs (their name, our name) or
                :class:`zoo.key_rules.Rule`. Our names start at the part; their names start at the
                block that is or holds the part, or else at the top of the network.

        Raises:
            RecipeError: if the name is taken, the class does not derive from the contract, a
                parameter is not keyword-only or has no type annotation, or a key rule is wrong. The
                registry is then unchanged.
        """

        def add(target: type[T]) -> type[T]:
            if name in self._entries:
                holder = self._entries[name].target
                raise RecipeError(
                    f"{self.kind} {name!r} is already registered by "
                    f"{holder.__module__}.{holder.__qualname__}; choose another name"
                )
            if not (isinstance(target, type) and issubclass(target, self.contract)):
                raise RecipeError(
                    f"{self.kind} {name!r} must be a class derived from "
                    f"{self.contract.__module__}.{self.contract.__qualname__}, not {target!r}"
                )
            rules = checked_rules(keys, f"{self.kind} {name!r}")
            entry = Entry(self.kind, name, target, capabilities or Capabilities(), rules)
            self._check_signature(entry)
            self._restore({**self._entries, name: entry})
            return target

        return add

    def _check_signature(self, entry: Entry[T]) -> None:
        for option, parameter in entry.options(self.supplied).items():
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                raise RecipeError(
                    f"{self.kind} {entry.name!r}: parameter {option!r} of its constructor must be "
                    f"keyword-only; the network supplies only {', '.join(self.supplied) or 'none'}"
                )
            if parameter.annotation is inspect.Parameter.empty:
                raise RecipeError(
                    f"{self.kind} {entry.name!r}: parameter {option!r} of its constructor needs a "
                    "type annotation, which recipes are checked against"
                )

    def names(self, pattern: str = "*") -> list[str]:
        """Return the sorted names that match a shell-style pattern."""
        return sorted(fnmatch.filter(self._entries, pattern))

    def entries(self) -> list[Entry[T]]:
        """Return all parts of the kind, sorted by name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def of_class(self, target: type) -> Entry[T] | None:
        """Return the part of this class, or None if the class is not registered."""
        return self._by_class.get(target)

    def get(self, name: str, path: str = "") -> Entry[T]:
        """Return the part with this name.

        Args:
            name: name of the part.
            path: place in the recipe, for the error message.

        Raises:
            RecipeError: if the name is unknown; the message suggests the nearest known name.
        """
        if name not in self._entries:
            where = f"{path}: " if path else ""
            raise RecipeError(
                f"{where}unknown {self.kind} {shown(name)}{nearest(name, self._entries)}"
            )
        return self._entries[name]


def capabilities_of(part: object) -> Capabilities:
    """Return the capabilities of a part.

    They are its attribute ``capabilities``, if it has one. Otherwise they are from the registration
    of its class, or of the nearest registered base class.
    """
    own = getattr(part, "capabilities", None)
    if isinstance(own, Capabilities):
        return own
    entry = nearest_entry(type(part))
    return Capabilities() if entry is None else entry.capabilities


def nearest_entry(target: type) -> Entry[Any] | None:
    """Return the registration of a class, or of its nearest registered base class, or None."""
    return next((entry for entry in map(entry_of, target.__mro__) if entry), None)


def entry_of(target: type) -> Entry[Any] | None:
    """Return the registration of a part's class, or None if it is not registered."""
    return next(filter(None, (registry.of_class(target) for registry in _KINDS.values())), None)


def kinds() -> dict[str, Registry[Any]]:
    """Return the registries of all kinds of part, by name."""
    for module in HOMES.values():
        importlib.import_module(module)
    return dict(sorted(_KINDS.items()))


def kind(name: str) -> Registry[Any]:
    """Return the registry of one kind.

    Raises:
        RecipeError: if the kind is unknown; the message suggests the nearest known kind.
    """
    if name in HOMES:
        importlib.import_module(HOMES[name])
    if name not in _KINDS:
        raise RecipeError(f"unknown kind of part {name!r}{nearest(name, {*HOMES, *_KINDS})}")
    return _KINDS[name]


def kind_of(contract: object) -> Registry[Any] | None:
    """Return the registry with the contract class ``contract``, or None if there is none."""
    return next((r for r in _KINDS.values() if r.contract is contract), None)


def register(kind_name: str, name: str, **options: Any) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that registers a part: ``@zoo.register("block", "mine")``.

    Args:
        kind_name: kind of the part.
        name: name of the part.
        options: ``capabilities`` and ``keys`` of the part, as for :meth:`Registry.register`.

    Raises:
        RecipeError: if the kind is unknown, or as :meth:`Registry.register` does.
    """
    return kind(kind_name).register(name, **options)


@contextmanager
def temporary_registrations() -> Iterator[None]:
    """Remove, at the end of the block, all kinds and parts that were registered in the block.

    This is for tests. A module registers its parts only when it is first imported. So import a
    module of your own before the block if its parts must stay registered. Those of the package
    are imported here.
    """
    before = {name: (registry, dict(registry._entries)) for name, registry in kinds().items()}
    try:
        yield
    finally:
        _KINDS.clear()
        for name, (registry, entries) in before.items():
            registry._restore(entries)
            _KINDS[name] = registry
