"""Moving averages of weights in the files of trainers: how they are named, and if they are ready.

A place is the names above the tensors of a network, such as ``state_dict.net_g.``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_WORDS = {"ema", "swa", "average", "averaged", "avg", "polyak"}
"""Words of names of averages: ``params_ema``, ``modelEMA``, ``swa_state_dict``."""

_DENIALS = {"no", "non", "not", "without", "wo", "pre", "before"}
"""Words before these that say the opposite: ``params_without_ema``."""

_SHADOW = {"shadow", "model", "state", "dict", "params", "parameters", "weights", "variables"}
"""All words of a name in which "shadow" means an average; networks also remove shadows."""

_COUNTER = "n_averaged"
"""Name that ``torch.optim.swa_utils.AveragedModel`` has beside the averaged weights."""

COUNTERS = (_COUNTER, "num_updates", "initted")
"""Names of numbers that are 0 until weights were averaged: PyTorch's, LitEma's, ema-pytorch's."""


def plain_name(name: str) -> str | None:
    """Return a name without its words for an average, or None if it names no average.

    Args:
        name: one of the names above tensors, such as ``params_ema``.

    Returns:
        The other words in lower case, such as ``params``.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if "shadow" in words and _SHADOW.issuperset(words):
        return "_".join(word for word in words if word != "shadow")
    text = "_".join("average" if word in _WORDS else word for word in words)
    kept = f"_{text}_".replace("_mean_teacher_", "_average_").split("_")[1:-1]
    if "average" not in kept or _DENIALS.intersection(kept[: kept.index("average")][-1:]):
        return None
    return "_".join(word for word in kept if word != "average")


def names_average(place: str, state: Mapping[str, Tensor]) -> bool:
    """Return whether the names of a place, or a counter beside them, tell of averaged weights."""
    named = any(plain_name(name) is not None for name in place.split("."))
    return named or any(f"{level}{_COUNTER}" in state for level in _levels(place))


def never_averaged(place: str, state: Mapping[str, Tensor]) -> bool:
    """Return whether a counter in or above an average says that no weights were averaged yet."""
    counters = [state.get(f"{level}{name}") for level in _levels(place) for name in COUNTERS]
    counters.append(state.get(f"{_levels(place)[-2]}step") if place else None)
    return any(count is not None and count.numel() == 1 and not count for count in counters)


def _levels(place: str) -> list[str]:
    names = place.split(".")[:-1]
    return ["".join(f"{name}." for name in names[:depth]) for depth in range(len(names) + 1)]


def averages_without_names(content: Any, deepest: int, above: str = "") -> Iterator[str]:
    """Yield where averages are lists of tensors, which do not say to which names they belong.

    Args:
        content: nested mappings that hold tensors.
        deepest: largest number of names above a list.
        above: names above the content.
    """
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if not isinstance(key, str):
            continue
        if isinstance(value, (list, tuple)):
            named = names_average(f"{above}{key}.", {})
            if named and any(isinstance(item, Tensor) and item.dim() > 1 for item in value):
                yield f"{above}{key}"
        elif deepest:
            yield from averages_without_names(value, deepest - 1, f"{above}{key}.")
