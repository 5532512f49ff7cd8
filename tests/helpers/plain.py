"""Blocks, fusions and alignment once more, from the papers' equations: float64, loops, no layers.

Weights are read by name from a part's state dict; nothing of the package computes here. Features
are ``(B, H, W, C)``. The papers are those that the modules of zoo/blocks cite.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def randomised(part, seed=0):
    """The part in float64, every parameter moved from where it begins: no bias is zero."""
    generator = torch.Generator().manual_seed(seed)
    part = part.double()
    with torch.no_grad():
        for parameter in part.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 6
            parameter += noise * max(fan_in, 1) ** -0.5
    return part


class Weights:
    """The tensors of a state dict under a prefix."""

    def __init__(self, state, prefix=""):
        self.state, self.prefix = state, prefix

    def __getitem__(self, name):
        return self.state[self.prefix + name]

    def __contains__(self, name):
        return self.prefix + name in self.state

    def under(self, name):
        return Weights(self.state, f"{self.prefix}{name}.")


def weights_of(part):
    return Weights(part.state_dict())


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def silu(x):
    return x / (1 + torch.exp(-x))


def leaky(x, slope):
    return torch.where(x < 0, slope * x, x)


def norm(w, x):
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w["weight"] + w["bias"]
    )


def linear(w, x):
    y = torch.einsum("...i,oi->...o", x, w["weight"])
    return y + w["bias"] if "bias" in w else y


def conv(w, x, *, dilation=1, stride=1):
    """Zero-padded convolution, added up tap by tap; depthwise where the weight has one input."""
    weight = w["weight"]
    side, (height, width) = weight.shape[-1], x.shape[1:3]
    reach = side // 2 * dilation
    padded = F.pad(x, (0, 0, reach, reach, reach, reach))
    y = 0
    for r in range(side):
        for c in range(side):
            rows = slice(r * dilation, r * dilation + height, stride)
            columns = slice(c * dilation, c * dilation + width, stride)
            tap, seen = weight[:, :, r, c], padded[:, rows, columns]
            depthwise = tap.shape[1] == 1 and len(tap) == x.shape[-1]
            y = y + (seen * tap[:, 0] if depthwise else torch.einsum("bhwi,oi->bhwo", seen, tap))
    return y + w["bias"] if "bias" in w else y


def scan(w, k, u_BSE, delta_BSR, B_BSN, C_BSN):
    """One direction of Mamba's recurrence, step by step."""
    step_BSE = F.softplus(delta_BSR @ w["dt_proj_weight"][k].T + w["dt_proj_bias"][k])
    A_EN = -w["A_log"][k].exp()
    h_BEN, found = 0, []
    for s in range(u_BSE.shape[1]):
        step, u = step_BSE[:, s, :, None], u_BSE[:, s, :, None]
        h_BEN = (step * A_EN).exp() * h_BEN + step * u * B_BSN[:, s, None]
        found.append((h_BEN * C_BSN[:, s, None]).sum(-1) + w["D"][k] * u_BSE[:, s])
    return torch.stack(found, 1)


def four_walks(height, width):
    """Row by row, column by column, and both backwards, each a single walk."""
    rows = [(y, x) for y in range(height) for x in range(width)]
    columns = [(y, x) for x in range(width) for y in range(height)]
    return [[rows], [columns], [rows[::-1]], [columns[::-1]]]


def single_lines(height, width):
    """The same four directions, but each row and each column is a walk of its own."""
    rows = [[(y, x) for x in range(width)] for y in range(height)]
    columns = [[(y, x) for y in range(height)] for x in range(width)]
    turned = [[line[::-1] for line in lines] for lines in (rows, columns)]
    return [rows, columns, *turned]


def scanned(w, u, delta, B, C, walks):
    """Sum over directions; every walk starts from an empty state. delta, B, C: (B, H, W, K, .)."""
    y = torch.zeros_like(u)
    for k, lines in enumerate(walks):
        for line in lines:
            rows, columns = [p[0] for p in line], [p[1] for p in line]
            tokens = (
                t[:, rows, columns] for t in (u, delta[..., k, :], B[..., k, :], C[..., k, :])
            )
            y[:, rows, columns] += scan(w, k, *tokens)
    return y


def projected(x, weight_KXE):
    return torch.einsum("...e,kxe->...kx", x, weight_KXE)


def steered_by_itself(w, u, walks):
    rank, states = w["dt_proj_weight"].shape[2], w["A_log"].shape[2]
    parts = projected(u, w["x_proj_weight"]).split([rank, states, states], -1)
    return scanned(w, u, *parts, walks)


