"""Passes over features in C++: what a network does around its scans.

PyTorch reads and writes all features once for each operation. These functions do several at a time,
in the library of the scan (``zoo/ops/scan/csrc/zoo_passes.h``). Elementwise passes have gradients,
which are passes too. The pass over rows, which takes products and convolutions as well, has none,
nor have the gains of channel attention and what merges the directions of a scan.
Each returns None where it cannot run, and its caller, which defines what is computed, then uses
PyTorch.

Passes run on ordinary float32 tensors on a CPU. They do not run while a graph is traced, compiled
or exported, nor under transforms of ``torch.func`` or modes: these must see the operators of
PyTorch. ZOO_CPU_PASSES=0 in the environment switches them off.

Under autocast to bfloat16, passes run in inference, if the CPU has an instruction for products of
bfloat16 (AVX512_BF16) and none that is faster (AMX). Features may be bfloat16 then. The factors of
products are rounded to it, everything else is computed in float32. A pass over tokens runs if its
result is float32 in PyTorch, too. The pass over rows returns bfloat16, but sums with a skip in
float32.

Shape suffixes: B batch, H height, W width, C channels, X outputs of a product, k side of a
kernel; "..." stands for any number of axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from zoo.ops.passes import gradients, library, on_gpu, rows
from zoo.ops.passes.conditions import (
    ENVIRONMENT,
    may_run,
    needs_gradient,
    products_are_half,
)
from zoo.ops.passes.gradients import ACTIVATIONS
from zoo.ops.passes.library import Activation, Convolution, Layer, Tokens
from zoo.ops.passes.rows import (
    MOST_KERNEL,
    MOST_STAGES,
    DepthwiseStage,
    NormStage,
    ProductStage,
    Stage,
)

__all__ = [
    "ACTIVATIONS",
    "ENVIRONMENT",
    "Activation",
    "DepthwiseStage",
    "Layer",
    "NormStage",
    "NormWeights",
    "ProductStage",
    "Stage",
    "channel_gain",
    "depthwise",
    "directions_mean",
    "directions_sum",
    "gain_fits",
    "normalised",
    "scaled_sum",
    "scaled_sum_and_norm",
    "stages_fit",
    "through_rows",
    "with_mean",
]


_Inputs = TypeVar("_Inputs", bound=Tokens | Stage)

LEAST_WIDTH = 8
"""Narrower images are left to PyTorch: its products take several of their rows at once."""


class NormWeights(NamedTuple):
    """The parameters of a layer norm; weight and bias are (C), or None for one and zero."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float


def depthwise(
    x_BHWC: Tensor,
    weight_C1kk: Tensor,
    bias_C: Tensor | None,
    *,
    dilation: int,
    activation: Activation,
) -> Tensor | None:
    """Compute a depthwise convolution and its activation, (B, H, W, C), contiguous.

    Args:
        x_BHWC: features.
        weight_C1kk: an odd square kernel for each channel.
        bias_C: added to each channel, or None.
        dilation: distance of the kernel's taps in pixels; the border is padded with zeros, so that
            the size stays.
        activation: applied to the result.
    """
    if not may_run(x_BHWC, weight_C1kk, bias_C) or products_are_half() or x_BHWC.dim() != 4:
        return None  # autocast's convolution is one of bfloat16
    channels, side = x_BHWC.shape[-1], weight_C1kk.shape[-1]
    wanted = (channels, 1, side, side)
    if weight_C1kk.shape != wanted or not _fits(bias_C, (channels,)) or side % 2 == 0:
        return None
    conv = Convolution(x_BHWC, weight_C1kk, bias_C, dilation, activation)
    if needs_gradient(x_BHWC, weight_C1kk, bias_C):
        return gradients.convolved(conv)
    return library.convolved(conv)


def normalised(x: Tensor, norm: NormWeights, gate: Tensor | None = None) -> Tensor | None:
    """Compute ``norm(x)``, or ``norm(x) * silu(gate)``, for x and gate (..., C)."""
    if x.device.type == on_gpu.GPU:
        return on_gpu.normalised(x, norm.weight, norm.bias, gate, norm.eps)
    inputs = Tokens(x, None, None, None, norm.weight, norm.bias, gate, norm.eps)
    if not _token_pass_runs(inputs):
        return None
    inputs = _in_float32_but(inputs, "x")
    if needs_gradient(*inputs.tensors):
        # Without a gate it is one pass in PyTorch, too, which records gradients with less effort.
        return None if gate is None else gradients.normalised(inputs)
    out = _place_for(x)
    library.tokens(inputs, None, out)
    return out


