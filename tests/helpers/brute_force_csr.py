"""MambaCSR once more, independently: from the authors' keys alone, with loops and no cleverness.

Nothing of the package is used. Walks are lists of pixels, the scan is a loop over their steps, and
every result is carried back to the pixel it was read from; or, with ``official``, to the pixel that
the authors' arithmetic names. Agreement of the latter with the authors' own outputs shows that this
construction is the network, so the former says what the network computes where they are wrong.

Shapes: features are (H, W, C), one image at a time, float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


class BruteForce:
    """The network of a state dict.

    Args:
        state: the authors' tensors, float64.
        scale: output size over input size.
        official: map column-first cross-scale walks back as the authors' code does.
    """

    def __init__(self, state, *, scale, official):
        self.state, self.scale, self.official = state, scale, official

    def __call__(self, image_IHW):
        # A float32 constant, as the authors' is.
        mean = torch.tensor([0.4488, 0.4371, 0.4040]).double()
        shallow = self.conv("conv_first", image_IHW.permute(1, 2, 0) - mean)
        coarse = F.avg_pool2d(shallow.permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0)
        coarse = self.layer_norm("patch_embed2.norm", coarse)
        x = self.layer_norm("patch_embed.norm", shallow)
        for index in range(self.count("layers.{}.conv.weight")):
            x = self.group(f"layers.{index}.", x, local=None)
            if f"layers2.{index}.conv.weight" in self.state:
                coarse = self.group(f"layers2.{index}.", coarse, local=8)
                x = self.fusion(f"layers3.{index}.", x, coarse)
        x = self.conv("conv_after_body", self.layer_norm("norm", x)) + shallow
        x = F.leaky_relu(self.conv("conv_before_upsample.0", x), 0.01)
        assert self.scale == 2
        x = self.conv("upsample.0", x).permute(2, 0, 1)
        x = self.conv("conv_last", F.pixel_shuffle(x, 2).permute(1, 2, 0))
        return (x + mean).permute(2, 0, 1)

    def count(self, template):
        number = 0
        while template.format(number) in self.state:
            number += 1
        return number

    def conv(self, name, x_HWC, groups=1):
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        x = F.conv2d(
            x_HWC.permute(2, 0, 1)[None], weight, bias, padding=weight.shape[-1] // 2, groups=groups
        )
        return x[0].permute(1, 2, 0)

    def layer_norm(self, name, x):
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, 1e-5)

    def linear(self, name, x):
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def group(self, prefix, x_HWC, local):
        depth = self.count(prefix + "residual_group.blocks.{}.skip_scale")
        skip = x_HWC
        for index in range(depth):
            # All groups of these cases are shallower than six blocks: windows of 32 alone.
            assert depth < 6
            column = index % 2 == 1
            x_HWC = self.block(f"{prefix}residual_group.blocks.{index}.", x_HWC, 32, column)
        return self.conv(f"{prefix}conv", x_HWC) + skip

    def block(self, prefix, v, size, column):
        normed = self.layer_norm(f"{prefix}ln_1", v)
        scan = f"{prefix}self_attention."
        x, gate = self.linear(f"{scan}in_proj", normed).chunk(2, -1)
        x = F.silu(self.conv(f"{scan}conv2d", x, groups=x.shape[-1]))
        height, width, _ = x.shape
        walk = [
            ("pixel", p) if p[0] < height and p[1] < width else None
            for p in windows(-(-height // size), -(-width // size), size, column)
        ]
        y = 0
        for k, steps in enumerate([walk, walk[::-1]]):
            found = self.scan(scan, k, [None if s is None else x[s[1]] for s in steps])
            image = torch.zeros_like(x)
            for step, value in zip(steps, found, strict=True):
                if step is not None:
                    image[step[1]] = value
            y = y + self.gated(scan, image)
        y = self.layer_norm(f"{scan}out_norm", y) * F.silu(gate)
        v = v * self.state[f"{prefix}skip_scale"] + self.linear(f"{scan}out_proj", y)
        v = v + 0.01 * self.attention(f"{prefix}conv_block.cab.", normed)
        mlp = self.mlp(f"{prefix}mlp.", self.layer_norm(f"{prefix}ln_2", v))
        return v * self.state[f"{prefix}skip_scale2"] + mlp

    def fusion(self, prefix, v, coarse_hwC):
        high, gate = self.linear(f"{prefix}in_proj", self.layer_norm(f"{prefix}ln_1", v)).chunk(
            2, -1
        )
        high = F.silu(self.conv(f"{prefix}conv2d", high, groups=high.shape[-1]))
        low = self.linear(f"{prefix}in_proj_down", coarse_hwC).chunk(2, -1)[0]
        low = F.silu(self.conv(f"{prefix}conv2d2", low, groups=low.shape[-1]))
        height, width, _ = high.shape
        rows, columns = height // 16, width // 16
        y = 0
        for k in range(4):
            column, turned = k >= 2, k % 2 == 1
            low_walk = windows(rows, columns, 8, column)
            near = [(0, 0), (1, 0), (0, 1), (1, 1)] if column else [(0, 0), (0, 1), (1, 0), (1, 1)]
            high_walk = [(2 * a + r, 2 * b + c) for a, b in low_walk for r, c in near]
            targets = high_walk
            if column and self.official:
                targets = [official_place(n, rows, columns, width) for n in range(len(high_walk))]
            if turned:
                low_walk, high_walk, targets = low_walk[::-1], high_walk[::-1], targets[::-1]
            steps = []
            for n, p in enumerate(low_walk):
                steps += [low[p], *(high[q] for q in high_walk[4 * n : 4 * n + 4])]
            found = [value for n, value in enumerate(self.scan(prefix, k, steps)) if n % 5]
            image = torch.zeros_like(high)
            for place, value in zip(targets, found, strict=True):
                image[place] = value
            y = y + self.gated(prefix, image)
        y = self.layer_norm(f"{prefix}out_norm", y) * F.silu(gate)
        x = v * self.state[f"{prefix}skip_scale"] + self.linear(f"{prefix}out_proj", y)
        mlp = self.mlp(f"{prefix}mlp.", self.layer_norm(f"{prefix}ln_2", x))
        return x * self.state[f"{prefix}skip_scale2"] + mlp

    def scan(self, prefix, k, tokens):
        x_proj, dt_proj, bias, A_logs, Ds = (
            self.state[f"{prefix}{name}"]
            for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
        )
        inner, rank = dt_proj.shape[1:]
        states = A_logs.shape[1]
        A = -A_logs[k * inner : (k + 1) * inner].exp()
        D = Ds[k * inner : (k + 1) * inner]
        u_SE = torch.stack([torch.zeros(inner).double() if t is None else t for t in tokens])
        dt, B_SN, C_SN = (u_SE @ x_proj[k].T).split([rank, states, states], -1)
        delta_SE = F.softplus(dt @ dt_proj[k].T + bias[k])
        decay_SEN = torch.exp(delta_SE[..., None] * A)
        into_SEN = (delta_SE * u_SE)[..., None] * B_SN[:, None]
        h_EN, found = torch.zeros(inner, states).double(), []
        for step in range(len(tokens)):
            h_EN = decay_SEN[step] * h_EN + into_SEN[step]
            found.append(h_EN @ C_SN[step] + D * u_SE[step])
        return found

    def gated(self, prefix, y_HWE):
        name = f"{prefix}multi_scan.attn."
        mean = self.layer_norm(f"{name}norm", y_HWE).mean((0, 1))
        hidden = F.gelu(self.linear(f"{name}global_reduce", mean))
        return y_HWE * torch.sigmoid(self.linear(f"{name}channel_select", hidden))

    def attention(self, prefix, x):
        x = self.conv(f"{prefix}2", F.gelu(self.conv(f"{prefix}0", x)))
        mean = x.mean((0, 1), keepdim=True)
        hidden = self.conv(f"{prefix}3.attention.1", mean).relu()
        return x * self.conv(f"{prefix}3.attention.3", hidden).sigmoid()

    def mlp(self, prefix, x):
        return self.linear(f"{prefix}fc2", F.gelu(self.linear(f"{prefix}fc1", x)))


def windows(rows, columns, size, column):
    """Pixels of a grid of windows, window by window; rows first or columns first in both."""
    if column:
        return [
            (i * size + r, j * size + c)
            for j in range(columns)
            for i in range(rows)
            for c in range(size)
            for r in range(size)
        ]
    return [
        (i * size + r, j * size + c)
        for i in range(rows)
        for j in range(columns)
        for r in range(size)
        for c in range(size)
    ]


def official_place(step, rows, columns, width):
    """Where the authors' code writes fine step ``step`` of a column-first walk."""
    coarse, inside = divmod(step, 4)
    c, r = divmod(inside, 2)
    window, cell = divmod(coarse, 64)
    bj, bi = divmod(cell, 8)
    a, b = divmod(window, columns)  # the truth is divmod(window, rows), the other way round
    place = ((b * 16 + 2 * bi + r) * rows + a) * 16 + 2 * bj + c
    return divmod(place, width)
