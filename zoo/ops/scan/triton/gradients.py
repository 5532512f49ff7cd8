"""The Triton kernel of the gradients. For the context, see :mod:`zoo.ops.scan.triton.kernels`."""

# Triton reads annotations as its own types and does not support unpacking of tuples.
# ruff: noqa: ANN001, ANN201, RUF005
# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl

from zoo.ops.scan.triton.device import (
    STORE,
    before_softplus,
    first_steps,
    is_reached,
    is_within,
    kernel,
    next_steps,
    put,
    read,
    read_parameters,
    read_steps,
    softplus,
)

LN2 = tl.constexpr(0.6931471805599453)


@kernel
def gradients(
    u_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, rows_ptr, D_ptr, order_ptr, gy_ptr,
    state_ptr, carry_ptr, scratch_ptr, gu_ptr, gdelta_ptr, gB_ptr, gC_ptr, parameter_ptr,
    u_b, u_l, delta_b, delta_l, delta_k, gy_b, gy_l, gy_k,
    order_b, order_k, batch, tokens, steps, directions, first, walked,
    channels, rank, states, chunks, length, blocks, slots, part, held,
    LOW_RANK: tl.constexpr, MODE: tl.constexpr, SHARED_MODE: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, FEW: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Gradients of chunks p, p + slots, ... of all images, for one direction and channel block.

    Each chunk is walked forward once, to store the state before every FEW steps in scratch memory.
    Then its groups of FEW steps are processed from the last to the first: a group's states stay in
    registers.

    gu (B, L, E) is summed over directions as MODE says. gdelta (B, L, K, R), gB and gC
    (B, L, K, N) are sums over channels: channel blocks add to them as SHARED_MODE says, or write to
    copies of their own, ``part`` rows apart. Without a projection, gdelta is (B, L, K, E) and only
    this program writes to its part.
    parameter (slots, K, N + R + 2, E): sums of this program for A, delta_weight, delta_bias and D.
    scratch: length / FEW states of this program, (BLOCK_N, BLOCK_E) each.
    """
    program = tl.program_id(0)
    block = program % blocks
    k = (first + program // blocks % walked).to(tl.int64)
    slot = program // blocks // walked
    lane, n, r = tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_R)
    e = block * BLOCK_E + lane
    in_E = e < channels

    A_NE, weight_RE, bias_E = read_parameters(
        A_ptr, weight_ptr, bias_ptr, k, e, n, channels, states, rank, LOW_RANK, BLOCK_R
    )
    D_E = read(D_ptr + k * channels + e, in_E)
    kept = (length + FEW - 1) // FEW
    scratch_ptr += ((slot * directions + k) * blocks + block) * kept * (BLOCK_N * BLOCK_E)
    scratch_NE = scratch_ptr + n[:, None] * BLOCK_E + lane[None]
    shared = block.to(tl.int64) * part
    gA_NE = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    gweight_RE = tl.zeros((BLOCK_R, BLOCK_E), tl.float32)
    gbias_E = tl.zeros((BLOCK_E,), tl.float32)
    gD_E = tl.zeros((BLOCK_E,), tl.float32)

    for item in range(slot, batch * chunks, slots):
        b, chunk = (item // chunks).to(tl.int64), item % chunks
        u_b_ptr = u_ptr + b * u_b
        delta_b_ptr = delta_ptr + b * delta_b + k * delta_k
        rows_bk_ptr = rows_ptr + (b * directions + k) * held * WIDTH
        gy_b_ptr = gy_ptr + b * gy_b + k * gy_k
        path_ptr = order_ptr + b * order_b + k * order_k
        start = chunk * length
        end = tl.minimum(start + length, steps)
        groups = (end - start + FEW - 1) // FEW

        boundary = ((b * directions + k) * (chunks - 1) + chunk) * states * channels
        place_NE = boundary + n[:, None] * channels + e[None]
        given = tl.where(chunk > 0, states, 0)
        h_NE = read(state_ptr + place_NE - states * channels, is_within(n, given, e, channels))
        given = tl.where(chunk < chunks - 1, states, 0)
        gh_NE = read(carry_ptr + place_NE, is_within(n, given, e, channels))

        # Forward: keep the state before every FEW steps. The next steps are loaded while this one
        # is computed.
        token, second, third, row_ptr, given, u_E, next_E = first_steps(
            rows_bk_ptr, path_ptr, u_b_ptr, delta_b_ptr, start, end, u_l, delta_l, e, tokens,
            channels, LOW_RANK, BLOCK_N, BLOCK_R, WIDTH,
        )  # fmt: skip
        for group in range(groups - 1):
            tl.store(scratch_NE + group * (BLOCK_N * BLOCK_E), h_NE)
            for t in tl.static_range(FEW):
                now_E, now_given = u_E, given
                B_N = tl.load(row_ptr + n)
                token, second, third, row_ptr, given, u_E, next_E = next_steps(
                    start + group * FEW + t, second, third, row_ptr, next_E, path_ptr, u_b_ptr,
                    delta_b_ptr, end, u_l, delta_l, e, tokens, channels, LOW_RANK, BLOCK_N, BLOCK_R,
                    WIDTH,
                )  # fmt: skip
                delta_E, _ = softplus(before_softplus(now_given, weight_RE, bias_E, LOW_RANK))
                h_NE = tl.exp2(delta_E[None] * A_NE) * h_NE + (delta_E * now_E)[None] * B_N[:, None]
        tl.store(scratch_NE + (groups - 1) * (BLOCK_N * BLOCK_E), h_NE)
        tl.debug_barrier()  # a lane may read what another has stored

        for back in range(groups):
            group = groups - 1 - back
            now = start + group * FEW
            h_NE = tl.load(scratch_NE + group * (BLOCK_N * BLOCK_E))
            token_T, u_T, given_T, gy_T, B_T, C_T = read_steps(
                rows_bk_ptr, u_b_ptr, delta_b_ptr, path_ptr, gy_b_ptr, now, end, u_l, delta_l, gy_l,
                e, n, tokens, channels, LOW_RANK, BLOCK_N, BLOCK_R, WIDTH, FEW,
            )  # fmt: skip
            delta_T, slope_T, h_T = (), (), (h_NE,)
            for t in tl.static_range(FEW):
                delta_E, slope_E = softplus(
                    before_softplus(given_T[t], weight_RE, bias_E, LOW_RANK)
                )
                # A step past the end changes nothing; one of -1 still decays the state.
                delta_E = tl.where(now + t < end, delta_E, 0.0)
                delta_T = delta_T + (delta_E,)
                slope_T = slope_T + (tl.where(now + t < end, slope_E, 0.0),)
                h_NE = (
                    tl.exp2(delta_E[None] * A_NE) * h_NE
                    + (delta_E * u_T[t])[None] * B_T[t][:, None]
                )
                h_T = h_T + (h_NE,)

            for t in tl.static_range(FEW - 1, -1, -1):
                token, delta_E, u_E, gy_E = token_T[t], delta_T[t], u_T[t], gy_T[t]
                at = (b * tokens + tl.maximum(token, 0)) * directions + k
                in_N = is_reached(token, n, states)

                gC_N = tl.sum(gy_E[None] * h_T[t + 1], axis=1)
                put(gC_ptr + (shared + at) * states + n, gC_N, in_N, SHARED_MODE)
                gh_NE += C_T[t][:, None] * gy_E[None]
                gB_N = tl.sum(gh_NE * (delta_E * u_E)[None], axis=1)
                put(gB_ptr + (shared + at) * states + n, gB_N, in_N, SHARED_MODE)
                a_NE = tl.exp2(delta_E[None] * A_NE)
                gdu_E = tl.sum(gh_NE * B_T[t][:, None], axis=0)
                gh_NE *= a_NE
                glog_NE = gh_NE * h_T[t]
                gA_NE += glog_NE * delta_E[None]
                gdelta_E = LN2 * tl.sum(glog_NE * A_NE, axis=0) + gdu_E * u_E

                reached = is_reached(token, e, channels)
                gu_E = gdu_E * delta_E + D_E * gy_E
                put(
                    gu_ptr + (b * tokens + tl.maximum(token, 0)) * channels + e, gu_E, reached, MODE
                )
                graw_E = gdelta_E * slope_T[t]
                gbias_E += graw_E
                gD_E += gy_E * u_E
                if LOW_RANK:
                    gweight_RE += graw_E[None] * given_T[t][:, None]
                    glow_R = tl.sum(graw_E[None] * weight_RE, axis=1)
                    place_R = gdelta_ptr + (shared + at) * rank + r
                    put(place_R, glow_R, is_reached(token, r, rank), SHARED_MODE)
                else:
                    put(gdelta_ptr + at * channels + e, graw_E, reached, STORE)
        tl.debug_barrier()  # the next chunk writes to the same scratch memory

    parameter_ptr += (slot * directions + k) * (states + rank + 2) * channels + e
    in_NE, in_RE = is_within(n, states, e, channels), is_within(r, rank, e, channels)
    tl.store(parameter_ptr[None] + n[:, None] * channels, gA_NE, in_NE)
    if LOW_RANK:
        tl.store(parameter_ptr[None] + (states + r[:, None]) * channels, gweight_RE, in_RE)
    tl.store(parameter_ptr + (states + rank) * channels, gbias_E, in_E)
    tl.store(parameter_ptr + (states + rank + 1) * channels, gD_E, in_E)
