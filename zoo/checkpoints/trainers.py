"""The tensors of one network among all that a trainer has saved.

Trainers put the tensors of a network below a path of names: entries of the file (``params``,
``state_dict``, ``ema``), modules that hold the network (``module.``, ``net_g.``, ``generator.``),
or both. Other tensors may be beside them: another network, a loss, the state of an optimiser. So
the names of a file are joined to paths, and the network is where its own names are found. The names
above it need not be known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from numpy import ndarray
from torch import Tensor, nn

from zoo.checkpoints.averages import COUNTERS, names_average, never_averaged, plain_name
from zoo.errors import CheckpointError, shown

State = dict[str, Tensor]

DEEPEST = 4
"""Names above a network, such as ``state_dict``, ``model`` and ``module``."""

MOST_TENSORS = 10_000
"""Tensors in a file; the largest published network has 1,532."""

MOST_PLACES = 8
"""Places of a network at which averaged weights without dots are looked for."""

MOST_ENTRIES = 100_000
"""Entries in all mappings of a file; one that is in it twice counts twice."""

USUAL = (
    *("params", "state_dict", "model_state_dict", "model", "net_g", "netG", "generator", "net"),
    *("network", "g", "gen", "weights", "module"),
)
"""Usual names above a network. If there are several, an earlier one is preferred."""

COUNTED = {"total_ops", "total_params"}
"""Buffers that THOP adds to each module when it counts operations, and that stay in its files."""

_TRANSPARENT = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
"""Modules of PyTorch that hold another one and have no name of their own."""


class Found(NamedTuple):
    """The tensors of a network.

    Attributes:
        state: the tensors, by their names in the network.
        place: the names above them, such as ``state_dict.net_g.``; empty if there are none.
        averaged: whether they are a moving average.
        others: other places where the network was found.
        notes: what is to be said of averages that were not taken, or are none yet.
    """

    state: State
    place: str = ""
    averaged: bool = False
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def bare_name(name: str) -> str:
    """Return the name of a tensor or a module without what PyTorch adds for its own modules."""
    return _TRANSPARENT.sub("", f"{name}.")[:-1]


def named_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each module of a network, itself included, with its :func:`bare_name`."""
    for name, module in network.named_modules():
        yield bare_name(name), module


