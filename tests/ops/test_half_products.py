"""Passes under autocast to bfloat16: what they round, and where they must not run."""

from __future__ import annotations

import ctypes

import pytest
import torch
import torch.nn.functional as F

import zoo
from tests.helpers.features import normal, padded
from tests.helpers.native_kernel import BUILT, LEVELS, passes_that_run
from zoo.ops import passes
from zoo.ops.passes import DepthwiseStage, NormStage, ProductStage, conditions, library, rows
from zoo.ops.scan import native

HALF = BUILT and library.has_half_products()
needs_half = pytest.mark.skipif(not HALF, reason="this CPU has no AVX512_BF16")
no_tiles = pytest.mark.usefixtures("without_tiles")

pytestmark = [
    pytest.mark.skipif(not BUILT, reason="the C++ kernel was not built"),
    pytest.mark.usefixtures("no_gradient"),
]


@pytest.fixture
def without_tiles(monkeypatch):
    """A CPU without AMX, whatever this one has."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    conditions._half_products_are_fast.cache_clear()
    yield
    conditions._half_products_are_fast.cache_clear()


def autocast(dtype=torch.bfloat16):
    return torch.autocast("cpu", dtype)


def rounded(tensor):
    return tensor.bfloat16().double()


def same(found, expected, allowed):
    assert found.shape == expected.shape and found.is_contiguous()
    assert float((found.double() - expected).abs().max()) <= allowed * float(expected.abs().max())


SUMS = 2e-6
"""Sums of at most 360 products in float32, as a part of the range."""
KEPT = 2**-8
"""Rounding to bfloat16, as a part of the range."""

SHAPES = [(1, 1, 8), (2, 3, 9), (1, 5, 23), (3, 2, 70)]
PRODUCTS = [(1, 1), (2, 16), (7, 13), (33, 47), (64, 48), (65, 49), (97, 50), (360, 180)]
"""Inputs and outputs: with and without a rest of a pair, a vector, a panel and a part."""


@needs_half
@no_tiles
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("inputs, outputs", PRODUCTS)
def test_factors_are_rounded_and_sums_are_not(inputs, outputs, shape):
    x, skip = normal(*shape, inputs), normal(*shape, outputs)
    weight, bias, scale = normal(outputs, inputs), normal(outputs), normal(outputs)
    right = F.linear(rounded(x), rounded(weight), bias.double())
    summed = ProductStage(weight, bias, skip, scale, keep=0)
    with autocast():
        for given in (x, padded(x), x.bfloat16(), padded(x.bfloat16())):
            (total,) = passes.through_rows(given, [summed])
            assert total.dtype is torch.float32
            same(total, right + skip.double() * scale.double(), SUMS)
        (kept,) = passes.through_rows(x, [ProductStage(weight, bias, keep=outputs // 2)])
    assert kept.dtype is torch.bfloat16
    same(kept, right[..., outputs // 2 :], KEPT)


@needs_half
@no_tiles
def test_all_other_stages_compute_in_float32():
    channels, shape = 37, (2, 5, 11, 37)
    x, gate, skip = normal(*shape), normal(*shape), normal(*shape)
    norm = NormStage(normal(channels), normal(channels), 1e-5, gate.bfloat16())
    conv = DepthwiseStage(normal(channels, 1, 3, 3), normal(channels), 1, "silu", keep=0)
    product = ProductStage(normal(channels, channels) / 6, None, skip.bfloat16(), keep=0)
    with autocast():
        total, convolved = passes.through_rows(x, [norm, product, conv])
    weight, bias = (t.double() for t in norm[:2])
    normed = F.layer_norm(x.double(), [channels], weight, bias, 1e-5) * F.silu(rounded(gate))
    right = F.linear(normed, product.weight.double()) + rounded(skip)
    # The norm differs from that in float64 by rounding, so the rounding of some factors differs.
    same(total, right, KEPT)
    y = F.conv2d(
        total.double().permute(0, 3, 1, 2),
        conv.weight.double(),
        conv.bias.double(),
        padding=1,
        groups=channels,
    )
    same(convolved, F.silu(y).permute(0, 2, 3, 1), KEPT)


@needs_half
@no_tiles
@pytest.mark.parametrize("narrow", ["x", "skip", "both"])
def test_passes_over_tokens_take_both_kinds(narrow):
    x, skip, gain = normal(2, 3, 5, 21), normal(2, 3, 5, 21), normal(2, 1, 1, 21)
    scale, norm = normal(21), passes.NormWeights(normal(21), normal(21), 1e-5)
    x = x if narrow == "skip" else x.bfloat16()
    skip = skip if narrow == "x" else skip.bfloat16()
    right = x.double() * gain.double() + skip.double() * scale.double()
    with autocast():
        total = passes.scaled_sum(skip, scale, x, gain.bfloat16())
        both = passes.scaled_sum_and_norm(skip, scale, x, norm)
        assert all(t.dtype is torch.float32 for t in (total, *both))
        gated = passes.normalised(skip, norm, x)
    rounded_gain = x.double() * rounded(gain) + skip.double() * scale.double()
    same(total, rounded_gain, SUMS)
    right = x.double() + skip.double() * scale.double()
    same(both[0], right, SUMS)
    weight, bias = norm.weight.double(), norm.bias.double()
    same(both[1], F.layer_norm(right, [21], weight, bias, 1e-5), SUMS)
    if narrow == "x":
        gated_right = F.layer_norm(skip.double(), [21], weight, bias, 1e-5) * F.silu(x.double())
        same(gated, gated_right, SUMS)
    else:
        assert gated is None  # PyTorch's norm of bfloat16 is bfloat16


@needs_half
@no_tiles
def test_what_is_bfloat16_in_pytorch_is_left_to_it():
    x, weight = normal(1, 4, 9, 6), normal(6, 1, 3, 3)
    with autocast():
        assert passes.depthwise(x, weight, None, dilation=1, activation="none") is None
        assert passes.scaled_sum(x.bfloat16(), None, x.bfloat16()) is None
        assert passes.scaled_sum(x.bfloat16(), normal(6), x.bfloat16()) is not None


def test_every_level_reads_and_writes_bfloat16(level):
    """Only the rounding of factors needs an instruction of its own."""
    x, gate, skip = normal(2, 4, 9, 19), normal(2, 4, 9, 19), normal(2, 4, 9, 19)
    norm = NormStage(normal(19), normal(19), 1e-5, padded(gate.bfloat16()))
    product = ProductStage(normal(19, 19) / 4, None, skip, keep=0)
    (found,) = rows.through_rows(padded(x.bfloat16()), [norm, product])
    normed = F.layer_norm(rounded(x), [19], *(t.double() for t in norm[:2]), 1e-5)
    right = F.linear(normed * F.silu(rounded(gate)), product.weight.double()) + skip.double()
    same(found, right, SUMS)
    out = torch.empty(2, 4, 9, 19)
    library.tokens(library.Tokens(x.bfloat16(), skip=skip), out, None)
    assert torch.equal(out, x.bfloat16().float() + skip)


NETWORKS = {
    "mambair_light_x4": {"dim": 30, "depths": [2]},
    "mambair_classic_x2": {"dim": 36, "depths": [1]},
    "mambair_realdn": {"dim": 30, "depths": [1, 1, 1, 1], "refinement": 1},
    "mambacsr_tiny_x2": {},
    "mair_light_t_x2": {"dim": 36, "depths": [1]},
}


@needs_half
@no_tiles
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_loses_no_more_than_by_autocast(name, monkeypatch):
    torch.manual_seed(0)
    network = zoo.build(name, **NETWORKS[name]).eval()
    image = torch.rand(2, network.channels, 16, 24)
    ran = passes_that_run(monkeypatch)
    exact = network(image)
    with autocast():
        ran.clear()
        found = network(image)
        assert "zoo_rows" in ran
        ran.clear()
        monkeypatch.setenv(passes.ENVIRONMENT, "0")
        usual = network(image)
    assert not ran and found.dtype is usual.dtype

    def loss(of):
        return float((of - exact).square().mean().sqrt() / exact.std())

    # Sums are rounded less often than in PyTorch, so the loss is about the same or less.
    assert 0 < loss(found) <= 1.2 * loss(usual)


@needs_half
@no_tiles
def test_results_do_not_depend_on_threads():
    before, x = torch.get_num_threads(), normal(2, 50, 30, 33)
    product = ProductStage(normal(40, 33), normal(40))
    stages = [product, DepthwiseStage(normal(40, 1, 3, 3), None, 1, "gelu", keep=0)]
    found = []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            with autocast():
                found += passes.through_rows(x, stages)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, found[0]) for other in found[1:])


@no_tiles
def test_autocast_that_passes_cannot_follow_is_left_to_pytorch(monkeypatch):
    x, stages = normal(1, 2, 9, 6), [ProductStage(normal(8, 6), keep=0)]

    def run():
        return passes.through_rows(x, stages)

    assert run() is not None
    with autocast():
        assert (run() is not None) == HALF
        with torch.autocast("cpu", enabled=False):
            assert run() is not None
        with torch.enable_grad():
            x.requires_grad_()
            assert run() is None
            assert passes.scaled_sum(x, None, x) is None
            x.requires_grad_(False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
        conditions._half_products_are_fast.cache_clear()
        assert run() is None
    with autocast(torch.float16):
        assert run() is None
    assert passes.through_rows(x.bfloat16(), stages) is None


@no_tiles
def test_without_the_instruction_pytorch_computes(monkeypatch):
    monkeypatch.setenv(native.LEVEL_ENVIRONMENT, "portable")
    conditions._half_products_are_fast.cache_clear()
    assert not library.has_half_products()
    with autocast():
        assert passes.through_rows(normal(1, 2, 9, 6), [ProductStage(normal(8, 6), keep=0)]) is None


def test_the_library_refuses_what_a_level_does_not_have():
    """It is called through a plain C interface, by whoever loads it."""
    loaded, x = library.library(), torch.zeros(64)
    address = x.data_ptr()

    def call(half=1, level="portable", at=address, x_dtype=0, **changed):
        stage = rows.ZooStage(
            kind=0, inputs=2, outputs=2, kernel=1, dilation=1, out=address + 128, **changed
        )
        whole = rows.ZooRows(1, 1, 8, at, 2, x_dtype, 1, ctypes.addressof(stage), half)
        return loaded.zoo_rows(ctypes.byref(whole), level.encode(), 1, None)

    def tokens(x_dtype, at):
        given = library.ZooTokens(1, 2, 2, 1e-5, x_dtype, at, *[None] * 6, 2, 0, 0, address, None)
        return loaded.zoo_tokens(ctypes.byref(given), None, 1, None), given

    unsupported, wrong_size = 2, 4
    assert call(half=0) == 0
    for level in LEVELS:
        has = bool(loaded.zoo_half_products(level.encode()))
        assert call(level=level) == (0 if has else unsupported)
        assert has == (HALF and level == "avx512")
    assert not loaded.zoo_half_products(b"none")
    for half in (2, -1):
        assert call(half=half, level=LEVELS[0]) == wrong_size
    for dtype in (2, 3, -1):
        assert call(half=0, x_dtype=dtype) == wrong_size
        assert call(half=0, gate_dtype=dtype) == call(half=0, out_dtype=dtype) == wrong_size
        assert tokens(dtype, address)[0] == wrong_size
    assert call(half=0, x_dtype=1, at=address + 2) == tokens(1, address + 2)[0] == 0
    misaligned = native._MISALIGNED
    assert call(half=0, at=address + 2) == call(half=0, x_dtype=1, at=address + 1) == misaligned
    assert call(half=0, gate=address + 1, gate_dtype=1) == misaligned
    assert tokens(0, address + 2)[0] == tokens(1, address + 1)[0] == misaligned
    # Gradients are those of float32.
    _, narrow = tokens(1, address)
    given = library.ZooTokensGradients(address, None, address + 128)
    status = loaded.zoo_tokens_gradients(ctypes.byref(narrow), ctypes.byref(given), None, 1, None)
    assert status == wrong_size
