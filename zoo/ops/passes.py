"""Passes over features in C++: what a network that is not trained does between its products.

PyTorch reads and writes all features once for each elementwise operation. These functions do
several at a time, in the library of the scan (``zoo/ops/scan/csrc/zoo_passes.h``). Each returns
None where it cannot run, and its caller, which defines what is computed, then uses PyTorch.

Passes run on ordinary float32 tensors on a CPU, if no gradient is recorded. They do not run while
a graph is traced, compiled or exported, nor under autocast, transforms of ``torch.func`` or modes:
these must see the operators of PyTorch. ZOO_CPU_PASSES=0 in the environment switches them off.

Shape suffixes: B batch, H height, W width, C channels, k side of a kernel; "..." stands for any
number of axes.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Literal, NamedTuple, TypeAlias, overload

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from zoo.ops.scan import native
from zoo.ops.scan.checks import check_memory

ENVIRONMENT = "ZOO_CPU_PASSES"

Activation: TypeAlias = Literal["none", "silu", "gelu"]
_ACTIVATIONS: dict[Activation, int] = {"none": 0, "silu": 1, "gelu": 2}
"""Numbers of ``csrc/zoo_passes.h``."""


class NormWeights(NamedTuple):
    """The parameters of a layer norm; weight and bias are (C), or None for one and zero."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float


_NO_NORM = NormWeights(None, None, 0.0)


class _Depthwise(ctypes.Structure):
    """``struct ZooDepthwise`` of csrc/zoo_passes.h."""

    _fields_ = (
        ("activation", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("batch", "height", "width", "channels")),
        *((name, ctypes.c_int64) for name in ("kernel", "dilation")),
        ("x", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64 * 3),
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
    )


class _Tokens(ctypes.Structure):
    """``struct ZooTokens`` of csrc/zoo_passes.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "tokens", "channels")),
        ("eps", ctypes.c_float),
        *((n, ctypes.c_void_p) for n in ("x", "gain", "skip", "scale", "weight", "bias", "gate")),
        *((name, ctypes.c_int64) for name in ("x_stride", "skip_stride", "gate_stride")),
        *((name, ctypes.c_void_p) for name in ("sum", "out")),
    )


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The library, or None if it cannot run here or was built before it had passes."""
    if native.unavailable():
        return None
    loaded = native.library()
    team = (ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)
    try:
        loaded.zoo_depthwise.argtypes = (ctypes.POINTER(_Depthwise), ctypes.c_void_p, *team)
        loaded.zoo_tokens.argtypes = (ctypes.POINTER(_Tokens), *team)
    except AttributeError:
        return None
    return loaded


