"""The Triton kernels of the selective scan; imported only by what launches them.

The sequence of each (image, direction) is cut into chunks. ``chunk_states`` walks every chunk from
a zero state, ``carry_states`` turns what the chunks leave behind into the state before each of
them, and ``outputs`` walks every chunk again from there. For gradients the same is done in both
directions of time, and ``gradients`` walks a chunk forward to keep a state every few steps, then
takes these few steps at a time from the last to the first.

A lane owns channels and holds all states of them, so the sum over states is a lane's own and
kernels with one warp or many never wait for each other. Channels are therefore the innermost axis
everywhere: A comes as (K, N, E), delta_weight as (K, R, E). Sizes and strides are not specialised:
one binary serves all image sizes, and no load is so wide that it would spread states over lanes.

Shape suffixes, beside those of :mod:`zoo.ops.scan.contract`: J chunks, M = J - 1 boundaries between
them. Every ``*_b, *_l, *_k`` is a stride in elements: to the next image, token, direction.
"""

# Triton reads annotations as types of its own and knows no unpacking of tuples.
# ruff: noqa: ANN001, ANN201, ANN202, RUF005
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

_LOG2E = tl.constexpr(1.4426950408889634)

_SIZES = [
    *("u_b", "u_l", "delta_b", "delta_l", "delta_k", "B_b", "B_l", "B_k", "C_b", "C_l", "C_k"),
    *("gy_b", "gy_l", "gy_k", "y_b", "y_l", "y_k", "order_b", "order_k"),
    *("batch", "steps", "directions", "channels", "rank", "states", "chunks", "length"),
    *("tokens", "first", "walked", "blocks", "slots", "part", "shift", "boundaries"),
]


def _kernel(function):
    known = [name for name in _SIZES if name in function.__code__.co_varnames]
    return triton.jit(do_not_specialize=known)(function)


@triton.jit
def _put(pointer, value, mask, MODE: tl.constexpr):
    if MODE == STORE:
        tl.store(pointer, value.to(pointer.dtype.element_ty), mask=mask)
    elif MODE == ADD:
        tl.store(pointer, tl.load(pointer, mask=mask, other=0.0) + value, mask=mask)
    else:
        tl.atomic_add(pointer, value, mask=mask, sem="relaxed")


@triton.jit
def _softplus(raw):
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
def _reached(token, index, size):
    """Mask of the ``size`` values of a token; empty for token -1."""
    return index < tl.where(token >= 0, size, 0)


@triton.jit
def _row(pointer, token, stride, index, size):
    """The ``size`` values of one token, zero for token -1 and beyond, in float32."""
    place = pointer + tl.maximum(token, 0).to(tl.int64) * stride + index
    return tl.load(place, mask=_reached(token, index, size), other=0.0).to(tl.float32)


@triton.jit
def _entry(pointer, token, stride, index):
    """One value of one token, zero for token -1, in float32."""
    place = pointer + tl.maximum(token, 0).to(tl.int64) * stride + index
    return tl.load(place, mask=token >= 0, other=0.0).to(tl.float32)


@triton.jit
def _within(n, states, e, channels):
    """Mask of (N, E); empty where ``states`` is zero."""
    return (n < states)[:, None] & (e < channels)[None]


@triton.jit
def _step(
    delta_ptr, token, delta_l, weight_RE, bias_E, r, e, rank, channels, LOW_RANK: tl.constexpr
):
    """The step of one token for the channels of a program, before softplus."""
    if LOW_RANK:
        step_R = _row(delta_ptr, token, delta_l, r, rank)
        return bias_E + tl.sum(weight_RE * step_R[:, None], axis=0)
    return bias_E + _row(delta_ptr, token, delta_l, e, channels)


