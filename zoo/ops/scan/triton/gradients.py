"""The Triton kernel of the gradients. For the context, see :mod:`zoo.ops.scan.triton.kernels`."""

# Triton reads annotations as its own types and does not support unpacking of tuples.
# ruff: noqa: ANN001, ANN201, RUF005
# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl

from zoo.ops.scan.triton.device import (
    ADD,
    LOG2E,
    STORE,
    is_reached,
    kernel,
    put,
    read_entry,
    read_row,
    read_steps,
    softplus,
)


@kernel
def gradients(
    u_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, B_ptr, C_ptr, D_ptr, order_ptr, gy_ptr,
    state_ptr, carry_ptr, scratch_ptr, gu_ptr, gdelta_ptr, gB_ptr, gC_ptr, parameter_ptr,
    u_b, u_l, delta_b, delta_l, delta_k, B_b, B_l, B_k, C_b, C_l, C_k, gy_b, gy_l, gy_k,
    order_b, order_k, batch, tokens, steps, directions, first, walked,
    channels, rank, states, chunks, length, blocks, slots, part, width,
    LOW_RANK: tl.constexpr, MODE: tl.constexpr, SHARED_MODE: tl.constexpr,
    BLOCK_E: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Gradients of chunks p, p + slots, ... of all images, for one direction and channel block.

    Each program loops over states and processes FEW steps at once: a lane holds these steps of its
    channels in registers; the states between groups of FEW steps are in scratch memory.

    gu (B, L, E) is summed over directions as MODE says. gdelta (B, L, K, R), gB and gC
    (B, L, K, N) are sums over channels: channel blocks add to them as SHARED_MODE says, or write to
    copies of their own, ``part`` rows apart. Without a projection, gdelta is (B, L, K, E) and only
    this program writes to its part.
    parameter (slots, K, N + R + 2, E): sums of this program for A, delta_weight, delta_bias and D.
    scratch: length / FEW states and one carry of this program, (N, width) each. ``width`` equals
    BLOCK_E, but as a number that the compiler does not know. If the compiler knew it, it would load
    several adjacent channels of scratch per lane, a different layout over lanes, and would have to
    exchange values between lanes at every step.
    """
    program = tl.program_id(0)
    block = program % blocks
    k = (first + program // blocks % walked).to(tl.int64)
    slot = program // blocks // walked
    lane = tl.arange(0, BLOCK_E)
    e = block * BLOCK_E + lane
    in_E = e < channels

    A_ptr += k * states * channels
    weight_ptr += k * rank * channels
    bias_E = tl.load(bias_ptr + k * channels + e, mask=in_E, other=0.0)
    D_E = tl.load(D_ptr + k * channels + e, mask=in_E, other=0.0)
    few_states = states * width
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
        for nn in range(states):
            at_E = boundary + nn * channels + e
            given = e < tl.where(chunk > 0, channels, 0)
            h_E = tl.load(state_ptr + at_E - states * channels, mask=given, other=0.0)
            tl.store(scratch_ptr + nn * width + lane, h_E)
            given = e < tl.where(chunk < chunks - 1, channels, 0)
            gh_E = tl.load(carry_ptr + at_E, mask=given, other=0.0)
            tl.store(passed_ptr + nn * width + lane, gh_E)
        tl.debug_barrier()  # a lane may read what another has stored
        for group in range(groups - 1):
            token_T, u_T, raw_T = read_steps(
                u_b_ptr, delta_b_ptr, weight_ptr, path_ptr, bias_E, start + group * FEW, end,
                u_l, delta_l, rank, e, tokens, channels, LOW_RANK, FEW,
            )  # fmt: skip
            delta_T = ()
            for t in tl.static_range(FEW):
                delta_E, _ = softplus(raw_T[t])
                delta_T = delta_T + (delta_E,)
            kept_ptr = scratch_ptr + group * few_states + lane
            for nn in range(states):
                A_E = tl.load(A_ptr + nn * channels + e, mask=in_E, other=0.0) * LOG2E
                h_E = tl.load(kept_ptr + nn * width)
                for t in tl.static_range(FEW):
                    B = read_entry(B_b_ptr, token_T[t], B_l, nn)
                    h_E = tl.exp2(delta_T[t] * A_E) * h_E + delta_T[t] * u_T[t] * B
                tl.store(kept_ptr + few_states + nn * width, h_E)
            tl.debug_barrier()

        for back in range(groups):
            group = groups - 1 - back
            now = start + group * FEW
            token_T, u_T, raw_T = read_steps(
                u_b_ptr, delta_b_ptr, weight_ptr, path_ptr, bias_E, now, end,
                u_l, delta_l, rank, e, tokens, channels, LOW_RANK, FEW,
            )  # fmt: skip
            gy_T, delta_T, slope_T, gdelta_T, gdu_T = (), (), (), (), ()
            for t in tl.static_range(FEW):
                gy_T = gy_T + (read_row(gy_b_ptr, token_T[t], gy_l, e, channels),)
                delta_E, slope_E = softplus(raw_T[t])
                # A step past the end changes nothing; one of -1 still decays the state.
                delta_T = delta_T + (tl.where(now + t < end, delta_E, 0.0),)
                slope_T = slope_T + (tl.where(now + t < end, slope_E, 0.0),)
                gdelta_T = gdelta_T + (tl.zeros((BLOCK_E,), tl.float32),)
                gdu_T = gdu_T + (tl.zeros((BLOCK_E,), tl.float32),)

            for nn in range(states):
                A_E = tl.load(A_ptr + nn * channels + e, mask=in_E, other=0.0)
                h_E = tl.load(scratch_ptr + group * few_states + nn * width + lane)
                gh_E = tl.load(passed_ptr + nn * width + lane)
                gA_E = tl.zeros((BLOCK_E,), tl.float32)
                a_T, kept_T = (), ()
                for t in tl.static_range(FEW):
                    a_E = tl.exp2(delta_T[t] * (A_E * LOG2E))
                    kept_E = a_E * h_E  # the decayed state from before the step
                    B = read_entry(B_b_ptr, token_T[t], B_l, nn)
                    h_E = kept_E + delta_T[t] * u_T[t] * B
                    a_T, kept_T = a_T + (a_E,), kept_T + (kept_E,)
                    at = tl.maximum(token_T[t], 0).to(tl.int64)
                    place = (shared + (b * tokens + at) * directions + k) * states + nn
                    gC = tl.sum(gy_T[t] * h_E, axis=0)
                    put(gC_ptr + place, gC, token_T[t] >= 0, SHARED_MODE)
                more_T, more_du_T = (), ()
                for t in tl.static_range(FEW - 1, -1, -1):
                    B = read_entry(B_b_ptr, token_T[t], B_l, nn)
                    C = read_entry(C_b_ptr, token_T[t], C_l, nn)
                    gh_E += C * gy_T[t]
                    at = tl.maximum(token_T[t], 0).to(tl.int64)
                    place = (shared + (b * tokens + at) * directions + k) * states + nn
                    gB = tl.sum(gh_E * (delta_T[t] * u_T[t]), axis=0)
                    put(gB_ptr + place, gB, token_T[t] >= 0, SHARED_MODE)
                    glog_E = gh_E * kept_T[t]
                    more_T = (gdelta_T[t] + glog_E * A_E,) + more_T
                    more_du_T = (gdu_T[t] + gh_E * B,) + more_du_T
                    gA_E += glog_E * delta_T[t]
                    gh_E *= a_T[t]
                gdelta_T, gdu_T = more_T, more_du_T
                tl.store(passed_ptr + nn * width + lane, gh_E)
                put(parameter_ptr + nn * channels, gA_E, in_E, ADD)

            graw_T = ()
            for t in tl.static_range(FEW):
                at = tl.maximum(token_T[t], 0).to(tl.int64)
                gu_E = gdu_T[t] * delta_T[t] + D_E * gy_T[t]
                place_E = gu_ptr + (b * tokens + at) * channels + e
                put(place_E, gu_E, is_reached(token_T[t], e, channels), MODE)
                graw_E = (gdelta_T[t] + gdu_T[t] * u_T[t]) * slope_T[t]
                graw_T = graw_T + (graw_E,)
                gbias_E += graw_E
                gD_E += gy_T[t] * u_T[t]
                if not LOW_RANK:
                    place_E = gdelta_ptr + ((b * tokens + at) * directions + k) * channels + e
                    put(place_E, graw_E, is_reached(token_T[t], e, channels), STORE)
            if LOW_RANK:
                for rr in range(rank):
                    weight_E = tl.load(weight_ptr + rr * channels + e, mask=in_E, other=0.0)
                    gweight_E = tl.zeros((BLOCK_E,), tl.float32)
                    for t in tl.static_range(FEW):
                        gweight_E += graw_T[t] * read_entry(delta_b_ptr, token_T[t], delta_l, rr)
                        gstep = tl.sum(graw_T[t] * weight_E, axis=0)
                        at = tl.maximum(token_T[t], 0).to(tl.int64)
                        row = shared + (b * tokens + at) * directions + k
                        put(
                            gdelta_ptr + row * rank + rr, gstep, token_T[t] >= 0, SHARED_MODE
                        )  # fmt: skip
                    put(parameter_ptr + (states + rr) * channels, gweight_E, in_E, ADD)
            tl.debug_barrier()

    tl.store(parameter_ptr + (states + rank) * channels, gbias_E, mask=in_E)
    tl.store(parameter_ptr + (states + rank + 1) * channels, gD_E, mask=in_E)