def joined(content: Any, what: str) -> State:
    """Return all tensors with names in nested mappings, by their joined names.

    Names that PyTorch adds for ``torch.compile``, FSDP and checkpointing are left out.

    Args:
        content: mappings of mappings and tensors; all else in them is left aside.
        what: name of the file, for error messages.

    Raises:
        CheckpointError: if there is no tensor, there are too many, or two have one name.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{what}: contains {type(content).__name__}, not a state dict")
    if not content:
        raise CheckpointError(f"{what}: is empty; it holds no tensor of a network")
    state: State = {}
    entries = 0
    for key, value in _entries(content):
        entries += 1
        if entries > MOST_ENTRIES:
            raise CheckpointError(f"{what}: has too many entries; it is no weights file")
        tensor = _tensor_of(key, value)
        if tensor is None:
            continue
        name = bare_name(key)
        if name.rpartition(".")[2] in COUNTED:
            continue
        if name in state:
            raise CheckpointError(f"{what}: has {shown(name)} twice; remove one of the two")
        state[name] = tensor
    if len(state) > MOST_TENSORS:
        raise CheckpointError(too_many_tensors(what, len(state)))
    if not state:
        first = next(iter(content))
        array = next((key for key, value in _entries(content) if isinstance(value, ndarray)), "")
        if array:
            raise CheckpointError(
                f"{what}: {shown(array)} is a NumPy array; make tensors of the arrays with "
                "torch.from_numpy"
            )
        name = shown(first) if isinstance(first, str) else f"with a key of {type(first).__name__}"
        raise CheckpointError(
            f"{what}: not a state dict: entry {name} is not a tensor with a name, and no entry "
            "holds such tensors"
        )
    return state


def too_many_tensors(what: str, count: int) -> str:
    """Return the message of a file with more tensors than any network has."""
    return f"{what}: has {count:,} tensors, more than {MOST_TENSORS:,}; it is no weights file"


def holds_tensors(content: Mapping[Any, Any]) -> bool:
    """Return whether there is a tensor with a name in nested mappings."""
    return any(name and isinstance(value, Tensor) for name, value in _entries(content))


def _tensor_of(key: str, value: Any) -> Tensor | None:
    """Return an entry with a name if it is a tensor, or a number that counts averages."""
    if key.rpartition(".")[2] in COUNTERS and isinstance(value, int):
        return torch.tensor(bool(value))  # all that counts is whether it is 0
    return value if key and isinstance(value, Tensor) else None


def _entries(
    content: Mapping[Any, Any], above: str = "", deeper: int = DEEPEST
) -> Iterator[tuple[str, Any]]:
    """Yield each entry of nested mappings with its joined name, which is empty if it has none."""
    for key, value in content.items():
        name = f"{above}{key}" if isinstance(key, str) else ""
        yield name, value
        if name and deeper and isinstance(value, Mapping):
            yield from _entries(value, f"{name}.", deeper - 1)


def network_in(state: State, fits: Callable[[State], bool], what: str) -> Found | None:
    """Find the tensors of a network; a moving average of its weights is preferred.

    Args:
        state: tensors by their joined names.
        fits: whether tensors are those of the network.
        what: name of the file, for error messages.

    Returns:
        The tensors, or None if they are nowhere.

    Raises:
        CheckpointError: if they are at several places, and none of them has a usual name.
    """
    places = dict(_places(state))
    found = {place: tensors for place, tensors in places.items() if fits(tensors)}
    averages = [p for p, t in places.items() if t and p not in found and names_average(p, state)]
    for plain in list(found)[:MOST_PLACES]:
        for place in averages:
            restored = _with_dots(places[place], plain, found[plain])
            if restored is not None:
                found[place] = restored
    if not found:
        return None
    first, *others = sorted(found, key=lambda place: _rank(place, state))
    if others and _rank(first, state) == _rank(others[0], state):
        names = " and ".join(shown(place.rstrip(".")) for place in (first, others[0]))
        raise CheckpointError(
            f"{what}: has the network twice, below {names}; pass the state dict of one of them to "
            "zoo.load"
        )
    tensors = {key: tensor for key, tensor in found[first].items() if key not in COUNTERS}
    averaged = _is_average(first, state)
    notes = [_not_yet(place) for place in found if _is_stale(place, state)]
    if not averaged:
        notes += _incomplete({place: places[place] for place in averages}, tensors)
    return Found(tensors, first, averaged, tuple(others), tuple(notes))


def _not_yet(place: str) -> str:
    return f"the moving average below {shown(place.rstrip('.'))} has averaged no weights yet"


def _incomplete(averages: Mapping[str, State], taken: State) -> list[str]:
    """Return what is to be said of averages of a network that lack most of its tensors."""
    for place, tensors in averages.items():
        lacking = len(taken.keys() - tensors.keys())
        if 0 < lacking < len(taken):
            return [
                f"the moving average below {shown(place.rstrip('.'))} is not used, because it "
                f"lacks {lacking} of {len(taken)} tensors"
            ]
    return []


def without_usual_names(state: State) -> State:
    """Take off the usual names that are above all tensors, so that messages name the tensors."""
    first = next(iter(state), "")
    for name in first.split(".")[:-1]:
        if name not in USUAL and plain_name(name) is None:
            break
        if not all(key.startswith(f"{name}.") for key in state):
            break
        state = {key[len(name) + 1 :]: tensor for key, tensor in state.items()}
    return state


def _places(state: State) -> Iterator[tuple[str, State]]:
    """Yield each place with the tensors below it, from the top down."""
    level = {"": state}
    for _ in range(DEEPEST + 1):
        yield from level.items()
        deeper: dict[str, State] = {}
        for place, tensors in level.items():
            for key, tensor in tensors.items():
                name, dot, rest = key.partition(".")
                if dot:
                    deeper.setdefault(f"{place}{name}.", {})[rest] = tensor
        level = deeper


def _rank(place: str, state: State) -> tuple[bool, bool, int, list[int]]:
    """Return how far a place is from the preferred one."""
    names = [_without_average(name) for name in place.split(".") if name]
    known = [USUAL.index(name) if name in USUAL else -1 for name in names if name]
    return _is_stale(place, state), not _is_average(place, state), known.count(-1), known


def _without_average(name: str) -> str:
    plain = plain_name(name)
    return name if plain is None else plain


def _is_average(place: str, state: State) -> bool:
    return names_average(place, state) and not never_averaged(place, state)


def _is_stale(place: str, state: State) -> bool:
    """Return whether a place is that of an average which is still what it was at the start."""
    return names_average(place, state) and never_averaged(place, state)


def _with_dots(average: State, place: str, plain: State) -> State | None:
    """Return averaged weights whose names have lost their dots, by the names of the plain ones.

    Such names, ``conv_firstweight`` for ``conv_first.weight``, are those of buffers of a module,
    which may not have dots. What is not averaged is taken from the plain weights.

    Args:
        average: tensors that may be the averaged weights.
        place: the names above the plain weights; the last of them may be in the dotless names.
        plain: the plain weights.
    """
    above = place.split(".")[:-1]
    for depth in range(len(above) + 1):
        tail = "".join(above[len(above) - depth :])
        names = {tail + key.replace(".", ""): key for key in plain if "." in key}
        if any(name in average for name in names):
            return {**plain, **{key: average[n] for n, key in names.items() if n in average}}
    return None
