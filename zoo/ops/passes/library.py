"""Calls of the passes in the C++ library, on tensors that have been checked.

Shape suffixes: B batch, H height, W width, C channels, k side of a kernel; "..." stands for any
number of axes.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Literal, NamedTuple, TypeAlias, overload

import torch
from torch import Tensor

from zoo.ops.scan import native

Activation: TypeAlias = Literal["none", "silu", "gelu"]
ACTIVATION_NUMBERS: dict[Activation, int] = {"none": 0, "silu": 1, "gelu": 2}
"""Numbers of ``csrc/zoo_passes.h``."""

DTYPE_NUMBERS = {torch.float32: 0, torch.bfloat16: 1}
"""The same of ``csrc/zoo_scan.h``."""


class ZooDepthwise(ctypes.Structure):
    """The structure of csrc/zoo_passes.h."""

    _fields_ = (
        ("activation", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("batch", "height", "width", "channels")),
        *((name, ctypes.c_int64) for name in ("kernel", "dilation")),
        ("x", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64 * 3),
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
    )


class ZooTokens(ctypes.Structure):
    """The structure of csrc/zoo_passes.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "tokens", "channels")),
        ("eps", ctypes.c_float),
        ("x_dtype", ctypes.c_int32),
        *((n, ctypes.c_void_p) for n in ("x", "gain", "skip", "scale", "weight", "bias", "gate")),
        *((name, ctypes.c_int64) for name in ("x_stride", "skip_stride", "gate_stride")),
        *((name, ctypes.c_void_p) for name in ("sum", "out")),
    )


class ZooTokensGradients(ctypes.Structure):
    """The structure of csrc/zoo_passes.h."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in ("sum", "out", "x", "gain", "skip", "scale", "weight", "bias", "gate")
    )


class ZooGain(ctypes.Structure):
    """The structure of csrc/zoo_passes.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "tokens", "channels", "hidden")),
        ("x", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("reduce_weight", "reduce_bias")),
        *((name, ctypes.c_void_p) for name in ("expand_weight", "expand_bias", "out")),
    )


class ZooDirections(ctypes.Structure):
    """The structure of csrc/zoo_passes.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "tokens", "directions", "channels")),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("y", "weight", "bias")),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library, or None if it cannot run here or was built before it had these functions."""
    if native.unavailable():
        return None
    loaded = native.library()
    place = ctypes.c_void_p
    team = (ctypes.c_char_p, ctypes.c_int, place)
    convolution, tokens = ctypes.POINTER(ZooDepthwise), ctypes.POINTER(ZooTokens)
    try:
        loaded.zoo_depthwise.argtypes = (convolution, place, *team)
        loaded.zoo_depthwise_slope.argtypes = (convolution, place, place, *team)
        loaded.zoo_depthwise_weights.argtypes = (convolution, place, place, place, *team)
        loaded.zoo_tokens.argtypes = (tokens, *team)
        gradients = ctypes.POINTER(ZooTokensGradients)
        loaded.zoo_tokens_gradients.argtypes = (tokens, gradients, *team)
        loaded.zoo_rows.argtypes = (place, *team)
        loaded.zoo_half_products.argtypes = (ctypes.c_char_p,)
        loaded.zoo_gain.argtypes = (place, *team)
        loaded.zoo_directions_mean.argtypes = (place, place, *team)
        loaded.zoo_directions_sum.argtypes = (place, place, place, *team)
    except AttributeError:
        return None
    return loaded


def has_half_products() -> bool:
    """Whether the pass over rows can round the factors of its products to bfloat16 here."""
    loaded = library()
    return loaded is not None and bool(loaded.zoo_half_products(None))


class Convolution(NamedTuple):
    """A depthwise convolution and its activation.

    Attributes:
        x: features (B, H, W, C).
        weight: an odd square kernel for each channel, (C, 1, k, k).
        bias: added to each channel, (C), or None.
        dilation: distance of the kernel's taps in pixels; the border is padded with zeros.
        activation: applied to the result.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    dilation: int
    activation: Activation


def convolved(conv: Convolution) -> Tensor:
    """The output of the activation, (B, H, W, C) contiguous."""
    out = conv.x.new_empty(conv.x.shape)
    _call(conv, "zoo_depthwise", out.data_ptr())
    return out


def slope(conv: Convolution, grad: Tensor) -> Tensor:
    """The gradient of the convolution's output, given that of the activation's, contiguous."""
    out = torch.empty_like(grad)
    _call(conv, "zoo_depthwise_slope", grad.data_ptr(), out.data_ptr())
    return out


def weight_gradients(conv: Convolution, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias, given that of the convolution's output, contiguous."""
    weight, bias = grad.new_empty(conv.weight.shape), grad.new_empty(conv.x.shape[-1])
    addresses = (tensor.data_ptr() for tensor in (grad, weight, bias))
    _call(conv, "zoo_depthwise_weights", *addresses)
    return weight, bias


def _call(conv: Convolution, function: str, *results: int) -> None:
    """Call a function of the library on a convolution."""
    x, weight, bias = dense_rows(conv.x), conv.weight.contiguous(), _contiguous(conv.bias)
    call = ZooDepthwise(
        ACTIVATION_NUMBERS[conv.activation],
        *x.shape,
        weight.shape[-1],
        conv.dilation,
        x.data_ptr(),
        x.stride()[:3],
        weight.data_ptr(),
        address(bias),
    )
    run(function, ctypes.byref(call), *results)