def ss2d(w, x, walks=four_walks):
    u, gate = linear(w.under("in_proj"), x).chunk(2, -1)
    u = silu(conv(w.under("conv"), u))
    y = norm(w.under("out_norm"), steered_by_itself(w, u, walks(*x.shape[1:3])))
    return linear(w.under("out_proj"), y * silu(gate))


def axial(w, x):
    return ss2d(w, x, single_lines)


def mamba1d(w, x):
    height, width = x.shape[1:3]
    inner, gate = linear(w.under("in_proj"), x).chunk(2, -1)
    tokens = inner.flatten(1, 2)
    kernel_EW = w["conv_weight"]
    u = torch.zeros_like(tokens) + w["conv_bias"]
    for n in range(tokens.shape[1]):
        for back in range(min(kernel_EW.shape[1], n + 1)):
            u[:, n] += kernel_EW[:, -1 - back] * tokens[:, n - back]
    u = silu(u).unflatten(1, (height, width))
    y = steered_by_itself(w, u, four_walks(height, width)[:1])
    return linear(w.under("out_proj"), y * silu(gate))


def channel_attention(w, x):
    mean = x.mean((1, 2), keepdim=True)
    gate = conv(w.under("expand"), conv(w.under("reduce"), mean).clamp(min=0))
    return x * torch.sigmoid(gate)


def cab(w, x):
    x = gelu(conv(w.under("layers.0"), x))
    return channel_attention(w.under("layers.3"), conv(w.under("layers.2"), x))


def cab_light(w, x):
    x = gelu(conv(w.under("layers.1"), conv(w.under("layers.0"), x)))
    x = conv(w.under("layers.4"), conv(w.under("layers.3"), x), dilation=2)
    return channel_attention(w.under("layers.5"), x)


def cab_depthwise(w, x):
    return channel_attention(w.under("layers.1"), conv(w.under("layers.0"), x))


def channel_attention_branch(w, x):
    return channel_attention(w.under("layers.0"), x)


def mlp(w, x):
    return linear(w.under("fc2"), gelu(linear(w.under("fc1"), x)))


def channel_transformer(w, x, heads):
    """Restormer's block: attention of channels within heads, then a gated feed-forward."""
    batch, height, width, channels = x.shape
    a = w.under("attention")
    mixed = conv(a.under("conv"), conv(a.under("in_proj"), norm(w.under("norm"), x)))
    attended, share = [], channels // heads
    for g in range(heads):
        q, k, v = (
            mixed[..., n * channels + g * share : n * channels + (g + 1) * share]
            .reshape(batch, height * width, share)
            .transpose(1, 2)
            for n in range(3)
        )
        q, k = (t / t.square().sum(-1, keepdim=True).sqrt() for t in (q, k))
        likeness = torch.einsum("bip,bjp->bij", q, k) * a["temperature_G"][g]
        weight = likeness.exp() / likeness.exp().sum(2, keepdim=True)
        attended.append(torch.einsum("bij,bjp->bpi", weight, v))
    x = x + conv(a.under("out_proj"), torch.cat(attended, -1).reshape(x.shape))
    f = w.under("feed_forward")
    both = conv(f.under("conv"), conv(f.under("in_proj"), norm(w.under("feed_forward_norm"), x)))
    half = both.shape[-1] // 2
    return x + conv(f.under("out_proj"), gelu(both[..., :half]) * both[..., half:])


MSFM_BRANCHES = ("conv", "ssm", "transformer")


def msfm(w, x, branches, heads):
    n = norm(w.under("norm"), x)
    make = {
        "conv": lambda v: gelu(conv(v.under("0"), n)),
        "ssm": lambda v: axial(v, n),
        "transformer": lambda v: channel_transformer(v, n, heads),
    }
    names = [name for name in MSFM_BRANCHES if name in branches]
    mixed = sum(
        w["weights"][i] * make[name](w.under(f"branches.{name}")) for i, name in enumerate(names)
    )
    return x + linear(w.under("out_proj"), mixed)


def res_block(w, x):
    return x + conv(w.under("after"), gelu(conv(w.under("before"), x)))


def gated_merge(w, y_BLKE):
    merged = 0
    for k in range(y_BLKE.shape[2]):
        y = y_BLKE[:, :, k]
        hidden = gelu(linear(w.under("reduce"), norm(w.under("norm"), y).mean(1, keepdim=True)))
        merged = merged + y * torch.sigmoid(linear(w.under("select"), hidden))
    return merged


