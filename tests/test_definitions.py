"""Norms, Haar bands, nearest channels and what joins levels, each against its definition."""

from __future__ import annotations

import torch

import zoo
from tests.helpers.plain import conv, randomised, weights_of
from tests.helpers.plain_field import band_select
from zoo.blocks import LayerNorm, nearest_channels
from zoo.networks.wavelet import BandSelect
from zoo.ops.haar import haar, inverse_haar


def test_a_norm_with_another_epsilon_equals_its_equation():
    part = randomised(LayerNorm(8, eps=0.25))
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 0.25).sqrt()
    w = weights_of(part)
    torch.testing.assert_close(part(x), expected * w["weight"] + w["bias"])
    assert LayerNorm(8).eps == 1e-5


def test_haar_bands_are_sums_and_differences_and_come_back():
    x = torch.randn(2, 4, 6, 3, dtype=torch.float64)
    a, b, c, d = x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]
    expected = (a + b + c + d, c + d - a - b, b + d - a - c, a + d - b - c)
    for found, twice in zip(haar(x), expected, strict=True):
        torch.testing.assert_close(2 * found, twice)
    torch.testing.assert_close(inverse_haar(haar(x)), x)


def test_bands_are_weighed_channel_by_channel():
    part = randomised(BandSelect(9))
    bands = [torch.randn(2, 3, 5, 9, dtype=torch.float64) for _ in range(3)]
    with torch.no_grad():
        torch.testing.assert_close(part(bands), band_select(weights_of(part), bands))
    assert part.reduce[0].out_channels == 4 and BandSelect(64).reduce[0].out_channels == 8


def test_the_nearest_channel_is_the_same_under_autocast():
    x_BLC, guide_BLC = torch.rand(2, 50, 6), torch.rand(2, 50, 6)
    near_BC = nearest_channels(x_BLC, guide_BLC)
    for b in range(2):
        for c in range(6):
            apart = (guide_BLC[b] - x_BLC[b, :, c : c + 1]).norm(dim=0)
            assert near_BC[b, c] == apart.argmin()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_channels(x_BLC, guide_BLC), near_BC)


def test_the_nearest_channel_is_found_where_half_precision_would_overflow():
    x_BLC, guide_BLC = (100 * torch.rand(1, 400, 5)).half(), (100 * torch.rand(1, 400, 5)).half()
    assert torch.equal(
        nearest_channels(x_BLC, guide_BLC), nearest_channels(x_BLC.float(), guide_BLC.float())
    )


def test_plain_parts_of_levels_equal_their_definitions():
    x = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    skip = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    for name, expected in (
        ("concat", lambda w: torch.cat([x, skip], -1)),
        ("sum", lambda w: x + skip),
        ("concat_conv", lambda w: conv(w, torch.cat([x, skip], -1))),
    ):
        part = randomised(zoo.blocks.SKIPS.get(name).target(8))
        with torch.no_grad():
            found = part(x, skip)
            torch.testing.assert_close(found, expected(weights_of(part)))
        assert part.out == found.shape[-1]
    unshuffle = randomised(zoo.blocks.DOWNSAMPLERS.get("pixelunshuffle").target(8, out=12))
    with torch.no_grad():
        smooth = conv(weights_of(unshuffle).under("conv"), x).permute(0, 3, 1, 2)
        expected = torch.nn.functional.pixel_unshuffle(smooth, 2).permute(0, 2, 3, 1)
        torch.testing.assert_close(unshuffle(x), expected)
    strided = randomised(zoo.blocks.DOWNSAMPLERS.get("strided").target(8, out=5))
    with torch.no_grad():
        weight, cells = strided.conv.weight, x.unflatten(2, (3, 2)).unflatten(1, (2, 2))
        expected = torch.einsum("bhiwjc,ocij->bhwo", cells, weight) + strided.conv.bias
        torch.testing.assert_close(strided(x), expected)
