"""Device functions that the Triton kernels share: reading and writing tokens, the step, sums.

Shape suffixes: see :mod:`zoo.ops.scan.triton.kernels`.
"""

# Triton reads annotations as its own types and does not support unpacking of tuples.
# ruff: noqa: ANN001, ANN201, RUF005
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

STORE = tl.constexpr(0)
"""Write: only one program uses the place."""
ADD = tl.constexpr(1)
"""Read, add, write: no other program of this launch uses the place."""
ATOMIC = tl.constexpr(2)
"""Add atomically: several programs use the place, and they add in no fixed order."""

LOG2E = tl.constexpr(1.4426950408889634)


def kernel(function):
    """Compile a kernel without its sizes and strides, so that one binary works for all images."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    sizes = [n for n in names if not n.endswith("_ptr") and n not in function.__annotations__]
    return triton.jit(do_not_specialize=sizes)(function)


@triton.jit
def read(pointer, mask):
    """Load values; zero beyond ``mask``."""
    return tl.load(pointer, mask, 0.0)


@triton.jit
def put(pointer, value, mask, MODE: tl.constexpr):
    if MODE == STORE:
        tl.store(pointer, value.to(pointer.dtype.element_ty), mask)
    elif MODE == ADD:
        tl.store(pointer, read(pointer, mask) + value, mask)
    else:
        tl.atomic_add(pointer, value, mask, sem="relaxed")


@triton.jit
def softplus(raw):
    """softplus(raw) and its derivative, without overflow for large ``raw``."""
    z = tl.exp(-tl.abs(raw))
    # log(1 + z) = z p(z), with a minimax polynomial on [0, 1]: exact to 2e-7 in float32. Unlike
    # log(1 + z) it keeps its precision for small z, the usual range of steps.
    p = 0.005232624243944883
    p = p * z - 0.029504956677556038
    p = p * z + 0.07822549343109131
    p = p * z - 0.1366320699453354
    p = p * z + 0.1910598874092102
    p = p * z - 0.2484297752380371
    p = p * z + 0.3331909477710724
    p = p * z - 0.4999949336051941
    p = p * z + 0.9999999403953552
    return tl.maximum(raw, 0.0) + p * z, tl.where(raw >= 0, 1.0, z) / (1.0 + z)


@triton.jit
def read_token(pointer, mask, tokens):
    """Load an entry of the order: a token, -1, or a lower number for an entry that is neither.

    Nothing is read or written for a negative token. Beyond ``mask`` it is -1.
    """
    token = tl.load(pointer, mask, -1)
    return tl.where(token >= tokens, -2, token)


@triton.jit
def spoil(delta, token):
    """NaN for an entry that is no token: the rest of its path becomes NaN, which is seen."""
    return tl.where(token < -1, float("nan"), delta)


@triton.jit
def is_reached(token, index, size):
    """Mask of the ``size`` values of a token; all false for a negative one."""
    return index < tl.where(token >= 0, size, 0)


@triton.jit
def read_row(pointer, token, stride, index, size):
    """Load the ``size`` values of a token in float32; zero beyond them and for a negative token."""
    place = pointer + tl.maximum(token, 0).to(tl.int64) * stride + index
    return read(place, is_reached(token, index, size)).to(tl.float32)


@triton.jit
def read_rows(pointer, token_S, stride, index, size):
    """Load the ``size`` values of several tokens in float32, like :func:`read_row`."""
    place = pointer + tl.maximum(token_S, 0).to(tl.int64)[:, None] * stride + index[None]
    return read(place, (token_S >= 0)[:, None] & (index < size)[None]).to(tl.float32)


@triton.jit
def is_within(n, states, e, channels):
    """Mask of (N, E); all false if ``states`` is zero."""
    return (n < states)[:, None] & (e < channels)[None]


@triton.jit
def place_of_program(blocks, chunks, first, walked, BLOCK_E: tl.constexpr):
    """Channels, chunk, image and direction of a program, for the kernels that walk chunks."""
    program = tl.program_id(0)
    e = program % blocks * BLOCK_E + tl.arange(0, BLOCK_E)
    bk = (program // blocks // chunks).to(tl.int64)
    return e, program // blocks % chunks, bk // walked, first + bk % walked


@triton.jit
def read_parameters(
    A_ptr, weight_ptr, bias_ptr, k, e, n, channels, states, rank,
    LOW_RANK: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Load A log2(e) for exp2, delta_weight (only if LOW_RANK) and delta_bias of a direction."""
    in_E = e < channels
    place_NE = A_ptr + (k * states + n[:, None]) * channels + e[None]
    A_NE = read(place_NE, is_within(n, states, e, channels))
    bias_E = read(bias_ptr + k * channels + e, in_E)
    weight_RE = bias_E[None]
    if LOW_RANK:
        r = tl.arange(0, BLOCK_R)
        place_RE = weight_ptr + (k * rank + r[:, None]) * channels + e[None]
        weight_RE = read(place_RE, is_within(r, rank, e, channels))
    return A_NE * LOG2E, weight_RE, bias_E


