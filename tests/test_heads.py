"""Every head and upsampler against its definition, in float64 and with random weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.case_names import case_name
from tests.helpers.plain import conv, double, gelu, leaky, randomised, weights_of
from zoo.heads import HEADS, UPSAMPLERS, AdaUp, NearestConvHead, Transposed

SHAPE = (2, 3, 5, 6)


def features():
    return torch.randn(SHAPE, dtype=torch.float64)


def shuffled(x, scale):
    return F.pixel_shuffle(x.permute(0, 3, 1, 2), scale).permute(0, 2, 3, 1)


def enlarged(x, scale):
    height, width = x.shape[1:3]
    rows, columns = torch.arange(height * scale), torch.arange(width * scale)
    return x[:, rows // scale][:, :, columns // scale]


def transposed(x, weight, bias):
    """By torch, one image at a time: kernel 3 keeps pixel i at 2i, kernel 4 the centres."""
    odd = weight.shape[-1] % 2
    y = F.conv_transpose2d(x.permute(0, 3, 1, 2), weight, bias, 2, 1, output_padding=odd)
    return y.permute(0, 2, 3, 1)


def adaup(w, x, gate):
    """QMambaBSR, Sec. 3.4: a kernel W_f = (W * L) * L1 for each image."""
    outputs = []
    for one in x.split(1):
        mean = one.mean((0, 1, 2))
        out = w["to_out.weight"] @ mean + w["to_out.bias"]
        if gate == "residual":
            mean, out = 1 + mean.tanh(), 1 + out.tanh()
        kernel = w["weight"] * mean[:, None, None, None] * out[:, None, None]
        outputs.append(transposed(one, kernel, w["bias"]))
    return torch.cat(outputs)


def bilinear(x):
    """Output pixel o lies on (o - 1/2) / 2: a quarter and three quarters of two neighbours."""
    for axis in (1, 2):
        size = x.shape[axis]
        before = x.index_select(axis, torch.arange(-1, size - 1).clamp(min=0))
        after = x.index_select(axis, torch.arange(1, size + 1).clamp(max=size - 1))
        pairs = torch.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pairs.flatten(axis, axis + 1)
    return x


UPSAMPLER_CASES = [
    ("adaup", {"kernel": kernel, "gate": gate}, lambda w, x, gate=gate: adaup(w, x, gate))
    for kernel in (3, 4)
    for gate in ("residual", "raw")
] + [
    ("transposed", {}, double),
    ("transposed", {"kernel": 4}, lambda w, x: transposed(x, w["weight"], w["bias"])),
    ("pixelshuffle", {}, lambda w, x: shuffled(conv(w.under("conv"), x), 2)),
    ("conv_pixelshuffle", {}, lambda w, x: shuffled(conv(w.under("conv"), x), 2)),
    ("bilinear", {}, lambda w, x: conv(w.under("conv"), bilinear(x))),
]


@pytest.mark.parametrize(("name", "options", "expected"), UPSAMPLER_CASES, ids=case_name)
def test_upsamplers_equal_their_definition(name, options, expected):
    part, x = randomised(UPSAMPLERS.get(name).target(6, out=4, **options)), features()
    with torch.no_grad():
        found = part(x)
        torch.testing.assert_close(found, expected(weights_of(part), x), atol=1e-9, rtol=1e-9)
    assert found.shape == (2, 6, 10, 4)


def pixelshuffle_head(w, x, image, factors):
    x = leaky(conv(w.under("before"), x), 0.01)
    for index, factor in enumerate(factors):
        x = shuffled(conv(w.under(f"upsample.{2 * index}"), x), factor)
    return conv(w.under("last"), x)


def shuffle_head(w, x, image, factors):
    for index, factor in enumerate(factors):
        x = shuffled(conv(w.under(f"upsample.{2 * index}"), x), factor)
    return conv(w.under("last"), x)


def nearest_head(w, x, image, factors):
    x = leaky(conv(w.under("before"), x), 0.01)
    for index, factor in enumerate(factors):
        x = leaky(conv(w.under(f"upsample.{3 * index + 2}"), enlarged(x, factor)), 0.2)
    return conv(w.under("last"), leaky(conv(w.under("high_resolution"), x), 0.2))


def doubling_head(w, x, image, factors):
    for index in range(len(factors)):
        x = gelu(adaup(w.under(f"ups.{index}"), x, "residual"))
    return conv(w.under("last"), x)


FACTORS = {1: [], 2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}
HEAD_CASES = [
    *(("pixelshuffle", scale, {"hidden": 5}, pixelshuffle_head) for scale in FACTORS),
    ("pixelshuffle", 4, {"hidden": None}, shuffle_head),
    *(("nearest_conv", scale, {"hidden": 5}, nearest_head) for scale in (1, 3, 4)),
    *(("doubling", scale, {}, doubling_head) for scale in (1, 4)),
    *(
        (
            "pixelshuffle_direct",
            s,
            {},
            lambda w, x, image, factors, s=s: shuffled(conv(w.under("conv"), x), s),
        )
        for s in (1, 3, 5)
    ),
    ("residual", 1, {}, lambda w, x, image, factors: image + conv(w.under("conv"), x)),
    ("conv", 1, {}, lambda w, x, image, factors: conv(w, x)),
]


@pytest.mark.parametrize(("name", "scale", "options", "expected"), HEAD_CASES, ids=case_name)
def test_heads_equal_their_definition(name, scale, options, expected):
    part = randomised(HEADS.get(name).target(6, scale=scale, channels=2, **options))
    x, image = features(), torch.rand(*SHAPE[:3], 2, dtype=torch.float64)
    with torch.no_grad():
        found = part(x, image)
        wanted = expected(weights_of(part), x, image, FACTORS.get(scale))
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-9)
    assert found.shape == (2, 3 * scale, 5 * scale, 2)


def test_all_heads_and_upsamplers_of_the_package_are_compared():
    for registry, cases in ((HEADS, HEAD_CASES), (UPSAMPLERS, UPSAMPLER_CASES)):
        own = {e.name for e in registry.entries() if e.target.__module__.startswith("zoo.")}
        assert own == {name for name, *_ in cases}


def test_defaults_are_those_of_the_papers():
    assert [HEADS.get(n).target(6, scale=2, channels=3).last.in_channels
            for n in ("pixelshuffle", "nearest_conv")] == [64, 64]  # fmt: skip
    up = AdaUp(6, out=4)
    assert up.gate == "residual" and up.weight.shape == (6, 4, 3, 3)
    for kind, kernel in ((AdaUp, 2), (AdaUp, 5), (Transposed, 2), (Transposed, 5)):
        with pytest.raises(ValueError, match=f"kernel is {kernel}; it must be 3"):
            kind(6, out=4, kernel=kernel)
    with pytest.raises(ValueError, match="neither 3 nor a power of two"):
        NearestConvHead(6, scale=6, channels=3)
