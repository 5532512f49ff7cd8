"""Passes over features in C++: what a network does between its products.

PyTorch reads and writes all features once for each elementwise operation. These functions do
several at a time, in the library of the scan (``zoo/ops/scan/csrc/zoo_passes.h``); so do their
gradients. Each returns None where it cannot run, and its caller, which defines what is computed,
then uses PyTorch.

Passes run on ordinary float32 tensors on a CPU. They do not run while a graph is traced, compiled
or exported, nor under autocast, transforms of ``torch.func`` or modes: these must see the operators
of PyTorch. ZOO_CPU_PASSES=0 in the environment switches them off.

Shape suffixes: B batch, H height, W width, C channels, k side of a kernel; "..." stands for any
number of axes.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from zoo.ops.passes import gradients, library
from zoo.ops.passes.conditions import ENVIRONMENT, may_run, needs_gradient
from zoo.ops.passes.gradients import ACTIVATIONS
from zoo.ops.passes.library import Activation, Convolution, Tokens

__all__ = [
    "ACTIVATIONS",
    "ENVIRONMENT",
    "Activation",
    "NormWeights",
    "depthwise",
    "normalised",
    "scaled_sum",
    "scaled_sum_and_norm",
]


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
    if not may_run(x_BHWC, weight_C1kk, bias_C) or x_BHWC.dim() != 4:
        return None
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
    inputs = Tokens(x, None, None, None, norm.weight, norm.bias, gate, norm.eps)
    if not _token_pass_runs(inputs):
        return None
    if needs_gradient(*inputs[:-1]):
        # Without a gate it is one pass in PyTorch, too, which records gradients with less effort.
        return None if gate is None else gradients.normalised(inputs)
    out = x.new_empty(x.shape)
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
    if needs_gradient(*inputs[:-1]):
        return gradients.summed(inputs)
    total = x.new_empty(x.shape)
    library.tokens(inputs, total, None)
    return total


def scaled_sum_and_norm(
    x: Tensor, scale_C: Tensor | None, added: Tensor, norm: NormWeights
) -> tuple[Tensor, Tensor] | None:
    """Compute ``x * scale + added`` and the norm of this sum, for x and added (..., C)."""
    inputs = Tokens(added, None, x, scale_C, norm.weight, norm.bias, None, norm.eps)
    if not _token_pass_runs(inputs):
        return None
    if needs_gradient(*inputs[:-1]):
        return gradients.summed_and_normalised(inputs)
    total, out = x.new_empty(x.shape), x.new_empty(x.shape)
    library.tokens(inputs, total, out)
    return total, out


def _token_pass_runs(inputs: Tokens) -> bool:
    x, gain, skip, *of_channels, gate, _ = inputs
    if not may_run(*inputs[:-1]) or x.dim() < 1 + (gain is not None):
        return False
    shape, channels = x.shape, x.shape[-1:]
    if gain is not None and gain.shape != (shape[0], *(1,) * (x.dim() - 2), *channels):
        return False
    fits = all(_fits(tensor, channels) for tensor in of_channels)
    return fits and _fits(skip, shape) and _fits(gate, shape)


def _fits(tensor: Tensor | None, shape: tuple[int, ...]) -> bool:
    return tensor is None or tensor.shape == shape
