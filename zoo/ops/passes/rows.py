"""Calls of the pass over rows in the C++ library, on tensors that have been checked.

PyTorch writes what each layer computes to memory and reads it again for the next one. Here each row
of an image goes through all layers while it is in the cache; only what is kept is written.

Shape suffixes: B batch, H height, W width, C channels of a token, X outputs, k side of a kernel.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from zoo.ops.passes import library
from zoo.ops.passes.library import (
    ACTIVATION_NUMBERS,
    DTYPE_NUMBERS,
    Activation,
    address,
    dense_rows,
)


class NormStage(NamedTuple):
    """A layer norm, times ``silu(gate)``.

    Attributes:
        weight: (C), or None for 1.
        bias: (C), or None for 0.
        eps: added to the variance.
        gate: (B, H, W, C), or None for no factor.
        keep: the first channel that is returned; None to return nothing.
    """

    weight: Tensor | None
    bias: Tensor | None
    eps: float
    gate: Tensor | None = None
    keep: int | None = None


class ProductStage(NamedTuple):
    """``weight v + bias + skip * scale``, or without a skip ``activation(weight v + bias)``.

    Attributes:
        weight: (X, C), where C may be less than the channels that the stage before it computes.
        bias: (X), or None for 0.
        skip: (B, H, W, X), or None for 0.
        scale: (X), or None for 1.
        keep: the first channel that is returned; None to return nothing.
        activation: applied to the result.
    """

    weight: Tensor
    bias: Tensor | None = None
    skip: Tensor | None = None
    scale: Tensor | None = None
    keep: int | None = None
    activation: Activation = "none"


class DepthwiseStage(NamedTuple):
    """A depthwise convolution and its activation; the border is padded with zeros.

    Attributes:
        weight: (C, 1, k, k), k odd; C may be less than the channels before it.
        bias: (C), or None for 0.
        dilation: distance of the kernel's taps in pixels.
        activation: applied to the result.
        keep: the first channel that is returned; None to return nothing.
    """

    weight: Tensor
    bias: Tensor | None
    dilation: int
    activation: Activation
    keep: int | None = None


Stage: TypeAlias = NormStage | ProductStage | DepthwiseStage

MOST_STAGES = 8
"""Limit of ``csrc/zoo_passes.h``."""
MOST_KERNEL = 63
"""The same for the side of a convolution's kernel."""


class ZooStage(ctypes.Structure):
    """The structure of csrc/zoo_passes.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "activation")),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "kernel", "dilation")),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "gate", "skip", "scale")),
        *((name, ctypes.c_int64) for name in ("gate_stride", "skip_stride", "first")),
        ("out", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("gate_dtype", "out_dtype")),
    )


class ZooRows(ctypes.Structure):
    """The structure of csrc/zoo_passes.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "height", "width")),
        ("x", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64),
        ("x_dtype", ctypes.c_int32),
        ("count", ctypes.c_int64),
        ("stages", ctypes.c_void_p),
        ("half", ctypes.c_int32),
    )


class Described(NamedTuple):
    """Stages for the library, without the places that their kept channels go to.

    Attributes:
        stages: the structures.
        kept: the stages that return channels: their place among all, and how many channels.
        tensors: what must stay alive as long as the structures are used.
    """

    stages: ctypes.Array[ZooStage]
    kept: list[tuple[int, int]]
    tensors: list[Tensor | None]


def described(channels: int, stages: Sequence[Stage]) -> Described:
    """Describe stages whose first one gets so many channels."""
    places, kept = (ZooStage * len(stages))(), []
    tensors: list[Tensor | None] = []
    for index, (place, stage) in enumerate(zip(places, stages, strict=True)):
        weight = None if stage.weight is None else stage.weight.contiguous()
        bias = None if stage.bias is None else stage.bias.contiguous()
        place.inputs = place.outputs = channels
        place.kernel = place.dilation = 1
        tensors += (weight, bias)
        if isinstance(stage, NormStage):
            place.kind, place.eps = 0, stage.eps
            if stage.gate is not None:
                gate = _tokens(stage.gate)
                place.gate, place.gate_stride = gate.data_ptr(), gate.stride(0)
                place.gate_dtype = DTYPE_NUMBERS[gate.dtype]
                tensors.append(gate)
        elif isinstance(stage, ProductStage):
            place.kind, (place.outputs, place.inputs) = 1, stage.weight.shape
            place.activation = ACTIVATION_NUMBERS[stage.activation]
            if stage.skip is not None:
                skip = _tokens(stage.skip)
                place.skip, place.skip_stride = skip.data_ptr(), skip.stride(0)
                tensors.append(skip)
            scale = None if stage.scale is None else stage.scale.contiguous()
            # Without a skip there is nothing to scale.
            place.scale = address(scale) if stage.skip is not None else None
            tensors.append(scale)
        else:
            place.kind, place.inputs = 2, stage.weight.shape[0]
            place.outputs, place.kernel = place.inputs, stage.weight.shape[-1]
            place.dilation, place.activation = stage.dilation, ACTIVATION_NUMBERS[stage.activation]
        place.weight, place.bias = address(weight), address(bias)
        channels = place.outputs
        if stage.keep is not None:
            place.first = stage.keep
            kept.append((index, channels - stage.keep))
    return Described(places, kept, tensors)


def through_rows(x_BHWC: Tensor, stages: Sequence[Stage], half: bool = False) -> tuple[Tensor, ...]:
    """Compute stages one after another: the kept channels of each stage that keeps some.

    Args:
        x_BHWC: the input of the first stage.
        stages: the stages.
        half: whether the factors of products are rounded to bfloat16; see
            :func:`zoo.ops.passes.library.has_half_products`.
    """
    x, found = _tokens(x_BHWC), described(x_BHWC.shape[3], stages)
    outs = []
    for index, channels in found.kept:
        dtype = _kept_dtype(stages[index], half)
        out = x_BHWC.new_empty(*x_BHWC.shape[:3], channels, dtype=dtype)
        place = found.stages[index]
        place.out, place.out_dtype = out.data_ptr(), DTYPE_NUMBERS[dtype]
        outs.append(out)
    call = ZooRows(
        *x_BHWC.shape[:3],
        x.data_ptr(),
        x.stride(0),
        DTYPE_NUMBERS[x.dtype],
        len(stages),
        ctypes.addressof(found.stages),
        half,
    )
    library.run("zoo_rows", ctypes.byref(call))
    return tuple(outs)


def _kept_dtype(stage: Stage, half: bool) -> torch.dtype:
    """bfloat16 for what autocast would compute in it; sums with a skip stay float32."""
    is_sum = isinstance(stage, ProductStage) and stage.skip is not None
    return torch.bfloat16 if half and not is_sum else torch.float32


def _tokens(x_BHWC: Tensor) -> Tensor:
    """The tensor as (tokens, C) with contiguous rows; a copy only if there is no such view."""
    return dense_rows(x_BHWC.reshape(-1, x_BHWC.shape[-1]))
