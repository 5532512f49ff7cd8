"""Checking the options of recipes, and converting plain data to typed values.

The signature of a constructor is the schema. The annotation of an option determines its values:

* a number, string, flag, literal, or a sequence of one of these: a value of exactly this type;
* a contract class (``ScanOrder``): a part of that kind, which is built immediately;
* a callable that returns a contract class (``BlockFactory``): a part of that kind, which the
  network builds as often as it needs;
* a dataclass: a mapping of its fields.

A part is given as its name, or as a mapping with its name under ``type`` and its options. ``type``
may be omitted if the option has a default part.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from zoo.errors import RecipeError, nearest, shown
from zoo.registry import Entry, Registry, kind_of

T = TypeVar("T")

_PLAIN = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


class Factory(Generic[T]):
    """A part's class with checked options; each call builds a new part.

    Factories of the same class with the same options are equal.

    The network passes the supplied arguments to the call. A ValueError of the constructor becomes a
    RecipeError that gives the place in the recipe.
    """

    def __init__(self, entry: Entry[T], options: Mapping[str, Any], path: str) -> None:
        self.entry, self.options, self.path = entry, dict(options), path

    def __call__(self, *arguments: Any, **supplied: Any) -> T:
        what = f"{self.entry.kind} {self.entry.name!r}"
        return _construct(
            self.entry.target, self.path, what, *arguments, **self.options, **supplied
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Factory):
            return NotImplemented
        return self.entry == other.entry and self.options == other.options

    def __hash__(self) -> int:
        return hash((self.entry.kind, self.entry.name))

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{self.entry.kind}/{self.entry.name}({options})"


class PartError(RecipeError):
    """A constructor failed, for its options, with an error that no check foresees."""


def _construct(
    target: Callable[..., T], path: str, what: str, *arguments: Any, **options: Any
) -> T:
    try:
        return target(*arguments, **options)
    except RecipeError as error:
        # The error of a nested part already gives its place.
        if str(error).startswith(path):
            raise
        raise type(error)(f"{path}: {error}") from error
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error
    except (ArithmeticError, IndexError, MemoryError, RuntimeError, TypeError) as error:
        # Such as a size of 0 that is a divisor, or a size that no tensor can have.
        first_line = str(error).partition("\n")[0]
        reason = f"{type(error).__name__}: {first_line[:160]}"
        raise PartError(f"{path}: {what} cannot be built with these options ({reason})") from error


def resolve_part(
    registry: Registry[T], value: Any, path: str, default: str | None = None
) -> Factory[T]:
    """Check the description of a part and return a factory that builds it.

    Args:
        registry: registry of the expected kind of part.
        value: name of the part, or a mapping with ``type`` and options.
        path: place in the recipe, for error messages.
        default: name of the part if ``type`` is omitted.

    Raises:
        RecipeError: if the part or an option is unknown, or a value has the wrong type.
    """
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping):
        raise RecipeError(
            f"{path}: expected a {registry.kind}, its name or a mapping with 'type', "
            f"got {shown(value)}"
        )
    options = dict(value)
    name = options.pop("type", default)
    if not isinstance(name, str):
        known = ", ".join(registry.names())
        raise RecipeError(f"{path}: 'type' must name a {registry.kind}; known: {known}")
    entry = registry.get(name, path)
    what = f"{registry.kind} {name!r}"
    return Factory(
        entry, resolve_options(entry.target, options, path, what, registry.supplied), path
    )


def resolve_options(
    target: Callable[..., Any],
    options: Mapping[str, Any],
    path: str,
    what: str,
    supplied: Sequence[str] = (),
) -> dict[str, Any]:
    """Check ``options`` against the signature of ``target`` and convert each to its type.

    Args:
        target: a class or function with typed parameters.
        options: options as plain data.
        path: place in the recipe, for error messages.
        what: name of ``target``, for error messages.
        supplied: parameters that the caller passes itself; ``options`` must not have them.

    Returns:
        The converted options by name.

    Raises:
        RecipeError: if an option is unknown, supplied by the caller or missing, or a value has the
            wrong type.
    """
    parameters = inspect.signature(target).parameters
    constructor = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    hints = typing.get_type_hints(constructor)
    settable = [name for name in parameters if name not in supplied]
    places = {key: f"{path}.{_brief(key)}" if path else _brief(key) for key in options}
    for key, place in places.items():
        if key in supplied:
            raise RecipeError(f"{place}: the network sets this option of {what}; leave it out")
        if key not in settable:
            raise RecipeError(f"{place}: unknown option of {what}{nearest(str(key), settable)}")
    for name in settable:
        if parameters[name].default is inspect.Parameter.empty and name not in options:
            raise RecipeError(f"{path + ': ' if path else ''}{what} needs the option {name!r}")
    return {
        key: resolve(hints[key], value, places[key], parameters[key].default)
        for key, value in options.items()
    }


def _brief(key: str) -> str:
    return key if len(key) <= 60 else f"{key[:57]}..."


def resolve(annotation: Any, value: Any, path: str, default: Any = None) -> Any:
    """Check ``value`` against a type annotation and convert it; see the module's docstring.

    Args:
        annotation: the expected type.
        value: the value as plain data.
        path: place in the recipe, for error messages.
        default: default of the option; it determines the part if ``type`` is omitted.

    Raises:
        RecipeError: if the value does not have the expected type.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        arms = [arm for arm in arguments if arm is not type(None)]
        return _first_fit(arms, value, path, default)
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(map(str, arguments))
            raise RecipeError(f"{path}: expected one of {choices}, got {shown(value)}")
        return value
    if annotation in _PLAIN:
        return _plain(annotation, value, path)
    registry = kind_of(annotation)
    if registry is not None:
        return resolve_part(registry, value, path, _name_of(registry, type(default)))()
    if origin is collections.abc.Callable:
        registry = kind_of(arguments[1])
        if registry is not None:
            return resolve_part(registry, value, path, _name_of(registry, default))
    if origin in (tuple, list, collections.abc.Sequence):
        return _sequence(origin, arguments, value, path)
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, Mapping):
            raise RecipeError(f"{path}: expected a mapping, got {shown(value)}")
        return {k: resolve(arguments[1], v, f"{path}.{_brief(k)}") for k, v in value.items()}
    if dataclasses.is_dataclass(annotation):
        if not isinstance(value, Mapping):
            names = [field.name for field in dataclasses.fields(annotation) if field.init]
            typed = "type" in names and isinstance(value, str)
            meant = f"; did you mean {path}.type={value}?" if typed else ""
            raise RecipeError(
                f"{path}: expected a mapping of {', '.join(names)}, got {shown(value)}{meant}"
            )
        what = path.rpartition(".")[2] or "a recipe"
        options = resolve_options(annotation, value, path, what)  # type: ignore[arg-type]
        return _construct(annotation, path, what, **options)  # type: ignore[arg-type]
    raise TypeError(f"{path}: no rule for the annotation {annotation!r}")


