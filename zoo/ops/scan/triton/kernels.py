"""The Triton kernels of the selective scan. Only ``launch.py`` imports them.

What all channels share of a step (B, C and the delta of low rank) is written once, by
``pack_rows``, in the sequence of the path and in float32: every other kernel reads it several
times. The sequence of each (image, direction) is cut into chunks. ``chunk_states`` walks every
chunk from a zero state, ``carry_states`` combines the results into the state before each chunk, and
``outputs`` walks every chunk again from that state. For gradients, the first two also run backwards
in time. Then ``gradients`` (in its own file) walks a chunk forward in groups of a few steps, stores
the state before each group, and processes the groups from the last to the first.

A program has one warp, so warps never wait for each other. Its tile of states, N by some channels,
is spread over lanes along the channels: a lane has all states of a few channels, and sums over
states stay within it. In ``gradients``, which also sums over channels, it is spread in both axes;
the way in which its scratch memory is read makes the compiler choose that. Channels are the
innermost axis everywhere: A is passed as (K, N, E), delta_weight as (K, R, E). Sizes and strides
are not compiled in: one binary works for all image sizes.

A walk waits for memory most of the time unless it loads in advance: u two steps ahead, because it
lies where the path goes, the other numbers one step ahead; and :func:`device.touch` brings rows
into the first cache.

Shape suffixes, in addition to those of :mod:`zoo.ops.scan.contract`: J chunks, M = J - 1 boundaries
between them. Every ``*_b, *_l, *_k`` is a stride in elements: to the next image, token, direction.
"""

# Triton reads annotations as its own types and does not support unpacking of tuples.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from zoo.ops.scan.triton.device import (
    LOG2E,
    before_softplus,
    first_steps,
    is_reached,
    is_within,
    kernel,
    next_steps,
    nothing_touched,
    place_of_program,
    put,
    read,
    read_parameters,
    read_row,
    read_rows,
    read_token,
    softplus,
    spoil,
    touch,
    untouched,
)