def scaled_sum(
    x: Tensor, scale_C: Tensor | None, added: Tensor, gain: Tensor | None = None
) -> Tensor | None:
    """Compute ``x * scale + added * gain``; None leaves a factor out.

    Args:
        x: (B, ..., C).
        scale_C: a factor for each channel, or None.
        added: (B, ..., C).
        gain: a factor for each image and channel, (B, 1, ..., 1, C), or None.
    """
    inputs = Tokens(added, gain, x, scale_C)
    if not _token_pass_runs(inputs):
        return None
    inputs = _in_float32_but(inputs, "x")
    if needs_gradient(*inputs.tensors):
        return gradients.summed(inputs)
    total = _place_for(x)
    library.tokens(inputs, total, None)
    return total


def scaled_sum_and_norm(
    x: Tensor, scale_C: Tensor | None, added: Tensor, norm: NormWeights
) -> tuple[Tensor, Tensor] | None:
    """Compute ``x * scale + added`` and the norm of this sum, for x and added (..., C)."""
    inputs = Tokens(added, None, x, scale_C, norm.weight, norm.bias, None, norm.eps)
    if not _token_pass_runs(inputs):
        return None
    inputs = _in_float32_but(inputs, "x")
    if needs_gradient(*inputs.tensors):
        return gradients.summed_and_normalised(inputs)
    total, out = _place_for(x), _place_for(x)
    library.tokens(inputs, total, out)
    return total, out


def channel_gain(x: Tensor, reduce: Layer, expand: Layer) -> Tensor | None:
    """Compute ``sigmoid(expand(relu(reduce(mean))))`` from the mean token of each image.

    Args:
        x: (B, ..., C).
        reduce: layer of C inputs.
        expand: layer of C outputs.

    Returns:
        A factor for each image and channel, (B, 1, ..., 1, C).
    """
    tensors = (x, *reduce, *expand)
    if (
        not _runs_in_float32(*tensors)
        or needs_gradient(*tensors)
        or not gain_fits(x, reduce, expand)
    ):
        return None
    return library.gain(x, reduce, expand)


