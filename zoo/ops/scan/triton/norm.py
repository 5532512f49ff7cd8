"""The layer norm and its gate in Triton, for NVIDIA GPUs. Importing it needs Triton.

PyTorch gives each token a block of threads, most of which have nothing to do where tokens have few
channels. Here a warp takes several tokens. Sums are made in a fixed sequence, so equal runs are
equal.

Shape suffixes: T tokens, C channels, P programs.
"""

# Triton reads annotations as its own types and does not support unpacking of tuples.
# ruff: noqa: ANN001, ANN002, ANN201, ANN202
# mypy: ignore-errors
from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.ops.scan.triton.device import kernel, read
from zoo.ops.scan.triton.plan import Launch, on, processors

TILE = 1024
"""Numbers of a tile, which one warp takes at once."""

PROGRAMS = 16
"""Programs for each multiprocessor in the backward pass; each has sums of its own."""


@triton.jit
def _read(pointer, mask):
    return read(pointer, mask).to(tl.float32)


@kernel
def norm_forward(
    x_ptr, gate_ptr, weight_ptr, bias_ptr, out_ptr, mean_ptr, scale_ptr, tokens, channels, eps,
    GATED: tl.constexpr, KEPT: tl.constexpr, TOKENS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """norm(x), or norm(x) silu(gate); if KEPT, also each token's mean and 1 / deviation."""
    t = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    c = tl.arange(0, BLOCK_C)
    in_T, in_C = t < tokens, c < channels
    place_TC, in_TC = t[:, None] * channels + c[None], in_T[:, None] & in_C[None]
    x_TC = _read(x_ptr + place_TC, in_TC)
    mean_T = tl.sum(x_TC, axis=1) / channels
    centred_TC = tl.where(in_TC, x_TC - mean_T[:, None], 0.0)
    scale_T = 1.0 / tl.sqrt(tl.sum(centred_TC * centred_TC, axis=1) / channels + eps)
    weight_C, bias_C = _read(weight_ptr + c, in_C), _read(bias_ptr + c, in_C)
    out_TC = centred_TC * scale_T[:, None] * weight_C[None] + bias_C[None]
    if GATED:
        gate_TC = _read(gate_ptr + place_TC, in_TC)
        out_TC *= gate_TC / (1.0 + tl.exp(-gate_TC))
    tl.store(out_ptr + place_TC, out_TC.to(out_ptr.dtype.element_ty), in_TC)
    if KEPT:
        tl.store(mean_ptr + t, mean_T, in_T)
        tl.store(scale_ptr + t, scale_T, in_T)


@kernel
def norm_backward(
    x_ptr, gate_ptr, weight_ptr, bias_ptr, mean_ptr, scale_ptr, g_out_ptr,
    g_x_ptr, g_gate_ptr, sums_ptr, tokens, channels, groups, programs,
    GATED: tl.constexpr, TOKENS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradients of x and gate; sums (P, 2, C): this program's share of those of weight and bias."""
    c = tl.arange(0, BLOCK_C)
    in_C = c < channels
    weight_C, bias_C = _read(weight_ptr + c, in_C), _read(bias_ptr + c, in_C)
    g_weight_C = tl.zeros((BLOCK_C,), tl.float32)
    g_bias_C = tl.zeros((BLOCK_C,), tl.float32)
    for group in range(tl.program_id(0), groups, programs):
        t = tl.cast(group, tl.int64) * TOKENS + tl.arange(0, TOKENS)
        in_T = t < tokens
        place_TC, in_TC = t[:, None] * channels + c[None], in_T[:, None] & in_C[None]
        mean_T, scale_T = _read(mean_ptr + t, in_T), _read(scale_ptr + t, in_T)
        x_TC = _read(x_ptr + place_TC, in_TC)
        normed_TC = tl.where(in_TC, (x_TC - mean_T[:, None]) * scale_T[:, None], 0.0)
        g_TC = _read(g_out_ptr + place_TC, in_TC)
        if GATED:
            gate_TC = _read(gate_ptr + place_TC, in_TC)
            open_TC = 1.0 / (1.0 + tl.exp(-gate_TC))
            slope_TC = open_TC * (1.0 + gate_TC * (1.0 - open_TC))
            out_TC = normed_TC * weight_C[None] + bias_C[None]
            g_gate_TC = g_TC * out_TC * slope_TC
            tl.store(g_gate_ptr + place_TC, g_gate_TC.to(g_gate_ptr.dtype.element_ty), in_TC)
            g_TC *= gate_TC * open_TC
        g_weight_C += tl.sum(g_TC * normed_TC, axis=0)
        g_bias_C += tl.sum(g_TC, axis=0)
        g_TC *= weight_C[None]
        level_T = tl.sum(g_TC, axis=1) / channels
        along_T = tl.sum(g_TC * normed_TC, axis=1) / channels
        g_x_TC = (g_TC - level_T[:, None] - normed_TC * along_T[:, None]) * scale_T[:, None]
        tl.store(g_x_ptr + place_TC, g_x_TC.to(g_x_ptr.dtype.element_ty), in_TC)
    place_C = sums_ptr + tl.program_id(0) * 2 * channels + c
    tl.store(place_C, g_weight_C, in_C)
    tl.store(place_C + channels, g_bias_C, in_C)


class Normed(NamedTuple):
    """A gated norm, and what its gradient needs: each token's mean and 1 / deviation, or None."""

    out: Tensor
    mean_T: Tensor | None
    scale_T: Tensor | None


class NormGradients(NamedTuple):
    """Gradients in the dtypes of the inputs; that of the gate is None without one."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    gate: Tensor | None


def forward(
    x: Tensor, weight_C: Tensor, bias_C: Tensor, gate: Tensor | None, eps: float,
    out_dtype: torch.dtype, *, keep: bool,
) -> Normed:  # fmt: skip
    """Compute ``norm(x)`` or ``norm(x) * silu(gate)``, for x and gate (..., C)."""
    x, weight_C, bias_C, gate = _dense(x, weight_C, bias_C, gate)
    channels = x.shape[-1]
    tokens = x.numel() // channels
    out = torch.empty(x.shape, dtype=out_dtype, device=x.device)
    mean_T = torch.empty(tokens, dtype=torch.float32, device=x.device) if keep else out
    scale_T = torch.empty_like(mean_T) if keep else out
    gated = gate is not None
    launch = _forward_launch(
        *_kind(x, weight_C, bias_C, gate), out_dtype, tokens, channels, eps, gated, keep
    )
    tensors = {
        **{"x_ptr": x, "gate_ptr": gate if gated else x, "weight_ptr": weight_C},
        **{"bias_ptr": bias_C, "out_ptr": out, "mean_ptr": mean_T, "scale_ptr": scale_T},
    }
    with on(x.device):
        launch(tensors)
    return Normed(out, mean_T, scale_T) if keep else Normed(out, None, None)


def backward(
    x: Tensor, weight_C: Tensor, bias_C: Tensor, gate: Tensor | None,
    mean_T: Tensor | None, scale_T: Tensor | None, g_out: Tensor,
) -> NormGradients:  # fmt: skip
    """The gradients of :func:`forward`, from what it kept and the gradient of out."""
    x, weight_C, bias_C, gate = _dense(x, weight_C, bias_C, gate)
    mean_T, scale_T, g_out = _dense(mean_T, scale_T, g_out)
    channels = x.shape[-1]
    tokens = x.numel() // channels
    gated = gate is not None
    launch, programs = _backward_launch(
        *_kind(x, weight_C, bias_C, gate), g_out.dtype, tokens, channels, gated
    )
    g_x, g_gate = torch.empty_like(x), torch.empty_like(gate) if gated else None
    sums = torch.empty(programs, 2, channels, dtype=torch.float32, device=x.device)
    tensors = {
        **{"x_ptr": x, "gate_ptr": gate if gated else x, "weight_ptr": weight_C},
        **{"bias_ptr": bias_C, "mean_ptr": mean_T, "scale_ptr": scale_T, "g_out_ptr": g_out},
        **{"g_x_ptr": g_x, "g_gate_ptr": g_gate if gated else g_x, "sums_ptr": sums},
    }
    with on(x.device):
        launch(tensors)
    g_weight, g_bias = sums.sum(0).to(weight_C.dtype)
    return NormGradients(g_x, g_weight, g_bias, g_gate)


def _dense(*tensors):
    """The tensors as the kernels read them: one number after the other."""
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _kind(x, *others):
    """What a binary depends on, beside sizes."""
    return x.device, x.dtype, tuple(None if t is None else t.dtype for t in others)


def _block(channels):
    return max(32, triton.next_power_of_2(channels))


@functools.lru_cache(maxsize=256)
def _forward_launch(device, x, others, out, tokens, channels, eps, gated, keep):
    block = _block(channels)
    constants = {
        **{"tokens": tokens, "channels": channels, "eps": eps, "GATED": gated, "KEPT": keep},
        **{"TOKENS": max(1, TILE // block), "BLOCK_C": block},
    }
    return Launch(norm_forward, -(-tokens // constants["TOKENS"]), constants, {})


@functools.lru_cache(maxsize=256)
def _backward_launch(device, x, others, g_out, tokens, channels, gated):
    block = _block(channels)
    in_group = max(1, TILE // block)
    groups = -(-tokens // in_group)
    programs = min(groups, PROGRAMS * processors(device))
    constants = {
        **{"tokens": tokens, "channels": channels, "groups": groups, "programs": programs},
        **{"GATED": gated, "TOKENS": in_group, "BLOCK_C": block},
    }
    return Launch(norm_backward, programs, constants, {}), programs
