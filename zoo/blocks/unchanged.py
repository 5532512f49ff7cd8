"""Whether modules are still as they were, so that what was found out about them holds.

What a module computes depends on its class, the ``forward`` there, its attributes, its parts, its
hooks and the memory of its parameters. All of these may be changed at any time; comparing them
takes a fraction of the time of looking at each layer again. Values of parameters may change:
whoever uses this reads them anew.
"""

from __future__ import annotations

from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.blocks.joined import has_global_hooks


class _Known(NamedTuple):
    """A module, its class, its attributes and its own parameters."""

    module: nn.Module
    kind: type[nn.Module]
    attributes: dict[str, Any]
    parameters: list[Tensor | None]


class Unchanged:
    """Remembers a module and all modules in it.

    Args:
        module: the module; calling it must run nothing but what its classes define.
    """

    def __init__(self, module: nn.Module) -> None:
        self._known = [_known(each) for each in module.modules()]
        self._memory = [(p, _memory(p)) for p in module.parameters()]
        self._forwards = [(kind, kind.forward) for kind in {type(m) for m in module.modules()}]

    def holds(self) -> bool:
        """Whether everything is as it was, but for the values of parameters."""
        if has_global_hooks():
            return False
        if any(kind.forward is not forward for kind, forward in self._forwards):
            return False
        for module, kind, attributes, parameters in self._known:
            if module.__class__ is not kind:
                return False
            own = attributes["_parameters"]
            if len(own) != len(parameters) or not all(map(is_, own.values(), parameters)):
                return False
            try:
                if module.__dict__ != attributes:
                    return False
            except (RuntimeError, ValueError):  # of a comparison of tensors or arrays
                return False
        for parameter, memory in self._memory:  # noqa: SIM110 - faster than all()
            if _memory(parameter) != memory:
                return False
        return True

    def needs_gradient(self) -> bool:
        """Whether gradients of a parameter are recorded now."""
        return torch.is_grad_enabled() and any(p.requires_grad for p, _ in self._memory)


def _known(module: nn.Module) -> _Known:
    attributes = {
        # Parameters are compared by identity: equal ones may lie in other memory.
        name: value.copy() if isinstance(value, dict) and name != "_parameters" else value
        for name, value in vars(module).items()
    }
    return _Known(module, type(module), attributes, list(module._parameters.values()))


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """Where and how the values of a tensor lie; nothing if it has no memory, as sparse ones."""
    try:
        return (
            tensor.data_ptr(),
            tensor.untyped_storage().nbytes(),
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
            tensor.is_neg(),
        )
    except (RuntimeError, ValueError):
        return ()
