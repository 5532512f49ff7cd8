"""The parts of MambaIRv2 once more, from their equations: float64, loops, no layers.

As in tests/helpers/plain.py: weights are read by name, and nothing of the package computes here.
"""

from __future__ import annotations

import torch

from tests.helpers.plain import conv, gelu, linear, norm, projected, scan


def conv_ffn(w, x):
    a = gelu(linear(w.under("fc1"), x))
    return linear(w.under("fc2"), a + gelu(conv(w.under("conv"), a)))


def gated_mlp(w, x):
    hidden = gelu(linear(w.under("fc1"), x))
    half = hidden.shape[-1] // 2
    gate = conv(w.under("conv"), norm(w.under("norm"), hidden[..., half:]))
    return linear(w.under("fc2"), hidden[..., :half] * gate)


def mirrored(position, size):
    """The token that a position sees in a row of mirrors at both ends of 0 .. size - 1."""
    while position >= size:
        position = 2 * size - 1 - position if position < 2 * size else position - 2 * size
    return position


def window_attention(w, x, *, window, heads, shift=0):
    batch, height, width, channels = x.shape
    tall, wide = (-(-side // window) * window for side in (height, width))
    rows = [mirrored(i, height) for i in range(tall)]
    columns = [mirrored(i, width) for i in range(wide)]
    qkv = linear(w.under("qkv"), x)[:, rows][:, :, columns].roll((-shift, -shift), (1, 2))
    found = torch.zeros(batch, tall, wide, channels, dtype=x.dtype)
    share = channels // heads

    def band(place, size):
        return (place >= size - window) + (place >= size - shift) if shift else 0

    for top in range(0, tall, window):
        for left in range(0, wide, window):
            places = [(top + i, left + j) for i in range(window) for j in range(window)]
            inside = torch.stack([qkv[:, r, c] for r, c in places], 1)
            for h in range(heads):
                q, k, v = (
                    inside[..., n * channels + h * share : n * channels + (h + 1) * share]
                    for n in range(3)
                )
                logits = torch.einsum("bpi,bqi->bpq", q, k) * share**-0.5
                for p, (r, c) in enumerate(places):
                    for s, (y, z) in enumerate(places):
                        row = (r - y + window - 1) * (2 * window - 1) + c - z + window - 1
                        logits[:, p, s] += w["bias_table"][row, h]
                        here, there = ((band(a, tall), band(b, wide)) for a, b in ((r, c), (y, z)))
                        logits[:, p, s] += -100.0 * (here != there)
                weight = logits.exp() / logits.exp().sum(-1, keepdim=True)
                y = torch.einsum("bpq,bqi->bpi", weight, v)
                for p, (r, c) in enumerate(places):
                    found[:, r, c, h * share : (h + 1) * share] = y[:, p]
    back = found.roll((shift, shift), (1, 2))[:, :height, :width]
    return linear(w.under("proj"), back)


def classes_of(w, x):
    """The class of each token, by looking for the largest logit from the left."""
    logits = linear(w.under("router.classify"), gelu(linear(w.under("router.reduce"), x)))
    flat = logits.flatten(1, 2).tolist()
    return [[max(range(len(z)), key=lambda t, z=z: (z[t], -t)) for z in image] for image in flat]


def attentive(w, x, *, prompt="raster", reverse=False):
    height, width = x.shape[1:3]
    u = linear({"weight": w["in_proj.weight"][:, :, 0, 0], "bias": w["in_proj.bias"]}, x)
    u = (u * torch.sigmoid(conv(w.under("conv"), u))).flatten(1, 2)
    table = w["prompt_classes"] @ w["prompt_states"]
    rank, states = w["dt_proj_weight"].shape[2], w["A_log"].shape[2]
    y = torch.zeros_like(u)
    for b, chosen in enumerate(classes_of(w, x)):
        order = sorted(range(len(chosen)), key=lambda token, c=chosen: (c[token], token))
        order = order[::-1] if reverse else order
        delta, B, C = projected(u[b], w["x_proj_weight"])[:, 0].split([rank, states, states], -1)
        # Step s sees the prompt of the token number s, or that of the token it visits.
        told = order if prompt == "sorted" else range(len(order))
        C = C[order] + table[[chosen[token] for token in told]]
        found = scan(w, 0, *(t[None] for t in (u[b, order], delta[order], B[order], C)))
        y[b, order] = found[0]
    y = norm(w.under("out_norm"), y)
    return linear(w.under("out_proj"), y).unflatten(1, (height, width))


def half(w, x, mixer, branch):
    y = x + mixer(w.under("mixer"), norm(w.under("norm"), x))
    y = y + branch(w.under("branch"), norm(w.under("branch_norm"), y))
    return w["skip_scale"] * x + y


def attentive_layer(w, x, *, window, heads, shift=0):
    def attention(v, t):
        return window_attention(v, t, window=window, heads=heads, shift=shift)

    return half(w.under("far"), half(w.under("near"), x, attention, conv_ffn), attentive, conv_ffn)
