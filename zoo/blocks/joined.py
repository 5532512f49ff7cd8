"""Layers that follow one another, in one pass where nothing is traced or watched.

Each function computes what its first line says. On a CPU it does so in one pass
(:mod:`zoo.ops.passes`), if the layers are ordinary ones without hooks.

Shape suffixes: B batch, H height, W width, C channels, L tokens (H * W), K directions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from zoo.blocks.contract import Branch, GainedBranch
from zoo.blocks.layers import Conv2d, DropPath
from zoo.blocks.norm import LayerNorm
from zoo.ops import passes


def activated(conv: nn.Module, x_BHWC: Tensor, activation: passes.Activation) -> Tensor:
    """``activation(conv(x))``."""
    if type(conv) is Conv2d and is_plain(conv):
        return conv.activated(x_BHWC, activation)
    return passes.ACTIVATIONS[activation](conv(x_BHWC))


def gated_norm(norm: nn.Module, y_BHWC: Tensor, gate_BHWC: Tensor) -> Tensor:
    """``norm(y) * silu(gate)``."""
    if type(norm) is LayerNorm and is_plain(norm):
        out_BHWC = passes.normalised(y_BHWC, norm.weights, gate_BHWC)
        if out_BHWC is not None:
            return out_BHWC
    return norm(y_BHWC) * F.silu(gate_BHWC)


def first_outputs(layer: nn.Module, x: Tensor, count: int) -> Tensor:
    """``layer(x)[..., :count]``; of an ordinary linear layer, the others are not computed."""
    if type(layer) is nn.Linear and is_plain(layer):
        bias = None if layer.bias is None else layer.bias[:count]
        return F.linear(x, layer.weight[:count], bias)
    y: Tensor = layer(x)
    return y[..., :count]


def in_a_row(layers: Iterable[nn.Module], x_BHWC: Tensor) -> Tensor:
    """``layers[-1](... layers[0](x))``."""
    rest = deque(layers)
    while rest:
        layer = rest.popleft()
        if rest and is_plain_gelu(rest[0]):
            rest.popleft()
            x_BHWC = activated(layer, x_BHWC, "gelu")
        else:
            x_BHWC = layer(x_BHWC)
    return x_BHWC


def factors(branch: Branch, x_BHWC: Tensor) -> tuple[Tensor, Tensor | None]:
    """``branch(x)`` as features (B, H, W, C) and a gain (B, 1, 1, C) on them, or None."""
    if has_factors(branch):
        return branch.factors(x_BHWC)
    return branch(x_BHWC), None


def has_factors(branch: nn.Module | None) -> TypeGuard[GainedBranch]:
    """Whether calling the branch runs nothing but its ``factors``."""
    if not isinstance(branch, GainedBranch) or type(branch).forward is not GainedBranch.forward:
        return False
    return is_plain(branch)


def tells_its_layers(branch: nn.Module | None) -> TypeGuard[GainedBranch]:
    """Whether the features of the branch are ``gained`` of what its ``before_gain`` computes.

    A class that replaces ``factors`` alone may compute others.
    """
    if not has_factors(branch):
        return False
    family = type(branch).__mro__
    factors, layers = (
        next(place for place, kind in enumerate(family) if name in vars(kind))
        for name in ("factors", "before_gain")
    )
    return layers <= factors


def scaled_sum(
    x_BHWC: Tensor,
    scale_C: Tensor | None,
    added_BHWC: Tensor,
    gain_B11C: Tensor | None = None,
) -> Tensor:
    """``x * scale + added * gain``; None leaves a factor out."""
    total_BHWC = passes.scaled_sum(x_BHWC, scale_C, added_BHWC, gain_B11C)
    if total_BHWC is not None:
        return total_BHWC
    kept_BHWC = x_BHWC if scale_C is None else x_BHWC * scale_C
    return kept_BHWC + (added_BHWC if gain_B11C is None else added_BHWC * gain_B11C)


def scaled_sum_and_norm(
    x_BHWC: Tensor, scale_C: Tensor | None, added_BHWC: Tensor, norm: nn.Module
) -> tuple[Tensor, Tensor]:
    """``x * scale + added``, and the norm of this sum."""
    if type(norm) is LayerNorm and is_plain(norm):
        both = passes.scaled_sum_and_norm(x_BHWC, scale_C, added_BHWC, norm.weights)
        if both is not None:
            return both
    total_BHWC = scaled_sum(x_BHWC, scale_C, added_BHWC)
    return total_BHWC, norm(total_BHWC)


def mean_of_norm(norm: nn.LayerNorm, y_BLKC: Tensor) -> Tensor:
    """``norm(y).mean(1)``, for the outputs of K directions: (B, K, C)."""
    if type(norm) is nn.LayerNorm and is_plain(norm) and len(norm.normalized_shape) == 1:
        weights = passes.NormWeights(norm.weight, norm.bias, norm.eps)
        mean_BKC = passes.directions_mean(y_BLKC, weights)
        if mean_BKC is not None:
            return mean_BKC
    normed_BLKC: Tensor = norm(y_BLKC)
    return normed_BLKC.mean(1)


def gated_sum(y_BLKC: Tensor, gate_BKC: Tensor) -> Tensor:
    """``(y * gate).sum(2)``, for the outputs of K directions: (B, L, C)."""
    total_BLC = passes.directions_sum(y_BLKC, gate_BKC)
    return (y_BLKC * gate_BKC[:, None]).sum(2) if total_BLC is None else total_BLC


_FORWARDS: dict[type[nn.Module], Callable[..., Any]] = {
    kind: kind.forward
    for kind in (nn.Linear, nn.LayerNorm, nn.GELU, nn.Identity, Conv2d, LayerNorm, DropPath)
}
"""What layers compute as they are defined; others may replace it in the class."""


def is_plain(module: nn.Module) -> bool:
    """Whether calling the module runs nothing but its ``forward``, as its class defines it."""
    kind = type(module)
    return kind.forward is _FORWARDS.get(kind, kind.forward) and not (
        "forward" in module.__dict__  # replaced in this one module
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or has_global_hooks()
    )


def has_global_hooks() -> bool:
    """Whether hooks of all modules are registered."""
    return bool(
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )


class Methods:
    """The methods of a class as they are defined; others may replace them, for one module or all.

    Args:
        kind: the class.
        names: the methods that calling a module runs, beside ``forward``.
    """

    def __init__(self, kind: type[nn.Module], *names: str) -> None:
        self.kind = kind
        self.found = {name: getattr(kind, name) for name in ("forward", *names)}

    def are_those_of(self, module: nn.Module) -> bool:
        """Whether the module is of this very class, and calling it runs nothing else."""
        kind, own = self.kind, module.__dict__
        return (
            type(module) is kind
            and is_plain(module)
            and all(
                name not in own and getattr(kind, name) is method
                for name, method in self.found.items()
            )
        )


def drops_nothing(drops: nn.Module) -> bool:
    """Whether the module is a drop path that returns what it gets now, and runs nothing else."""
    return type(drops) is DropPath and is_plain(drops) and not drops.is_active()


def is_plain_gelu(module: nn.Module) -> bool:
    """Whether the module is the exact GELU, and calling it runs nothing else."""
    return type(module) is nn.GELU and module.approximate == "none" and is_plain(module)
