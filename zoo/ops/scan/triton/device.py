"""What the Triton kernels share: reading and writing of tokens, the step, ways to add up.

Shape suffixes: see :mod:`zoo.ops.scan.triton.kernels`.
"""

# Triton reads annotations as types of its own and knows no unpacking of tuples.
# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

STORE = tl.constexpr(0)
"""Write: the place belongs to one program."""
ADD = tl.constexpr(1)
"""Read, add, write: no other program of this launch touches the place."""
ATOMIC = tl.constexpr(2)
"""Add atomically: programs share the place, and the sequence of their sums is open."""

LOG2E = tl.constexpr(1.4426950408889634)

_SIZES = [
    *("u_b", "u_l", "delta_b", "delta_l", "delta_k", "B_b", "B_l", "B_k", "C_b", "C_l", "C_k"),
    *("gy_b", "gy_l", "gy_k", "y_b", "y_l", "y_k", "order_b", "order_k"),
    *("batch", "steps", "directions", "channels", "rank", "states", "chunks", "length"),
    *("tokens", "first", "walked", "blocks", "slots", "part", "shift", "boundaries"),
]


def kernel(function):
    known = [name for name in _SIZES if name in function.__code__.co_varnames]
    return triton.jit(do_not_specialize=known)(function)


@triton.jit
def put(pointer, value, mask, MODE: tl.constexpr):
    if MODE == STORE:
        tl.store(pointer, value.to(pointer.dtype.element_ty), mask=mask)
    elif MODE == ADD:
        tl.store(pointer, tl.load(pointer, mask=mask, other=0.0) + value, mask=mask)
    else:
        tl.atomic_add(pointer, value, mask=mask, sem="relaxed")


@triton.jit
def softplus(raw):
    """softplus(raw) and its derivative; nothing positive is exponentiated."""
    z = tl.exp(-tl.abs(raw))
    # log(1 + z) = 2 artanh(z / (2 + z)); the series is exact to 2e-8 for z in [0, 1], and unlike
    # log(1 + z) it loses nothing where z is small, which is where steps are.
    s = z / (2.0 + z)
    q = s * s
    tail = 1.0 / 13.0
    tail = tail * q + 1.0 / 11.0
    tail = tail * q + 1.0 / 9.0
    tail = tail * q + 1.0 / 7.0
    tail = tail * q + 1.0 / 5.0
    tail = tail * q + 1.0 / 3.0
    tail = 2.0 * s * (tail * q + 1.0)
    return tl.maximum(raw, 0.0) + tail, tl.where(raw >= 0, 1.0, z) / (1.0 + z)


@triton.jit
def is_reached(token, index, size):
    """Mask of the ``size`` values of a token; empty for token -1."""
    return index < tl.where(token >= 0, size, 0)


@triton.jit
def read_row(pointer, token, stride, index, size):
    """The ``size`` values of one token, zero for token -1 and beyond, in float32."""
    place = pointer + tl.maximum(token, 0).to(tl.int64) * stride + index
    return tl.load(place, mask=is_reached(token, index, size), other=0.0).to(tl.float32)


@triton.jit
def read_entry(pointer, token, stride, index):
    """One value of one token, zero for token -1, in float32."""
    place = pointer + tl.maximum(token, 0).to(tl.int64) * stride + index
    return tl.load(place, mask=token >= 0, other=0.0).to(tl.float32)


@triton.jit
def is_within(n, states, e, channels):
    """Mask of (N, E); empty where ``states`` is zero."""
    return (n < states)[:, None] & (e < channels)[None]


@triton.jit
def raw_step(
    delta_ptr, token, delta_l, weight_RE, bias_E, r, e, rank, channels, LOW_RANK: tl.constexpr
):
    """The step of one token for the channels of a program, before softplus."""
    if LOW_RANK:
        step_R = read_row(delta_ptr, token, delta_l, r, rank)
        return bias_E + tl.sum(weight_RE * step_R[:, None], axis=0)
    return bias_E + read_row(delta_ptr, token, delta_l, e, channels)