class Tokens(NamedTuple):
    """``v = x * gain + skip * scale``, and perhaps ``norm(v) * silu(gate)``; None leaves one out.

    Attributes:
        x: (B, ..., C).
        gain: (B, 1, ..., 1, C).
        skip: (B, ..., C).
        scale: (C).
        weight: of the norm, (C).
        bias: of the norm, (C).
        gate: (B, ..., C).
        eps: of the norm.
    """

    x: Tensor
    gain: Tensor | None = None
    skip: Tensor | None = None
    scale: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    gate: Tensor | None = None
    eps: float = 0.0

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All but eps."""
        *tensors, _ = self
        return tuple(tensors)


class Layer(NamedTuple):
    """A linear layer: weight (outputs, inputs), bias (outputs) or None."""

    weight: Tensor
    bias: Tensor | None


def gain(x: Tensor, reduce: Layer, expand: Layer) -> Tensor:
    """``sigmoid(expand(relu(reduce(mean token))))``, (B, 1, ..., 1, C), of x (B, ..., C)."""
    rows = _rows(x)
    out = x.new_empty(x.shape[0], *(1,) * (x.dim() - 2), x.shape[-1])
    layers = [_contiguous(tensor) for tensor in (*reduce, *expand)]
    call = ZooGain(
        x.shape[0],
        rows.shape[0] // x.shape[0],
        rows.shape[1],
        reduce.weight.shape[0],
        rows.data_ptr(),
        rows.stride(0),
        *map(address, layers),
        out.data_ptr(),
    )
    run("zoo_gain", ctypes.byref(call))
    return out


def directions_mean(
    y_BLKC: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """The mean over tokens of a layer norm, (B, K, C), of y contiguous."""
    weight, bias = _contiguous(weight), _contiguous(bias)
    images, _, directions, channels = y_BLKC.shape
    out = y_BLKC.new_empty(images, directions, channels)
    call = ZooDirections(*y_BLKC.shape, eps, y_BLKC.data_ptr(), address(weight), address(bias))
    run("zoo_directions_mean", ctypes.byref(call), out.data_ptr())
    return out


def directions_sum(y_BLKC: Tensor, gate_BKC: Tensor) -> Tensor:
    """The sum over directions of ``gate * y``, (B, L, C), of both contiguous."""
    images, tokens, _, channels = y_BLKC.shape
    out = y_BLKC.new_empty(images, tokens, channels)
    call = ZooDirections(*y_BLKC.shape, 0.0, y_BLKC.data_ptr(), None, None)
    run("zoo_directions_sum", ctypes.byref(call), gate_BKC.data_ptr(), out.data_ptr())
    return out


class TokenGradients(NamedTuple):
    """A place for the gradient of each of the inputs, contiguous, or None."""

    x: Tensor | None
    gain: Tensor | None
    skip: Tensor | None
    scale: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    gate: Tensor | None


def tokens(inputs: Tokens, total: Tensor | None, out: Tensor | None) -> None:
    """Write v to ``total`` and the gated norm to ``out``, both contiguous, or None."""
    call, _kept = _tokens(inputs, total, out)
    run("zoo_tokens", ctypes.byref(call))


def token_gradients(
    inputs: Tokens,
    total: Tensor | None,
    grads: tuple[Tensor | None, Tensor | None],
    found: TokenGradients,
) -> None:
    """Write the gradients of the inputs to ``found``.

    Args:
        inputs: the inputs of the pass. An x of which only the shape matters may have any values.
        total: v, or None if that is x or there is no norm.
        grads: those of v and of the gated norm, contiguous.
        found: where the gradients go.
    """
    call, _kept = _tokens(inputs, total, None)
    gradients = ZooTokensGradients(*map(address, (*grads, *found)))
    run("zoo_tokens_gradients", ctypes.byref(call), ctypes.byref(gradients))


def _tokens(inputs: Tokens, total: Tensor | None, out: Tensor | None) -> tuple[ZooTokens, object]:
    """The structure, and what must stay alive as long as it is used."""
    x, gain, skip, scale, weight, bias, gate, eps = inputs
    images = 1 if gain is None else gain.shape[0]
    rows, skip, gate = _rows(x), _rows(skip), _rows(gate)
    gain, scale, weight, bias = map(_contiguous, (gain, scale, weight, bias))
    addressed = (rows, gain, skip, scale, weight, bias, gate)
    call = ZooTokens(
        images,
        rows.shape[0] // images,
        rows.shape[1],
        eps,
        DTYPE_NUMBERS[rows.dtype],
        *map(address, addressed),
        *(0 if t is None else t.stride(0) for t in (rows, skip, gate)),
        address(total),
        address(out),
    )
    return call, addressed


@overload
def _rows(tensor: Tensor) -> Tensor: ...
@overload
def _rows(tensor: None) -> None: ...
def _rows(tensor: Tensor | None) -> Tensor | None:
    """The tensor as (tokens, C) with contiguous rows; a copy only if there is no such view."""
    return None if tensor is None else dense_rows(tensor.reshape(-1, tensor.shape[-1]))


def dense_rows(tensor: Tensor) -> Tensor:
    """The tensor with a contiguous last axis."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def address(tensor: Tensor | None) -> int | None:
    """Where the tensor's memory starts, or None."""
    return None if tensor is None else tensor.data_ptr()


def run(function: str, *arguments: object) -> None:
    """Call a function of the library with PyTorch's threads."""
    team = (torch.get_num_threads(), native._openmp())
    # Not a library that was loaded again: a function without declared arguments would be called.
    status = getattr(library(), function)(*arguments, None, *team)
    native.raise_for(status, function, "a pass over features")