def _may_run(*tensors: Tensor | None) -> bool:
    """Whether a pass may run on these tensors now.

    Raises:
        ValueError: if a tensor's memory was given back.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or _is_watched():
        return False
    if os.environ.get(ENVIRONMENT) == "0" or _library() is None:
        return False
    if not all(tensor is None or _is_ordinary(tensor) for tensor in tensors):
        return False
    check_memory(tensors)
    return True


def _is_watched() -> bool:
    return (
        torch.is_autocast_enabled("cpu")
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def _is_ordinary(tensor: Tensor) -> bool:
    return (
        (type(tensor) is Tensor or type(tensor) is Parameter)
        and tensor.dtype is torch.float32
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and tensor.numel() > 0
    )


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
    if not _may_run(x_BHWC, weight_C1kk, bias_C) or x_BHWC.dim() != 4:
        return None
    channels, side = x_BHWC.shape[-1], weight_C1kk.shape[-1]
    wanted = (channels, 1, side, side)
    if weight_C1kk.shape != wanted or not _fits(bias_C, (channels,)) or side % 2 == 0:
        return None
    x_BHWC, weight_C1kk = _dense_rows(x_BHWC), weight_C1kk.contiguous()
    bias_C = _contiguous(bias_C)
    out_BHWC = x_BHWC.new_empty(x_BHWC.shape)
    call = _Depthwise(
        _ACTIVATIONS[activation],
        *x_BHWC.shape,
        side,
        dilation,
        x_BHWC.data_ptr(),
        x_BHWC.stride()[:3],
        weight_C1kk.data_ptr(),
        _address(bias_C),
    )
    _run("zoo_depthwise", ctypes.byref(call), out_BHWC.data_ptr())
    return out_BHWC


def normalised(x: Tensor, norm: NormWeights, gate: Tensor | None = None) -> Tensor | None:
    """Compute ``norm(x)``, or ``norm(x) * silu(gate)``, for x and gate (..., C)."""
    if not _token_pass_runs(x, gate, (norm.weight, norm.bias)):
        return None
    out = x.new_empty(x.shape)
    _tokens(x, gate=gate, norm=norm, out=out)
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
    if not _token_pass_runs(x, added, (scale_C,), gain):
        return None
    total = x.new_empty(x.shape)
    _tokens(added, gain=gain, skip=x, scale_C=scale_C, total=total)
    return total


def scaled_sum_and_norm(
    x: Tensor, scale_C: Tensor | None, added: Tensor, norm: NormWeights
) -> tuple[Tensor, Tensor] | None:
    """Compute ``x * scale + added`` and the norm of this sum, for x and added (..., C)."""
    if not _token_pass_runs(x, added, (scale_C, norm.weight, norm.bias)):
        return None
    total, out = x.new_empty(x.shape), x.new_empty(x.shape)
    _tokens(added, skip=x, scale_C=scale_C, norm=norm, total=total, out=out)
    return total, out


def _token_pass_runs(
    x: Tensor,
    other: Tensor | None,
    of_channels: tuple[Tensor | None, ...],
    gain: Tensor | None = None,
) -> bool:
    if not _may_run(x, other, *of_channels, gain) or x.dim() < 1 + (gain is not None):
        return False
    shape, channels = x.shape, x.shape[-1:]
    fits = all(_fits(tensor, channels) for tensor in of_channels)
    between = (1,) * (x.dim() - 2)
    return fits and _fits(other, shape) and _fits(gain, (*shape[:1], *between, *channels))


def _tokens(
    x: Tensor,
    *,
    gain: Tensor | None = None,
    skip: Tensor | None = None,
    scale_C: Tensor | None = None,
    norm: NormWeights = _NO_NORM,
    gate: Tensor | None = None,
    total: Tensor | None = None,
    out: Tensor | None = None,
) -> None:
    """Call ``zoo_tokens`` on tensors that have been checked."""
    images = 1 if gain is None else gain.shape[0]
    rows, skip, gate = _rows(x), _rows(skip), _rows(gate)
    weights = [_contiguous(t) for t in (gain, scale_C, norm.weight, norm.bias)]
    gain, scale_C, weight_C, bias_C = weights
    call = _Tokens(
        images,
        rows.shape[0] // images,
        rows.shape[1],
        norm.eps,
        *map(_address, (rows, gain, skip, scale_C, weight_C, bias_C, gate)),
        *(0 if t is None else t.stride(0) for t in (rows, skip, gate)),
        _address(total),
        _address(out),
    )
    _run("zoo_tokens", ctypes.byref(call))


def _fits(tensor: Tensor | None, shape: tuple[int, ...]) -> bool:
    return tensor is None or tensor.shape == shape


@overload
def _rows(tensor: Tensor) -> Tensor: ...
@overload
def _rows(tensor: None) -> None: ...
def _rows(tensor: Tensor | None) -> Tensor | None:
    """The tensor as (tokens, C) with contiguous rows; a copy only if there is no such view."""
    return None if tensor is None else _dense_rows(tensor.reshape(-1, tensor.shape[-1]))


def _dense_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _run(function: str, *arguments: object) -> None:
    team = (torch.get_num_threads(), native._openmp())
    # Not a library that was loaded again: a function without declared arguments would be called.
    status = getattr(_library(), function)(*arguments, None, *team)
    native.raise_for(status, function, "a pass over features")