def side_by_side(frames):
    return torch.cat(list(frames.unbind(1)), -1)


def concat_fusion(w, reference, frames):
    return reference + conv(w.under("conv"), torch.cat([reference, side_by_side(frames)], -1))


def qssm(w, reference, frames, *, frame_mix, denoise, c_source):
    q = reference
    if denoise != "none":
        seen = side_by_side(frames)
        if denoise == "mean_max":
            seen = torch.cat([frames.mean(1), frames.max(1).values], -1)
        hidden = gelu(linear(w.under("denoiser.0"), torch.cat([reference, seen], -1)))
        q = reference + linear(w.under("denoiser.2"), hidden)
    asking, gate = linear(w.under("query_proj"), norm(w.under("query_norm"), q)).chunk(2, -1)
    asking = silu(conv(w.under("query_conv"), asking))
    frames = norm(w.under("frame_norm"), frames)
    if frame_mix == "concat":
        u = linear(w.under("frame_proj"), side_by_side(frames))
    else:
        each = linear(w.under("frame_proj"), frames)
        both = torch.cat([each.mean(1), each.max(1).values], -1)
        u = linear(w.under("frame_mixer"), both)
    u = silu(conv(w.under("frame_conv"), u))
    rank, states = w["dt_proj_weight"].shape[2], w["A_log"].shape[2]
    delta, B = projected(asking, w["query_weight"]).split([rank, states], -1)
    C = projected(u if c_source == "frames" else asking, w["C_weight"])
    y = scanned(w, u, delta, B, C, four_walks(*u.shape[1:3]))
    y = norm(w.under("out_norm"), y) * silu(gate)
    return q + channel_attention(w.under("channel_attention"), linear(w.under("out_proj"), y))


def pbff(w, reference, frames, blocks):
    """BIPNet: pseudo-burst c holds channel c of all frames."""
    burst, pseudo = [reference, *frames.unbind(1)], []
    for c in range(reference.shape[-1]):
        x = conv(w.under("gather"), torch.stack([frame[..., c] for frame in burst], -1))
        for n in range(blocks):
            x = x + cab(w.under(f"blocks.{n}"), x)
        pseudo.append(x)
    return reference + conv(w.under("join"), torch.cat(pseudo, -1))