@kernel
def pack_rows(
    delta_ptr, B_ptr, C_ptr, order_ptr, rows_ptr,
    delta_b, delta_l, delta_k, B_b, B_l, B_k, C_b, C_l, C_k, order_b, order_k,
    tokens, steps, directions, rank, states, held, groups,
    LOW_RANK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Write what all channels share of each step, in the sequence of the path, in float32.

    rows (B, K, held, WIDTH): B, C and the delta of low rank, each with as many places as its block
    has; zero beyond its size and for a step without a token. Steps from ``steps`` on are zero.
    """
    program = tl.program_id(0)
    bk = (program // groups).to(tl.int64)
    b, k = bk // directions, bk % directions
    s = program % groups * BLOCK_S + tl.arange(0, BLOCK_S)
    token = read_token(order_ptr + b * order_b + k * order_k + s, s < steps, tokens)
    place = rows_ptr + (bk * held + s)[:, None] * WIDTH
    kept = (s < held)[:, None]
    n = tl.arange(0, BLOCK_N)
    B_SN = read_rows(B_ptr + b * B_b + k * B_k, token, B_l, n, states)
    tl.store(place + n[None], B_SN, kept)
    C_SN = read_rows(C_ptr + b * C_b + k * C_k, token, C_l, n, states)
    tl.store(place + BLOCK_N + n[None], C_SN, kept)
    if LOW_RANK:
        r = tl.arange(0, BLOCK_R)
        low_SR = read_rows(delta_ptr + b * delta_b + k * delta_k, token, delta_l, r, rank)
        tl.store(place + 2 * BLOCK_N + r[None], spoil(low_SR, token[:, None]), kept)


@kernel
def chunk_states(
    u_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, rows_ptr, order_ptr, gy_ptr,
    state_ptr, carry_ptr, total_ptr,
    u_b, u_l, delta_b, delta_l, delta_k, gy_b, gy_l, gy_k,
    order_b, order_k, tokens, steps, directions, channels, rank, states, chunks, length,
    blocks, held, LOW_RANK: tl.constexpr, BACKWARD: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The effect of each chunk on a state: what the chunk adds, and the sum of its steps.

    state (B, K, M, N, E): the state after chunk j when it starts from zero. total
    (B, K, J, E): the sum of delta over a chunk; exp(A total) is the decay of the chunk. carry, of
    the shape of state, only if BACKWARD: the gradient of the state before chunk j + 1 through this
    chunk alone.
    """
    e, chunk, b, k = place_of_program(blocks, chunks, 0, directions, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    A_NE, weight_RE, bias_E = read_parameters(
        A_ptr, weight_ptr, bias_ptr, k, e, n, channels, states, rank, LOW_RANK, BLOCK_R
    )
    bk = b * directions + k
    u_ptr += b * u_b
    delta_ptr += b * delta_b + k * delta_k
    order_ptr += b * order_b + k * order_k
    rows_ptr += bk * held * WIDTH

    h_NE = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    total_E = tl.zeros((BLOCK_E,), tl.float32)
    if BACKWARD:
        gy_ptr += b * gy_b + k * gy_k
        carry_NE = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
        decay_NE = tl.full((BLOCK_N, BLOCK_E), 1.0, tl.float32)
    start = chunk * length
    end = tl.minimum(start + length, steps)
    token, second, third, row_ptr, given, u_E, next_E = first_steps(
        rows_ptr, order_ptr, u_ptr, delta_ptr, start, end, u_l, delta_l, e, tokens, channels,
        LOW_RANK, BLOCK_N, BLOCK_R, WIDTH,
    )  # fmt: skip
    if BACKWARD:
        gy_E = read_row(gy_ptr, token, gy_l, e, channels)
    touched = nothing_touched(WIDTH)
    for s in range(start, end):
        now_E, now_given = u_E, given
        B_N = tl.load(row_ptr + n)
        if BACKWARD:
            C_N = tl.load(row_ptr + BLOCK_N + n)
            now_gy_E = gy_E
            gy_E = read_row(gy_ptr, second, gy_l, e, channels)
        # The next steps are loaded while this one is computed.
        token, second, third, row_ptr, given, u_E, next_E = next_steps(
            s, second, third, row_ptr, next_E, order_ptr, u_ptr, delta_ptr, end, u_l, delta_l, e,
            tokens, channels, LOW_RANK, BLOCK_N, BLOCK_R, WIDTH,
        )  # fmt: skip
        touched = touch(touched, row_ptr + WIDTH, WIDTH)
        delta_E, _ = softplus(before_softplus(now_given, weight_RE, bias_E, LOW_RANK))
        a_NE = tl.exp2(delta_E[None] * A_NE)
        h_NE = a_NE * h_NE + (delta_E * now_E)[None] * B_N[:, None]
        total_E += delta_E
        if BACKWARD:
            decay_NE *= a_NE
            carry_NE += decay_NE * (C_N[:, None] * now_gy_E[None])

    untouched(touched, rows_ptr, steps, WIDTH)
    tl.store(total_ptr + (bk * chunks + chunk) * channels + e, total_E, e < channels)
    boundary = (bk * (chunks - 1) + chunk) * states * channels
    place_NE = n[:, None] * channels + e[None]
    left = tl.where(chunk < chunks - 1, states, 0)
    tl.store(state_ptr + boundary + place_NE, h_NE, is_within(n, left, e, channels))
    if BACKWARD:
        boundary -= states * channels
        left = tl.where(chunk > 0, states, 0)
        tl.store(carry_ptr + boundary + place_NE, carry_NE, is_within(n, left, e, channels))


@triton.jit
def _after(decay_1, added_1, decay_2, added_2):
    """Compose two consecutive stretches of the recurrence h -> decay h + added."""
    return decay_1 * decay_2, decay_2 * added_1 + added_2


@kernel
def carry_states(
    state_ptr, A_ptr, total_ptr,
    directions, channels, states, chunks, boundaries, shift, blocks,
    REVERSED: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Run the recurrence over chunks, in place: ``state_ptr`` holds what each chunk adds, and then
    the state at each boundary.

    Boundary j uses the decay of chunk j + ``shift``: the chunk between boundaries j - 1 and j
    (shift 0), or, if REVERSED, between j and j + 1 (shift 1).
    """
    program = tl.program_id(0)
    e = program % blocks * BLOCK_E + tl.arange(0, BLOCK_E)
    n = program // blocks % states
    bk = (program // blocks // states).to(tl.int64)
    in_E = e < channels
    A_E = read(A_ptr + (bk % directions * states + n) * channels + e, in_E)
    state_ptr += (bk * boundaries * states + n) * channels
    total_ptr += (bk * chunks + shift) * channels
    row = tl.arange(0, BLOCK_M)
    carry_E = tl.zeros((BLOCK_E,), tl.float32)
    for start in range(0, boundaries, BLOCK_M):
        m = start + row
        mask = (m < boundaries)[:, None] & in_E[None]
        if REVERSED:
            m = boundaries - 1 - m
        place = state_ptr + m[:, None].to(tl.int64) * states * channels + e[None]
        total_ME = read(total_ptr + m[:, None] * channels + e[None], mask)
        decay_ME = tl.exp2(total_ME * (A_E * LOG2E)[None])
        added_ME = read(place, mask)
        decay_ME, added_ME = tl.associative_scan((decay_ME, added_ME), 0, _after)
        state_ME = decay_ME * carry_E[None] + added_ME
        tl.store(place, state_ME, mask)
        carry_E = tl.sum(tl.where((row == BLOCK_M - 1)[:, None], state_ME, 0.0), axis=0)


@kernel
def outputs(
    u_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, rows_ptr, D_ptr, order_ptr,
    state_ptr, y_ptr,
    u_b, u_l, delta_b, delta_l, delta_k, y_b, y_l, y_k,
    order_b, order_k, tokens, steps, directions, first, walked,
    channels, rank, states, chunks, length, blocks, held,
    LOW_RANK: tl.constexpr, MODE: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Compute y for directions first .. first + walked - 1: walk each chunk from its state."""
    e, chunk, b, k = place_of_program(blocks, chunks, first, walked, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    A_NE, weight_RE, bias_E = read_parameters(
        A_ptr, weight_ptr, bias_ptr, k, e, n, channels, states, rank, LOW_RANK, BLOCK_R
    )
    D_E = read(D_ptr + k * channels + e, e < channels)
    bk = b * directions + k
    u_ptr += b * u_b
    delta_ptr += b * delta_b + k * delta_k
    y_ptr += b * y_b + k * y_k
    order_ptr += b * order_b + k * order_k
    rows_ptr += bk * held * WIDTH

    boundary = (bk * (chunks - 1) + chunk - 1) * states * channels
    given = tl.where(chunk > 0, states, 0)
    place_NE = boundary + n[:, None] * channels + e[None]
    h_NE = read(state_ptr + place_NE, is_within(n, given, e, channels))
    start = chunk * length
    end = tl.minimum(start + length, steps)
    token, second, third, row_ptr, given, u_E, next_E = first_steps(
        rows_ptr, order_ptr, u_ptr, delta_ptr, start, end, u_l, delta_l, e, tokens, channels,
        LOW_RANK, BLOCK_N, BLOCK_R, WIDTH,
    )  # fmt: skip
    touched = nothing_touched(WIDTH)
    for s in range(start, end):
        now, now_E, now_given = token, u_E, given
        B_N = tl.load(row_ptr + n)
        C_N = tl.load(row_ptr + BLOCK_N + n)
        # The next steps are loaded while this one is computed.
        token, second, third, row_ptr, given, u_E, next_E = next_steps(
            s, second, third, row_ptr, next_E, order_ptr, u_ptr, delta_ptr, end, u_l, delta_l, e,
            tokens, channels, LOW_RANK, BLOCK_N, BLOCK_R, WIDTH,
        )  # fmt: skip
        touched = touch(touched, row_ptr + WIDTH, WIDTH)
        delta_E, _ = softplus(before_softplus(now_given, weight_RE, bias_E, LOW_RANK))
        h_NE = tl.exp2(delta_E[None] * A_NE) * h_NE + (delta_E * now_E)[None] * B_N[:, None]
        y_E = tl.sum(h_NE * C_N[:, None], axis=0) + D_E * now_E
        place_E = y_ptr + tl.maximum(now, 0).to(tl.int64) * y_l + e
        put(place_E, y_E, is_reached(now, e, channels), MODE)
    untouched(touched, rows_ptr, steps, WIDTH)
