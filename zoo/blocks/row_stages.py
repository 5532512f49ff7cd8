"""Layers as stages of a pass over rows, where that computes just what calling them would.

See :func:`zoo.ops.passes.through_rows`. Each function returns None for a layer of another kind or
one with hooks: its caller then calls the layers.

Shape suffixes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from torch import Tensor, nn

from zoo.blocks.joined import is_plain, is_plain_gelu
from zoo.blocks.layers import Conv2d
from zoo.blocks.norm import LayerNorm
from zoo.ops.passes import Activation, DepthwiseStage, NormStage, ProductStage, Stage


def norm_stage(norm: nn.Module, gate_BHWC: Tensor | None = None) -> NormStage | None:
    """``norm(v) * silu(gate)``, or without a gate ``norm(v)``."""
    if not isinstance(norm, nn.LayerNorm) or not is_plain(norm):
        return None
    if type(norm) not in (LayerNorm, nn.LayerNorm) or len(norm.normalized_shape) != 1:
        return None
    return NormStage(norm.weight, norm.bias, norm.eps, gate_BHWC)


def product_stage(layer: nn.Module, activation: Activation = "none") -> ProductStage | None:
    """A linear layer or a convolution of single pixels, and its activation."""
    if not is_plain(layer):
        return None
    if type(layer) is nn.Linear:
        return ProductStage(layer.weight, layer.bias, activation=activation)
    if type(layer) is Conv2d and layer.is_of_pixels():
        return ProductStage(layer.weight.flatten(1), layer.bias, activation=activation)
    return None


def depthwise_stage(layer: nn.Module, activation: Activation) -> DepthwiseStage | None:
    """A depthwise convolution and its activation."""
    if type(layer) is not Conv2d or not is_plain(layer) or not layer.is_a_pass():
        return None
    return DepthwiseStage(layer.weight, layer.bias, layer.dilation[0], activation)


def stages_of(layers: Iterable[nn.Module]) -> list[Stage] | None:
    """Norms, products and depthwise convolutions, the latter two perhaps with GELU, in a row."""
    rest, stages = deque(layers), []
    while rest:
        layer = rest.popleft()
        stage: Stage | None = norm_stage(layer)
        if stage is None:
            joins = bool(rest) and is_plain_gelu(rest[0])
            activation: Activation = "gelu" if joins else "none"
            stage = product_stage(layer, activation) or depthwise_stage(layer, activation)
            if joins:
                rest.popleft()
        if stage is None:
            return None
        stages.append(stage)
    return stages
