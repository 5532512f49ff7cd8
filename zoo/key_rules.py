"""Rules that rename the tensors of a part between its authors' code and ours.

A user registers them beside a part: ``@zoo.register("block", "mine", keys=[("conv1.{rest}",
"conv.{rest}")])``. The key maps of the official releases consist of them, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from zoo.errors import RecipeError, shown

if TYPE_CHECKING:  # parts are listed without torch
    from torch import Tensor

FIELD = re.compile(r"\{([a-z]\w*)\}")


def flat(tensor: Tensor) -> Tensor:
    """Join the first two axes: the authors have one axis for directions and channels."""
    return tensor.flatten(0, 1).clone()


def kernel(tensor: Tensor) -> Tensor:
    """Add two axes: the authors have the kernel of a 1x1 convolution, and we have a matrix."""
    return tensor[..., None, None]


class Rule(NamedTuple):
    """Two names of the same tensor; a field such as ``{i}`` is the same text in both names.

    A field whose name ends in "rest" stands for any text, every other field for a number.

    Attributes:
        theirs: the authors' name.
        ours: our name.
        shape: turns our tensor into the authors' shape, such as :func:`flat`; None if it has that
            shape. The other way needs no function, because the values are in the same order.
    """

    theirs: str
    ours: str
    shape: Callable[[Tensor], Tensor] | None = None


Keys: TypeAlias = Iterable[tuple[Any, ...]]
"""Rules as a user gives them: :class:`Rule`, or tuples of its two or three values."""


def checked_rules(keys: Keys, what: str) -> tuple[Rule, ...]:
    """Return rules that a user has given, after checking them.

    Args:
        keys: the rules.
        what: whose rules they are, for error messages.

    Raises:
        RecipeError: if one is not a pair of names with the same fields, each of them once, with a
            function as its third value if it has one.
    """
    if not isinstance(keys, Iterable):
        raise RecipeError(
            f"{what}: keys is {shown(keys)}; give a list of pairs of names (theirs, ours)"
        )
    return tuple(_checked(rule, what) for rule in keys)


def _checked(rule: Any, what: str) -> Rule:
    names = tuple(rule[:2]) if isinstance(rule, (tuple, list)) and len(rule) in (2, 3) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise RecipeError(
            f"{what}: the key rule {shown(rule)} is not a pair of names (theirs, ours), such as "
            "('conv1.{rest}', 'conv.{rest}')"
        )
    fields = [sorted(FIELD.findall(name)) for name in names]
    stray = any(brace in FIELD.sub("", name) for name in names for brace in "{}")
    if stray or fields[0] != fields[1] or len(set(fields[0])) != len(fields[0]):
        raise RecipeError(
            f"{what}: the names of the key rule {shown(names)} must have the same fields, such as "
            "{i} or {rest}, each of them once"
        )
    if len(rule) == 3 and rule[2] is not None and not callable(rule[2]):
        raise RecipeError(
            f"{what}: the third value of the key rule {shown(names)} is {shown(rule[2])}; it must "
            "be a function of a tensor, such as zoo.checkpoints.flat"
        )
    return Rule(*rule)
