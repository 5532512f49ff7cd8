"""Limit on the size of a network, checked before any of its tensors takes memory.

A recipe may come from anyone, and one wrong number in it can ask for more memory than any computer
has. So a network is first built on the meta device, where tensors have no memory. That takes about
0.1 s for the largest published networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from zoo.errors import RecipeError
from zoo.limits import MAX_PARAMETERS, OPTION, VARIABLE, max_parameters
from zoo.schema import PartError

T = TypeVar("T", bound=nn.Module)

PARAMETERS_PER_TENSOR = 50_000
"""A network may have one tensor for each 50,000 parameters of the limit, which bounds the time."""

MAX_SCALE = 64
"""Largest scale. The output has 4,096 times the pixels of the input."""

MAX_LEVELS = 10
"""Largest number of levels. Each of them doubles the size that images are padded to."""

MAX_BLOCKS = 10_000
"""Largest sum of a list of depths."""


def build_within_limit(make: Callable[[], T]) -> T:
    """Build a network, after checking its size.

    Args:
        make: builds the network on the default device.

    Raises:
        RecipeError: if the network has more parameters than the limit, or ``make`` raises it.
    """
    if torch.get_default_device().type == "meta":
        with _NoValues(), _limited():
            return make()
    # A part of a user may fail on the meta device only. Its first tensors are then within the
    # limit, and a real error is raised again below.
    with suppress(PartError), torch.device("meta"), _NoValues(), _limited():
        make()
    return make()


def check_scale(scale: int) -> None:
    """Raise a ValueError if the scale is out of range."""
    if not 1 <= scale <= MAX_SCALE:
        raise ValueError(f"scale is {scale}; it must be from 1 to {MAX_SCALE}")


def check_levels(depths: Sequence[int]) -> None:
    """Raise a ValueError if there are so many levels that a small image is padded to a huge one."""
    if len(depths) > MAX_LEVELS:
        raise ValueError(f"depths has {len(depths)} levels; use at most {MAX_LEVELS}")


def check_depths(depths: Sequence[int], name: str = "depths") -> None:
    """Raise a ValueError if even a list of the blocks would be too long."""
    if sum(depths) > MAX_BLOCKS:
        raise ValueError(f"{name} adds up to {sum(depths):,} blocks; use at most {MAX_BLOCKS:,}")


class _NoValues(TorchFunctionMode):
    """Computes only the shapes of what sets the values of tensors, which no size depends on.

    The meta device could do it too, but PyTorch loads SymPy for it, which takes a second.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        if name in ("rand", "randn"):
            return torch.empty(*args, **kwargs)
        if name == "arange" and all(isinstance(value, int) for value in args):
            return torch.empty(len(range(*args)), dtype=kwargs.get("dtype") or torch.int64)
        if name.strip("_") not in _ELEMENTWISE:
            return func(*args, **kwargs)
        # Functions of nn.init pass their tensor on by its name.
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if not tensors:
            return func(*args, **kwargs)
        if name.endswith("_") and not name.startswith("_"):
            return tensors[0]
        # torch.broadcast_shapes loads SymPy, too.
        backwards = zip_longest(*(reversed(tensor.shape) for tensor in tensors), fillvalue=1)
        shape = [max(sizes) for sizes in backwards]
        return torch.empty(shape[::-1], dtype=tensors[0].dtype)


_ELEMENTWISE = frozenset(
    (
        *("abs", "clamp", "copy", "erfinv", "exp", "expm1", "fill", "log", "log1p", "neg", "zero"),
        *("add", "div", "mul", "pow", "rdiv", "rsub", "sub", "true_divide"),
        *("constant", "kaiming_uniform", "normal", "rand_like", "randn_like", "uniform"),
    )
)
"""Functions, and methods that change a tensor in place, whose result has the shape of the input."""


class _TooLargeError(Exception):
    """Leaves the constructors of parts; they must not take it for an error in their options."""


@contextmanager
def _limited() -> Iterator[None]:
    """Stop building a network as soon as its parameters and buffers exceed the limit."""
    limit = max_parameters()
    tensors = max(limit, MAX_PARAMETERS) // PARAMETERS_PER_TENSOR
    counted = {"parameters": 0, "bytes": 0, "tensors": 0}

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None:
            return
        size = tensor.numel()
        counted["parameters"] += size
        counted["bytes"] += size * tensor.element_size()
        counted["tensors"] += 1
        if size == 0:
            raise ValueError(
                f"{name} of {type(module).__name__} would be empty, with the shape "
                f"{tuple(tensor.shape)}; an option is 0 or rounded down to 0"
            )
        if counted["parameters"] > limit or counted["tensors"] > tensors:
            raise _TooLargeError

    hooks: list[Any] = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    except _TooLargeError:
        raise RecipeError(_too_large(counted, limit, tensors)) from None
    finally:
        for hook in hooks:
            hook.remove()


def _too_large(counted: dict[str, int], limit: int, tensors: int) -> str:
    size, most = f"{tensors:,} tensors", f"{limit:,} parameters"
    if counted["parameters"] > limit:
        size = f"{counted['parameters']:,} parameters ({counted['bytes'] / 1e9:,.1f} GB)"
    return (
        f"network: it has more than {size}, too much for the limit of {most}; check its sizes and "
        f"depths, or raise the limit with {OPTION} or {VARIABLE}"
    )