@_kernel
def chunk_states(
    u_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, B_ptr, C_ptr, order_ptr, gy_ptr,
    state_ptr, carry_ptr, total_ptr,
    u_b, u_l, delta_b, delta_l, delta_k, B_b, B_l, B_k, C_b, C_l, C_k, gy_b, gy_l, gy_k,
    order_b, order_k, steps, directions, channels, rank, states, chunks, length, blocks,
    LOW_RANK: tl.constexpr, BACKWARD: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """What each chunk does to a state: what it adds, and the sum of its steps.

    state (B, K, M, N, E): the state after chunk j, from zero. total (B, K, J, E): the sum of the
    steps of a chunk; exp(A total) is its decay. BACKWARD, carry (B, K, M, N, E): the gradient that
    chunk j + 1 passes to the state before it, if none reaches it from behind.
    """
    program = tl.program_id(0)
    e = program % blocks * BLOCK_E + tl.arange(0, BLOCK_E)
    chunk = program // blocks % chunks
    bk = (program // blocks // chunks).to(tl.int64)
    b, k = bk // directions, bk % directions
    n, r = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_R)
    in_E, in_N, in_R = e < channels, n < states, r < rank
    in_NE = in_N[:, None] & in_E[None]

    u_ptr += b * u_b
    delta_ptr += b * delta_b + k * delta_k
    B_ptr += b * B_b + k * B_k
    order_ptr += b * order_b + k * order_k
    place_NE = n[:, None] * channels + e[None]
    A_NE = tl.load(A_ptr + k * states * channels + place_NE, mask=in_NE, other=0.0) * _LOG2E
    bias_E = tl.load(bias_ptr + k * channels + e, mask=in_E, other=0.0)
    weight_RE = bias_E[None]
    if LOW_RANK:
        weight_RE = tl.load(
            weight_ptr + (k * rank + r[:, None]) * channels + e[None],
            mask=in_R[:, None] & in_E[None],
            other=0.0,
        )

    h_NE = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    total_E = tl.zeros((BLOCK_E,), tl.float32)
    if BACKWARD:
        C_ptr += b * C_b + k * C_k
        gy_ptr += b * gy_b + k * gy_k
        carry_NE = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
        decay_NE = tl.full((BLOCK_N, BLOCK_E), 1.0, tl.float32)
    start = chunk * length
    for s in range(start, tl.minimum(start + length, steps)):
        token = tl.load(order_ptr + s)
        raw_E = _step(
            delta_ptr, token, delta_l, weight_RE, bias_E, r, e, rank, channels, LOW_RANK
        )  # fmt: skip
        delta_E, _ = _softplus(raw_E)
        du_E = delta_E * _row(u_ptr, token, u_l, e, channels)
        B_N = _row(B_ptr, token, B_l, n, states)
        a_NE = tl.exp2(delta_E[None] * A_NE)
        h_NE = a_NE * h_NE + du_E[None] * B_N[:, None]
        total_E += delta_E
        if BACKWARD:
            C_N = _row(C_ptr, token, C_l, n, states)
            decay_NE *= a_NE
            carry_NE += decay_NE * (C_N[:, None] * _row(gy_ptr, token, gy_l, e, channels)[None])

    tl.store(total_ptr + (bk * chunks + chunk) * channels + e, total_E, mask=in_E)
    slot = (bk * (chunks - 1) + chunk) * states * channels
    left = tl.where(chunk < chunks - 1, states, 0)
    tl.store(state_ptr + slot + place_NE, h_NE, mask=_within(n, left, e, channels))
    if BACKWARD:
        before = slot - states * channels
        left = tl.where(chunk > 0, states, 0)
        tl.store(carry_ptr + before + place_NE, carry_NE, mask=_within(n, left, e, channels))


@triton.jit
def _after(decay_1, added_1, decay_2, added_2):
    """Two stretches of the recurrence h -> decay h + added, one after the other."""
    return decay_1 * decay_2, decay_2 * added_1 + added_2


@_kernel
def carry_states(
    state_ptr, A_ptr, total_ptr,
    directions, channels, states, chunks, boundaries, shift, blocks,
    REVERSED: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Run the recurrence over chunks, in place: what they add becomes the state at boundaries.

    ``shift`` is the chunk whose decay lies between boundary j - 1 and j (0), or, REVERSED, between
    j and j + 1 (1), less j.
    """
    program = tl.program_id(0)
    e = program % blocks * BLOCK_E + tl.arange(0, BLOCK_E)
    n = program // blocks % states
    bk = (program // blocks // states).to(tl.int64)
    in_E = e < channels
    A_E = tl.load(A_ptr + (bk % directions * states + n) * channels + e, mask=in_E, other=0.0)
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
        total_ME = tl.load(total_ptr + m[:, None] * channels + e[None], mask=mask, other=0.0)
        decay_ME = tl.exp2(total_ME * (A_E * _LOG2E)[None])
        added_ME = tl.load(place, mask=mask, other=0.0)
        decay_ME, added_ME = tl.associative_scan((decay_ME, added_ME), 0, _after)
        state_ME = decay_ME * carry_E[None] + added_ME
        tl.store(place, state_ME, mask=mask)
        carry_E = tl.sum(tl.where((row == BLOCK_M - 1)[:, None], state_ME, 0.0), axis=0)


@_kernel
def outputs(
    u_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, B_ptr, C_ptr, D_ptr, order_ptr,
    state_ptr, y_ptr,
    u_b, u_l, delta_b, delta_l, delta_k, B_b, B_l, B_k, C_b, C_l, C_k, y_b, y_l, y_k,
    order_b, order_k, steps, directions, first, walked,
    channels, rank, states, chunks, length, blocks,
    LOW_RANK: tl.constexpr, MODE: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Walk each chunk from the state before it, for directions first .. first + walked - 1."""
    program = tl.program_id(0)
    e = program % blocks * BLOCK_E + tl.arange(0, BLOCK_E)
    chunk = program // blocks % chunks
    bk = (program // blocks // chunks).to(tl.int64)
    b, k = bk // walked, first + bk % walked
    n, r = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_R)
    in_E, in_N, in_R = e < channels, n < states, r < rank
    in_NE = in_N[:, None] & in_E[None]

    u_ptr += b * u_b
    delta_ptr += b * delta_b + k * delta_k
    B_ptr += b * B_b + k * B_k
    C_ptr += b * C_b + k * C_k
    y_ptr += b * y_b + k * y_k
    order_ptr += b * order_b + k * order_k
    place_NE = n[:, None] * channels + e[None]
    A_NE = tl.load(A_ptr + k * states * channels + place_NE, mask=in_NE, other=0.0) * _LOG2E
    bias_E = tl.load(bias_ptr + k * channels + e, mask=in_E, other=0.0)
    D_E = tl.load(D_ptr + k * channels + e, mask=in_E, other=0.0)
    weight_RE = bias_E[None]
    if LOW_RANK:
        weight_RE = tl.load(
            weight_ptr + (k * rank + r[:, None]) * channels + e[None],
            mask=in_R[:, None] & in_E[None],
            other=0.0,
        )

    before = ((b * directions + k) * (chunks - 1) + chunk - 1) * states * channels
    in_before = _within(n, tl.where(chunk > 0, states, 0), e, channels)
    h_NE = tl.load(state_ptr + before + place_NE, mask=in_before, other=0.0)
    start = chunk * length
    for s in range(start, tl.minimum(start + length, steps)):
        token = tl.load(order_ptr + s)
        raw_E = _step(
            delta_ptr, token, delta_l, weight_RE, bias_E, r, e, rank, channels, LOW_RANK
        )  # fmt: skip
        delta_E, _ = _softplus(raw_E)
        u_E = _row(u_ptr, token, u_l, e, channels)
        B_N = _row(B_ptr, token, B_l, n, states)
        C_N = _row(C_ptr, token, C_l, n, states)
        h_NE = tl.exp2(delta_E[None] * A_NE) * h_NE + (delta_E * u_E)[None] * B_N[:, None]
        y_E = tl.sum(h_NE * C_N[:, None], axis=0) + D_E * u_E
        place_E = y_ptr + tl.maximum(token, 0).to(tl.int64) * y_l + e
        _put(place_E, y_E, _reached(token, e, channels), MODE)


@_kernel
def gradients(
    u_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, B_ptr, C_ptr, D_ptr, order_ptr, gy_ptr,
    state_ptr, carry_ptr, scratch_ptr, gu_ptr, gdelta_ptr, gB_ptr, gC_ptr, parameter_ptr,
    u_b, u_l, delta_b, delta_l, delta_k, B_b, B_l, B_k, C_b, C_l, C_k, gy_b, gy_l, gy_k,
    order_b, order_k, batch, tokens, steps, directions, first, walked,
    channels, rank, states, chunks, length, blocks, slots, part,
    LOW_RANK: tl.constexpr, MODE: tl.constexpr, SHARED_MODE: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Gradients of chunks p, p + slots, ... of all images, for one direction and channel block.

    gu (B, L, E), summed over directions by MODE. gdelta (B, L, K, R), gB and gC (B, L, K, N) are
    sums over channels: blocks share them by SHARED_MODE, or have copies ``part`` rows apart.
    Without a projection gdelta is (B, L, K, E) and nobody's but this program's.
    parameter (slots, K, N + R + 2, E): sums of this program for A, delta_weight, delta_bias and D.
    scratch: length / FEW states and one carry of this program, (N, BLOCK_E) each.
    """
    program = tl.program_id(0)
    block = program % blocks
    k = (first + program // blocks % walked).to(tl.int64)
    slot = program // blocks // walked
    lane = tl.arange(0, BLOCK_E)
    e = block * BLOCK_E + lane
    n, r = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_R)
    in_E, in_N, in_R = e < channels, n < states, r < rank
    in_NE = in_N[:, None] & in_E[None]
    place_NE = n[:, None] * channels + e[None]
    local_NE = n[:, None] * BLOCK_E + lane[None]

    A_ptr += k * states * channels
    weight_ptr += k * rank * channels
    bias_E = tl.load(bias_ptr + k * channels + e, mask=in_E, other=0.0)
    D_E = tl.load(D_ptr + k * channels + e, mask=in_E, other=0.0)
    few_states = states * BLOCK_E
    kept = (length + FEW - 1) // FEW
    scratch_ptr += ((slot * directions + k) * blocks + block) * (kept + 1) * few_states
    passed_ptr = scratch_ptr + kept.to(tl.int64) * few_states
    parameter_ptr += (slot * directions + k) * (states + rank + 2) * channels + e
    shared = block.to(tl.int64) * part
    gbias_E = tl.zeros((BLOCK_E,), tl.float32)
    gD_E = tl.zeros((BLOCK_E,), tl.float32)

    for item in range(slot, batch * chunks, slots):
        b, chunk = (item // chunks).to(tl.int64), item % chunks
        u_b_ptr = u_ptr + b * u_b
        delta_b_ptr = delta_ptr + b * delta_b + k * delta_k
        B_b_ptr = B_ptr + b * B_b + k * B_k
        C_b_ptr = C_ptr + b * C_b + k * C_k
        gy_b_ptr = gy_ptr + b * gy_b + k * gy_k
        path_ptr = order_ptr + b * order_b + k * order_k
        boundary = ((b * directions + k) * (chunks - 1) + chunk) * states * channels
        start = chunk * length
        end = tl.minimum(start + length, steps)
        groups = (end - start + FEW - 1) // FEW

        # Forward: keep the state before every FEW steps.
        A_NE = tl.load(A_ptr + place_NE, mask=in_NE, other=0.0) * _LOG2E
        weight_RE = bias_E[None]
        if LOW_RANK:
            weight_RE = tl.load(
                weight_ptr + r[:, None] * channels + e[None],
                mask=in_R[:, None] & in_E[None],
                other=0.0,
            )
        h_NE = tl.load(
            state_ptr + boundary - states * channels + place_NE,
            mask=_within(n, tl.where(chunk > 0, states, 0), e, channels),
            other=0.0,
        )
        tl.store(scratch_ptr + local_NE, h_NE, mask=in_N[:, None])
        for group in range(1, groups):
            for s in range(start + (group - 1) * FEW, start + group * FEW):
                token = tl.load(path_ptr + s)
                raw_E = _step(
                    delta_b_ptr, token, delta_l, weight_RE, bias_E, r, e, rank, channels, LOW_RANK
                )  # fmt: skip
                delta_E, _ = _softplus(raw_E)
                du_E = delta_E * _row(u_b_ptr, token, u_l, e, channels)
                B_N = _row(B_b_ptr, token, B_l, n, states)
                h_NE = tl.exp2(delta_E[None] * A_NE) * h_NE + du_E[None] * B_N[:, None]
            tl.store(scratch_ptr + group * few_states + local_NE, h_NE, mask=in_N[:, None])
        passed_NE = tl.load(
            carry_ptr + boundary + place_NE,
            mask=_within(n, tl.where(chunk < chunks - 1, states, 0), e, channels),
            other=0.0,
        )
        tl.store(passed_ptr + local_NE, passed_NE, mask=in_N[:, None])
        tl.debug_barrier()  # what one lane has kept another may read

        for back in range(groups):
            group = groups - 1 - back
            now = start + group * FEW
            token_T, u_T, gy_T, raw_T = (), (), (), ()
            for t in tl.static_range(FEW):
                token = tl.load(path_ptr + now + t, mask=now + t < end, other=-1)
                token_T = token_T + (token,)
                u_T = u_T + (_row(u_b_ptr, token, u_l, e, channels),)
                gy_T = gy_T + (_row(gy_b_ptr, token, gy_l, e, channels),)
                if LOW_RANK:
                    raw_T = raw_T + (bias_E,)
                else:
                    raw_T = raw_T + (bias_E + _row(delta_b_ptr, token, delta_l, e, channels),)
            if LOW_RANK:
                for rr in range(rank):
                    weight_E = tl.load(weight_ptr + rr * channels + e, mask=in_E, other=0.0)
                    sum_T = ()
                    for t in tl.static_range(FEW):
                        step = _entry(delta_b_ptr, token_T[t], delta_l, rr)
                        sum_T = sum_T + (raw_T[t] + weight_E * step,)
                    raw_T = sum_T
            delta_T, slope_T, gdelta_T, gdu_T = (), (), (), ()
            for t in tl.static_range(FEW):
                delta_E, slope_E = _softplus(raw_T[t])
                # A step past the end changes nothing; one of -1 still decays the state.
                delta_T = delta_T + (tl.where(now + t < end, delta_E, 0.0),)
                slope_T = slope_T + (tl.where(now + t < end, slope_E, 0.0),)
                gdelta_T = gdelta_T + (tl.zeros((BLOCK_E,), tl.float32),)
                gdu_T = gdu_T + (tl.zeros((BLOCK_E,), tl.float32),)

            for nn in range(states):
                A_E = tl.load(A_ptr + nn * channels + e, mask=in_E, other=0.0)
                h_E = tl.load(scratch_ptr + group * few_states + nn * BLOCK_E + lane)
                gh_E = tl.load(passed_ptr + nn * BLOCK_E + lane)
                gA_E = tl.zeros((BLOCK_E,), tl.float32)
                a_T, kept_T = (), ()
                for t in tl.static_range(FEW):
                    a_E = tl.exp2(delta_T[t] * (A_E * _LOG2E))
                    kept_E = a_E * h_E  # what is left of the state before the step
                    B = _entry(B_b_ptr, token_T[t], B_l, nn)
                    h_E = kept_E + delta_T[t] * u_T[t] * B
                    a_T, kept_T = a_T + (a_E,), kept_T + (kept_E,)
                    at = tl.maximum(token_T[t], 0).to(tl.int64)
                    place = (shared + (b * tokens + at) * directions + k) * states + nn
                    gC = tl.sum(gy_T[t] * h_E, axis=0)
                    _put(gC_ptr + place, gC, token_T[t] >= 0, SHARED_MODE)
                more_T, more_du_T = (), ()
                for t in tl.static_range(FEW - 1, -1, -1):
                    B = _entry(B_b_ptr, token_T[t], B_l, nn)
                    C = _entry(C_b_ptr, token_T[t], C_l, nn)
                    gh_E += C * gy_T[t]
                    at = tl.maximum(token_T[t], 0).to(tl.int64)
                    place = (shared + (b * tokens + at) * directions + k) * states + nn
                    gB = tl.sum(gh_E * (delta_T[t] * u_T[t]), axis=0)
                    _put(gB_ptr + place, gB, token_T[t] >= 0, SHARED_MODE)
                    glog_E = gh_E * kept_T[t]
                    more_T = (gdelta_T[t] + glog_E * A_E,) + more_T
                    more_du_T = (gdu_T[t] + gh_E * B,) + more_du_T
                    gA_E += glog_E * delta_T[t]
                    gh_E *= a_T[t]
                gdelta_T, gdu_T = more_T, more_du_T
                tl.store(passed_ptr + nn * BLOCK_E + lane, gh_E)
                _put(parameter_ptr + nn * channels, gA_E, in_E, ADD)

            graw_T = ()
            for t in tl.static_range(FEW):
                at = tl.maximum(token_T[t], 0).to(tl.int64)
                gu_E = gdu_T[t] * delta_T[t] + D_E * gy_T[t]
                place_E = gu_ptr + (b * tokens + at) * channels + e
                _put(place_E, gu_E, _reached(token_T[t], e, channels), MODE)
                graw_E = (gdelta_T[t] + gdu_T[t] * u_T[t]) * slope_T[t]
                graw_T = graw_T + (graw_E,)
                gbias_E += graw_E
                gD_E += gy_T[t] * u_T[t]
                if not LOW_RANK:
                    place_E = gdelta_ptr + ((b * tokens + at) * directions + k) * channels + e
                    _put(place_E, graw_E, _reached(token_T[t], e, channels), STORE)
            if LOW_RANK:
                for rr in range(rank):
                    weight_E = tl.load(weight_ptr + rr * channels + e, mask=in_E, other=0.0)
                    gweight_E = tl.zeros((BLOCK_E,), tl.float32)
                    for t in tl.static_range(FEW):
                        gweight_E += graw_T[t] * _entry(delta_b_ptr, token_T[t], delta_l, rr)
                        gstep = tl.sum(graw_T[t] * weight_E, axis=0)
                        at = tl.maximum(token_T[t], 0).to(tl.int64)
                        row = shared + (b * tokens + at) * directions + k
                        _put(
                            gdelta_ptr + row * rank + rr, gstep, token_T[t] >= 0, SHARED_MODE
                        )  # fmt: skip
                    _put(parameter_ptr + (states + rr) * channels, gweight_E, in_E, ADD)
            tl.debug_barrier()

    tl.store(parameter_ptr + (states + rank) * channels, gbias_E, mask=in_E)
    tl.store(parameter_ptr + (states + rank + 1) * channels, gD_E, mask=in_E)