def pooled(frames, count):
    """Means over windows: window i goes from floor(i S / count) to ceil((i + 1) S / count)."""
    number = frames.shape[1]
    return [
        frames[:, i * number // count : -(-(i + 1) * number // count)].mean(1) for i in range(count)
    ]


def nrfe(w, reference, frames, blocks):
    burst = [reference, *pooled(frames, 7)]
    while len(burst) > 1:
        merged = []
        for first, second in zip(burst[::2], burst[1::2], strict=True):
            x = torch.cat([first, second], -1)
            for n in range(blocks):
                x = channel_transformer(w.under(f"blocks.{n}"), x, heads=2)
            rebuilt = conv(w.under("rebuild"), gelu(conv(w.under("shrink"), x)))
            merged.append(conv(w.under("join"), x + (x - rebuilt)))
        burst = merged
    return burst[0]


def sampled(x_HWC, row, column):
    """Bilinear samples (..., C) at positions of any shape; zero outside."""
    height, width = x_HWC.shape[:2]
    total = 0
    for r in (row.floor(), row.floor() + 1):
        for c in (column.floor(), column.floor() + 1):
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            weight = (1 - (row - r).abs()) * (1 - (column - c).abs()) * inside
            pixel = x_HWC[r.clamp(0, height - 1).long(), c.clamp(0, width - 1).long()]
            total = total + weight[..., None] * pixel
    return total


def double(w, x):
    """Transposed 3x3 convolution, stride 2: output 2 i lies on pixel i; weight (I, O, 3, 3)."""
    weight = w["weight"]
    batch, height, width, _ = x.shape
    y = torch.zeros(batch, 2 * height + 2, 2 * width + 2, weight.shape[1], dtype=x.dtype)
    for r in range(3):
        for c in range(3):
            y[:, r : r + 2 * height : 2, c : c + 2 * width : 2] += x @ weight[:, :, r, c]
    y = y[:, 1 : 1 + 2 * height, 1 : 1 + 2 * width]
    return y + w["bias"] if "bias" in w else y


def refined(w, blocks, features, reference):
    both = torch.cat([reference, features], -1)
    z = gelu(conv(w.under("squeeze"), both))
    error = gelu(conv(w.under("expand"), z)) - both
    return z + gelu(conv(w.under("correct"), error))


def transformers(w, blocks, x, heads):
    for n in range(blocks):
        x = channel_transformer(w.under(str(n)), x, heads)
    return x


def feature_alignment(w, x, reference, before, flow, *, groups, kernel, dilation, blocks):
    """One level, one frame (1, H, W, C): aligned and offset features, mean displacement."""
    hidden = gelu(conv(w.under("compare"), torch.cat([reference, x], -1)))
    if before is not None:
        hidden = gelu(conv(w.under("join"), torch.cat([before, hidden], -1)))
    taps = kernel**2
    offset, mask = conv(w.under("offset"), hidden).split([2 * groups * taps, groups * taps], -1)
    offset, mask = offset[0].unflatten(-1, (groups, taps, 2)), torch.sigmoid(mask[0])
    mean = offset.mean((2, 3))
    if flow is not None:
        offset, mean = offset + flow[:, :, None, None], mean + flow
    height, width, channels = x.shape[1:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    share = channels // groups
    y = []
    for g in range(groups):
        total = 0
        for k in range(taps):
            row = rows + (k // kernel - kernel // 2) * dilation + offset[:, :, g, k, 0]
            column = columns + (k % kernel - kernel // 2) * dilation + offset[:, :, g, k, 1]
            seen = sampled(x[0, :, :, g * share : (g + 1) * share], row, column)
            seen = seen * mask[:, :, g * taps + k, None]
            if "weight" in w:
                tap = w["weight"][g * share : (g + 1) * share, :, k // kernel, k % kernel]
                seen = seen @ tap.T
            total = total + seen
        y.append(total)
    y = torch.cat(y, -1)[None]
    if "weight" not in w:
        y = conv(w.under("conv"), y)
    if "refine.squeeze.weight" in w:
        r = w.under("refine")
        y, features = (transformers(r.under("blocks"), blocks, t, 1) for t in (y, reference))
        y = refined(r, blocks, y, features)
    return y, hidden, mean


def eda(w, frames, flow, *, groups, kernel, dilation, blocks):
    """Burstormer's alignment, one frame of one burst after another."""

    def pyramid(x):
        fine = transformers(w.under("encoders.0"), blocks, x, 1)
        middle = transformers(
            w.under("encoders.1"), blocks, conv(w.under("downs.0"), fine, stride=2), 2
        )
        return [conv(w.under("downs.1"), middle, stride=2), middle, fine]

    def up(index, x):
        return double({"weight": w[f"{index}.conv.weight"], "bias": w[f"{index}.conv.bias"]}, x)

    settings = {"groups": groups, "kernel": kernel, "dilation": dilation, "blocks": blocks}
    aligned, moves = [], [[], [], []]
    for b in range(len(frames)):
        reference, stills = frames[b, :1], []
        y = None
        for level, x in enumerate([*pyramid(reference), None]):
            x = y if x is None else x
            stills.append(x)
            out = x
            if f"alignments.{level}.refine.squeeze.weight" in w:
                r = w.under(f"alignments.{level}.refine")
                features = transformers(r.under("blocks"), blocks, x, 1)
                out = refined(r, blocks, features, features)
            if level in (1, 2):
                out = out + up(f"up_features.{level - 1}", y)
            y = out
        done, found = [y], [[], [], []]
        for t in range(1, frames.shape[1]):
            y = hidden = None
            for level, x in enumerate([*pyramid(frames[b, t : t + 1]), None]):
                here = None
                if level < 3 and flow is not None:
                    size = 4 >> level
                    cells = flow[b, t].permute(1, 2, 0)
                    cells = cells.unflatten(1, (-1, size)).unflatten(0, (-1, size)).mean((1, 3))
                    here = cells / size
                if level in (1, 2):
                    hidden = 2 * up(f"up_offsets.{level - 1}", hidden)
                out, hidden, move = feature_alignment(
                    w.under(f"alignments.{level}"), y if x is None else x, stills[level], hidden,
                    here, **settings,
                )  # fmt: skip
                if level < 3:
                    found[level].append(move)
                if level in (1, 2):
                    out = out + up(f"up_features.{level - 1}", y)
                y = out
            done.append(y)
        aligned.append(torch.cat(done))
        for level in range(3):
            still = torch.zeros_like(found[level][0])
            moves[level].append(torch.stack([still, *found[level]]).permute(0, 3, 1, 2))
    return torch.stack(aligned), [torch.stack(level) for level in moves]