def with_mean(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Compute the mean token of each image for training, where x has a gradient.

    Args:
        x: (B, ..., C), with at least one token.

    Returns:
        x itself, to be used from here on, so that both gradients arrive together; and the mean
        (B, 1, ..., 1, C).
    """
    if x.dim() < 3 or not may_run(x) or not needs_gradient(x):
        return None
    return gradients.with_mean(x)


def directions_mean(y_BLKC: Tensor, norm: NormWeights) -> Tensor | None:
    """Compute the mean over tokens of a layer norm of each direction's output, (B, K, C)."""
    weight, bias, eps = norm
    if not _runs_in_float32(y_BLKC, weight, bias) or needs_gradient(y_BLKC, weight, bias):
        return None
    channels = y_BLKC.shape[-1:]
    if y_BLKC.dim() != 4 or not _fits(weight, channels) or not _fits(bias, channels):
        return None
    return library.directions_mean(y_BLKC.contiguous(), weight, bias, eps)


def directions_sum(y_BLKC: Tensor, gate_BKC: Tensor) -> Tensor | None:
    """Compute the sum over directions K of their outputs, each times its gate, (B, L, C)."""
    if not _runs_in_float32(y_BLKC, gate_BKC) or needs_gradient(y_BLKC, gate_BKC):
        return None
    if y_BLKC.dim() != 4 or gate_BKC.shape != (y_BLKC.shape[0], *y_BLKC.shape[2:]):
        return None
    return library.directions_sum(y_BLKC.contiguous(), gate_BKC.contiguous())


def gain_fits(x: Tensor, reduce: Layer, expand: Layer) -> bool:
    """Whether the shapes are those that :func:`channel_gain` describes."""
    channels, hidden = x.shape[-1], reduce.weight.shape[0]
    return (
        x.dim() >= 2
        and reduce.weight.shape == (hidden, channels)
        and expand.weight.shape == (channels, hidden)
        and _fits(reduce.bias, (hidden,))
        and _fits(expand.bias, (channels,))
    )


def through_rows(x_BHWC: Tensor, stages: Sequence[Stage]) -> tuple[Tensor, ...] | None:
    """Compute stages one after another, and return what they keep; None if it cannot run.

    The first stage is no convolution.

    Args:
        x_BHWC: the input of the first stage.
        stages: the stages.

    Returns:
        The kept channels of each stage that keeps some, (B, H, W, X - keep), contiguous.
    """
    if torch.compiler.is_compiling():
        return None  # PyTorch 2.11 cannot compile what follows
    tensors = [t for stage in stages for t in stage if isinstance(t, Tensor)]
    if not may_run(x_BHWC, *tensors) or needs_gradient(x_BHWC, *tensors):
        return None
    if x_BHWC.dim() != 4 or x_BHWC.shape[2] < LEAST_WIDTH or not stages_fit(x_BHWC, stages):
        return None
    half = products_are_half()
    if half:
        stages = [_in_float32_but(stage, "gate") for stage in stages]
    return rows.through_rows(x_BHWC, stages, half)


def _runs_in_float32(*tensors: Tensor | None) -> bool:
    """Whether a pass may run that autocast has no form of."""
    return may_run(*tensors) and not products_are_half()


def _place_for(x: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.float32)


def _in_float32_but(inputs: _Inputs, name: str) -> _Inputs:
    """The inputs in float32, but for the one that the library also reads in bfloat16.

    Under autocast, each of them may be in bfloat16.
    """
    others: dict[str, Any] = {
        field: value.float()
        for field, value in inputs._asdict().items()
        if field != name and isinstance(value, Tensor)
    }
    return cast(_Inputs, inputs._replace(**others))


def _token_pass_runs(inputs: Tokens) -> bool:
    x, gain, skip, *of_channels, gate, _ = inputs
    if not may_run(*inputs.tensors) or x.dim() < 1 + (gain is not None):
        return False
    if products_are_half() and not _is_float32_in_pytorch(inputs):
        return False
    shape, channels = x.shape, x.shape[-1:]
    if gain is not None and gain.shape != (shape[0], *(1,) * (x.dim() - 2), *channels):
        return False
    fits = all(_fits(tensor, channels) for tensor in of_channels)
    return fits and _fits(skip, shape) and _fits(gate, shape)


def _is_float32_in_pytorch(inputs: Tokens) -> bool:
    """Whether PyTorch returns float32; norms return the dtype of their input."""
    summed = (inputs.x, inputs.gain, inputs.skip, inputs.scale)
    return any(tensor is not None and tensor.dtype is torch.float32 for tensor in summed)


def _fits(tensor: Tensor | None, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is left out or has a shape; a number in its place has none."""
    return tensor is None or (isinstance(tensor, Tensor) and tensor.shape == shape)


def stages_fit(x_BHWC: Tensor, stages: Sequence[Stage]) -> bool:
    """Whether the shapes are those that the stages describe."""
    if not 1 <= len(stages) <= MOST_STAGES or isinstance(stages[0], DepthwiseStage):
        return False
    pixels, given = x_BHWC.shape[:3], x_BHWC.shape[3]
    if isinstance(stages[0], ProductStage) and stages[0].weight.shape[-1:] != (given,):
        return False
    for stage in stages:
        of_pixels: tuple[Tensor | None, ...] = ()
        of_channels: tuple[Tensor | None, ...] = (stage.bias,)
        outputs, right = given, True
        if isinstance(stage, NormStage):
            of_pixels, of_channels = (stage.gate,), (stage.weight, stage.bias)
        elif isinstance(stage, ProductStage):
            of_pixels, of_channels = (stage.skip,), (stage.bias, stage.scale)
            outputs = stage.weight.shape[0]
            right = stage.weight.dim() == 2 and stage.weight.shape[1] <= given
            right = right and (stage.skip is None or stage.activation == "none")
        else:
            outputs, side = stage.weight.shape[0], stage.weight.shape[-1]
            right = stage.weight.shape == (outputs, 1, side, side) and side % 2 == 1
            right = right and outputs <= given and stage.dilation >= 1 and side <= MOST_KERNEL
        right = right and all(_fits(t, (outputs,)) for t in of_channels)
        if not right or not all(_fits(t, (*pixels, outputs)) for t in of_pixels):
            return False
        if stage.keep is not None and not 0 <= stage.keep < outputs:
            return False
        given = outputs
    return True
