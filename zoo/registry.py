"""One small registry per kind of part.

A *kind* (``scan``, ``block``, ``head``, ...) is a contract class together with the constructor
arguments that the surrounding network supplies. Everything else a part's constructor takes is
keyword-only and typed: the signature is the schema that recipes are checked against.

    BLOCKS = Registry("block", Block, supplied=("dim", "scan", "drop_path"))

    @BLOCKS.register("rssb")
    class RSSB(Block): ...
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from zoo.errors import RecipeError, nearest

T = TypeVar("T")

_KINDS: dict[str, Registry[Any]] = {}


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What tools need to know of a part, stated where the part is registered.

    Attributes:
        input: one image ``(B, C, H, W)`` or a burst ``(B, T, C, H, W)``.
        size_multiple: the grid the part works on, in pixels. Parts pad themselves up to it and
            crop, so any size is accepted; tiles that are multiples of it waste nothing.
        minimum_size: smallest height and width accepted, in pixels.
        dtypes: dtypes the whole part may be cast to.
    """

    input: Literal["image", "burst"] = "image"
    size_multiple: int = 1
    minimum_size: int = 1
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered part: its name, its class and what its registration states."""

    kind: str
    name: str
    target: type[T]
    capabilities: Capabilities

    @property
    def summary(self) -> str:
        """First line of the part's docstring."""
        return (inspect.getdoc(self.target) or "").partition("\n")[0]

    def options(self, supplied: tuple[str, ...] = ()) -> dict[str, inspect.Parameter]:
        """Constructor parameters a recipe may set: all but those the network supplies."""
        parameters = inspect.signature(self.target).parameters
        return {name: p for name, p in parameters.items() if name not in supplied}


@dataclass
class Registry(Generic[T]):
    """The parts of one kind, by name.

    Args:
        kind: the name of the kind, as it stands in ``zoo.list_parts(kind)``.
        contract: base class every part of the kind derives from.
        supplied: constructor arguments that the network passes and recipes may not set.

    Raises:
        RecipeError: on a duplicate name, a class outside the contract, or a constructor that is
            not a schema. The registry is left unchanged.
    """

    kind: str
    contract: type[T]
    supplied: tuple[str, ...] = ()
    _entries: dict[str, Entry[T]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _KINDS[self.kind] = self

    def register(
        self, name: str, *, capabilities: Capabilities | None = None
    ) -> Callable[[type[T]], type[T]]:
        """Class decorator that files a part under ``name``."""

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
            entry = Entry(self.kind, name, target, capabilities or Capabilities())
            self._check_signature(entry)
            self._entries[name] = entry
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
        """Sorted names that match a shell-style pattern."""
        return sorted(fnmatch.filter(self._entries, pattern))

    def entries(self) -> list[Entry[T]]:
        """All parts of the kind, sorted by name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def get(self, name: str, path: str = "") -> Entry[T]:
        """Return the part filed under ``name``.

        Raises:
            RecipeError: for an unknown name, with ``path`` and the nearest known one.
        """
        if name not in self._entries:
            where = f"{path}: " if path else ""
            raise RecipeError(f"{where}unknown {self.kind} {name!r}{nearest(name, self._entries)}")
        return self._entries[name]


def capabilities_of(part: object) -> Capabilities:
    """What a part states itself, or else the registration of its class or one it derives from."""
    own = getattr(part, "capabilities", None)
    if isinstance(own, Capabilities):
        return own
    for ancestor in type(part).__mro__:
        for registry in _KINDS.values():
            for entry in registry.entries():
                if entry.target is ancestor:
                    return entry.capabilities
    return Capabilities()


def kinds() -> dict[str, Registry[Any]]:
    """All kinds of part by name."""
    return dict(sorted(_KINDS.items()))


def kind(name: str) -> Registry[Any]:
    """The registry of one kind.

    Raises:
        RecipeError: for an unknown kind, with the nearest known one.
    """
    if name not in _KINDS:
        raise RecipeError(f"unknown kind of part {name!r}{nearest(name, _KINDS)}")
    return _KINDS[name]


def kind_of(contract: object) -> Registry[Any] | None:
    """The registry whose contract is ``contract``, or None where the class is no kind of part."""
    return next((r for r in _KINDS.values() if r.contract is contract), None)


def register(kind_name: str, name: str, **options: Any) -> Callable[[type[T]], type[T]]:
    """Class decorator for parts outside the package: ``@zoo.register("block", "mine")``."""
    return kind(kind_name).register(name, **options)


@contextmanager
def temporary_registrations() -> Iterator[None]:
    """Forget, at the end of the block, every kind and every part that was registered inside it.

    For tests. A module registers its parts only when it is first imported: import the modules whose
    parts must stay before the block.
    """
    before = {name: (registry, dict(registry._entries)) for name, registry in _KINDS.items()}
    try:
        yield
    finally:
        _KINDS.clear()
        for name, (registry, entries) in before.items():
            registry._entries.clear()
            registry._entries.update(entries)
            _KINDS[name] = registry
