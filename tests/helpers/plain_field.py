"""Parts of VmambaIR, MaIR, EAMamba and Wave-Mamba once more, from their equations, by loops.

As in ``plain.py``: float64, weights by name, nothing of the package computes here.
"""

from __future__ import annotations

import torch

from tests.helpers.plain import (
    conv,
    four_walks,
    gelu,
    linear,
    norm,
    projected,
    scan,
    scanned,
    silu,
    steered_by_itself,
)


def head_scan(w, x):
    """EAMamba: head k has the k-th share of the channels and walks along direction k alone."""
    u, gate = linear(w.under("in_proj"), x).chunk(2, -1)
    u = silu(conv(w.under("conv"), u))
    rank, states = w["dt_proj_weight"].shape[2], w["A_log"].shape[2]
    heads = []
    for k, share in enumerate(u.chunk(4, -1)):
        parts = projected(share, w["x_proj_weight"][k : k + 1])[..., 0, :]
        y = torch.zeros_like(share)
        for line in four_walks(*x.shape[1:3])[k]:
            rows, columns = [p[0] for p in line], [p[1] for p in line]
            tokens = (share, *parts.split([rank, states, states], -1))
            y[:, rows, columns] = scan(w, k, *(t[:, rows, columns] for t in tokens))
        heads.append(y)
    y = norm(w.under("out_norm"), torch.cat(heads, -1))
    return linear(w.under("out_proj"), y * silu(gate))


def channel_scan(w, y):
    """VmambaIR: the means of the channels, a row of E tokens, forwards and backwards."""
    tokens = y.mean((1, 2))[:, None, :, None]
    wide = "rise.weight" in w
    v = linear(w.under("rise"), tokens) if wide else tokens
    rank, states = w["dt_proj_weight"].shape[2], w["A_log"].shape[2]
    parts = projected(v, w["x_proj_weight"]).split([rank, states, states], -1)
    line = [(0, e) for e in range(y.shape[-1])]
    out = scanned(w, v, *parts, [[line], [line[::-1]]])
    out = linear(w.under("fall"), out) if wide else out
    return norm(w.under("norm"), out[:, 0, :, 0])[:, None, None]


def omni_scan(w, x, *, scale=False):
    u, gate = linear(w.under("in_proj"), x).chunk(2, -1)
    u = silu(conv(w.under("conv"), u))
    y = norm(w.under("out_norm"), steered_by_itself(w, u, four_walks(*x.shape[1:3])))
    y = y * silu(gate)
    c = channel_scan(w.under("channels"), y)
    return linear(w.under("out_proj"), y * c + y if scale else y + c)


def gdfn(w, x):
    """Restormer's gated feed-forward."""
    both = conv(w.under("conv"), conv(w.under("in_proj"), x))
    half = both.shape[-1] // 2
    return conv(w.under("out_proj"), gelu(both[..., :half]) * both[..., half:])


def simple_gate(w, x):
    both = conv(w.under("in_proj"), x)
    half = both.shape[-1] // 2
    return conv(w.under("out_proj"), both[..., :half] * both[..., half:])


def shuffle_attention(w, y_BLKE):
    """MaIR: gates of channel e from the K directions of channel e; row e * K + k of the weights."""
    directions, channels = y_BLKE.shape[2:]
    weight, bias = w["gate.weight"][:, :, 0, 0], w["gate.bias"]
    merged = torch.zeros_like(y_BLKE[:, :, 0])
    for e in range(channels):
        means = y_BLKE[..., e].mean(1)
        for k in range(directions):
            row = e * directions + k
            gate = torch.sigmoid((weight[row] * means).sum(-1) + bias[row])
            merged[..., e] += gate[:, None] * y_BLKE[:, :, k, e]
    return merged


def channel_match(w, x, guide):
    matched = torch.zeros_like(x)
    for b in range(len(x)):
        for c in range(x.shape[-1]):
            apart = [(x[b, ..., c] - guide[b, ..., j]).norm() for j in range(guide.shape[-1])]
            matched[b, ..., c] = guide[b, ..., torch.stack(apart).argmin()]
    both = torch.cat([x, matched], -1)
    gate = torch.sigmoid(conv(w.under("k2"), both))
    return conv(w.under("k4"), conv(w.under("k3"), both) * gate)


def hfe(w, x, guide):
    """Wave-Mamba's block for high frequencies, with one head of attention between channels."""
    guide = norm(w.under("guide_norm"), guide)
    qkv = conv(w.under("qkv_conv"), conv(w.under("qkv"), norm(w.under("norm"), x)))
    q, k, v = qkv.chunk(3, -1)
    q, k = (
        t / t.square().sum((1, 2), keepdim=True).sqrt()
        for t in (channel_match(w.under("match"), q, guide), k)
    )
    likeness = torch.einsum("bhwi,bhwj->bij", q, k) * w["temperature"].item()
    weight = likeness.exp() / likeness.exp().sum(2, keepdim=True)
    x = x + conv(w.under("out"), torch.einsum("bij,bhwj->bhwi", weight, v))
    h = conv(w.under("ffn_in.1"), conv(w.under("ffn_in.0"), norm(w.under("ffn_norm"), x)))
    h = channel_match(w.under("ffn_match"), h, guide)
    return x + conv(w.under("ffn_out.2"), gelu(conv(w.under("ffn_out.0"), h)))


def band_select(w, bands):
    mean = sum(bands).mean((1, 2), keepdim=True)
    z = conv(w.under("reduce.0"), mean)
    z = torch.where(z < 0, w["reduce.1.weight"] * z, z)
    parts = [conv(w.under(f"fcs.{n}"), z).exp() for n in range(3)]
    return sum(p / sum(parts) * band for p, band in zip(parts, bands, strict=True))