@triton.jit
def read_given(
    row_ptr, token, delta_ptr, delta_l, e, channels,
    LOW_RANK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Load what the delta of a step is computed from: its row of low rank, or delta itself."""
    if LOW_RANK:
        given = tl.load(row_ptr + 2 * BLOCK_N + tl.arange(0, BLOCK_R))
    else:
        given = spoil(read_row(delta_ptr, token, delta_l, e, channels), token)
    return given


@triton.jit
def first_steps(
    rows_ptr, order_ptr, u_ptr, delta_ptr, start, end, u_l, delta_l, e, tokens, channels,
    LOW_RANK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Load what a walk from ``start`` to ``end`` needs before its first step.

    Returns the token of the step and of the two after it, its row, what its delta is computed from,
    and u of the step and of the next.
    """
    token = read_token(order_ptr + start, True, tokens)
    second = read_token(order_ptr + start + 1, start + 1 < end, tokens)
    third = read_token(order_ptr + start + 2, start + 2 < end, tokens)
    row_ptr = rows_ptr + start.to(tl.int64) * WIDTH
    given = read_given(row_ptr, token, delta_ptr, delta_l, e, channels, LOW_RANK, BLOCK_N, BLOCK_R)
    u_E = read_row(u_ptr, token, u_l, e, channels)
    return token, second, third, row_ptr, given, u_E, read_row(u_ptr, second, u_l, e, channels)


@triton.jit
def next_steps(
    s, second, third, row_ptr, next_E, order_ptr, u_ptr, delta_ptr, end, u_l, delta_l, e, tokens,
    channels, LOW_RANK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Load the same for the step after ``s``, while step ``s`` is computed."""
    row_ptr += WIDTH
    following = read_token(order_ptr + s + 3, s + 3 < end, tokens)
    given = read_given(row_ptr, second, delta_ptr, delta_l, e, channels, LOW_RANK, BLOCK_N, BLOCK_R)
    after_E = read_row(u_ptr, third, u_l, e, channels)
    return second, third, following, row_ptr, given, next_E, after_E


@triton.jit
def touch(touched, row_ptr, WIDTH: tl.constexpr):
    """Bring a row into the first cache, some steps before it is used.

    The compiler puts each load of a row next to its use, where all lanes wait for it. One number of
    every 32 bytes is loaded; :func:`untouched` keeps the compiler from noticing that nobody needs
    it. Measured on an H200: 13 % of the time of both walks at E = 360.
    """
    place = tl.arange(0, triton.next_power_of_2(WIDTH) // 8) * 8
    return tl.maximum(touched, tl.load(row_ptr + place, place < WIDTH, 0.0))


@triton.jit
def nothing_touched(WIDTH: tl.constexpr):
    return tl.zeros((triton.next_power_of_2(WIDTH) // 8,), tl.float32)


@triton.jit
def untouched(touched, row_ptr, steps, WIDTH: tl.constexpr):
    """Never store what :func:`touch` has loaded: ``steps`` is not negative."""
    place = tl.arange(0, triton.next_power_of_2(WIDTH) // 8) * 8
    tl.store(row_ptr + place, touched, (place < WIDTH) & (steps < 0))


@triton.jit
def before_softplus(given, weight_RE, bias_E, LOW_RANK: tl.constexpr):
    """delta before softplus, from the result of :func:`read_given`."""
    if LOW_RANK:  # noqa: SIM108
        raw_E = bias_E + tl.sum(weight_RE * given[:, None], axis=0)
    else:
        raw_E = bias_E + given
    return raw_E


@triton.jit
def read_steps(
    rows_ptr, u_ptr, delta_ptr, order_ptr, gy_ptr, now, end, u_l, delta_l, gy_l,
    e, n, tokens, channels, LOW_RANK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr,
    WIDTH: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Load FEW steps from ``now``: tuples of tokens, u, what delta is computed from, gy, B and C.

    From ``end`` on, the token is -1. All are loaded before anything is computed, so that a program
    waits for memory once.
    """
    token_T, u_T, given_T, gy_T, B_T, C_T = (), (), (), (), (), ()
    for t in tl.static_range(FEW):
        token_T = token_T + (read_token(order_ptr + now + t, now + t < end, tokens),)
    for t in tl.static_range(FEW):
        row_ptr = rows_ptr + (now + t).to(tl.int64) * WIDTH
        given = read_given(
            row_ptr, token_T[t], delta_ptr, delta_l, e, channels, LOW_RANK, BLOCK_N, BLOCK_R
        )
        given_T = given_T + (given,)
        u_T = u_T + (read_row(u_ptr, token_T[t], u_l, e, channels),)
        gy_T = gy_T + (read_row(gy_ptr, token_T[t], gy_l, e, channels),)
        B_T = B_T + (tl.load(row_ptr + n),)
        C_T = C_T + (tl.load(row_ptr + BLOCK_N + n),)
    return token_T, u_T, given_T, gy_T, B_T, C_T