def _plain(annotation: type, value: Any, path: str) -> Any:
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool)):
        return value
    raise RecipeError(
        f"{path}: expected {_PLAIN[annotation]}, got {shown(value)} ({type(value).__name__})"
    )


def _sequence(origin: Any, arguments: tuple[Any, ...], value: Any, path: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise RecipeError(f"{path}: expected a list, got {shown(value)}")
    fixed = origin is tuple and Ellipsis not in arguments
    if fixed and len(value) != len(arguments):
        raise RecipeError(f"{path}: expected {len(arguments)} values, got {len(value)}")
    items = [
        resolve(arguments[i] if fixed else arguments[0], item, f"{path}[{i}]")
        for i, item in enumerate(value)
    ]
    return items if origin is list else tuple(items)


def _first_fit(arms: Sequence[Any], value: Any, path: str, default: Any) -> Any:
    errors = []
    for arm in arms:
        try:
            return resolve(arm, value, path, default)
        except RecipeError as error:
            errors.append(error)
    # Report the error of the type that matched furthest: probably the user meant this one.
    raise max(errors, key=lambda error: len(str(error).partition(": ")[0]))


def _name_of(registry: Registry[Any], target: Any) -> str | None:
    return next((e.name for e in registry.entries() if e.target is target), None)


def at_least(
    settings: object, smallest: float, *names: str, most: float = sys.float_info.max
) -> None:
    """Check that attributes of a settings object are numbers in a range.

    Args:
        settings: the object.
        smallest: smallest value.
        names: the attributes; one that is None is not checked.
        most: largest value.

    Raises:
        RecipeError: if an attribute is out of range or not finite; the message names the first one.
    """
    for name in names:
        value = getattr(settings, name)
        if value is None or smallest <= value <= most:
            continue
        # An infinite value is above the largest one, and NaN is neither above nor below.
        wanted = f"at most {most:g}" if value > most else f"at least {smallest}"
        raise RecipeError(f"{name} is {shown(value)}; it must be {wanted}")
