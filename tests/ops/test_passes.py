"""Passes over features in C++: every instruction set, odd sizes, and where they must not run."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.features import ACTIVATIONS, normal, padded
from tests.helpers.native_kernel import BUILT
from zoo.ops import passes
from zoo.ops.passes import library, rows
from zoo.ops.scan import native

HEADER = Path(native.__file__).parent / "csrc" / "zoo_passes.h"

pytestmark = [
    pytest.mark.skipif(not BUILT, reason="the C++ kernel was not built"),
    pytest.mark.usefixtures("no_gradient"),
]


def same(found, expected):
    """Equal up to rounding: a few parts in 10^7 of the range, for sums of at most 50 terms."""
    assert found is not None and found.shape == expected.shape and found.is_contiguous()
    assert float((found - expected).abs().max()) <= 2e-6 * float(expected.abs().max())


def convolved(x, weight, bias, dilation, activation):
    x, weight, bias = x.double(), weight.double(), None if bias is None else bias.double()
    padding = dilation * (weight.shape[-1] // 2)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, 1, padding, dilation, groups=weight.shape[0])
    return ACTIVATIONS[activation](y.permute(0, 2, 3, 1)).float()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kernel, dilation", [(3, 1), (3, 2), (1, 1), (5, 1), (7, 3)])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (2, 3, 2, 7), (1, 17, 9, 16), (1, 9, 101, 21), (2, 4, 5, 40)],
    ids=str,
)
def test_a_depthwise_convolution_is_pytorchs(shape, kernel, dilation, activation, level):
    x, weight, bias = normal(*shape), normal(shape[-1], 1, kernel, kernel), normal(shape[-1])
    settings = {"dilation": dilation, "activation": activation}
    expected = convolved(x, weight, bias, dilation, activation)
    same(passes.depthwise(x, weight, bias, **settings), expected)
    same(passes.depthwise(padded(x), weight, bias, **settings), expected)
    transposed = x.transpose(1, 2).contiguous().transpose(1, 2)
    same(passes.depthwise(transposed, weight, bias, **settings), expected)
    without = convolved(x, weight, None, dilation, activation)
    same(passes.depthwise(x, weight, None, **settings), without)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_activations_are_accurate_everywhere(activation, level):
    x = torch.cat([torch.linspace(-100, 100, 4001), torch.linspace(-8, 8, 4001)])
    x = torch.cat([x, torch.tensor([0.0, -0.0, 1e-30, 3e38, -3e37])]).reshape(1, 1, -1, 1)
    one = torch.ones(1, 1, 1, 1)
    found = passes.depthwise(x, one, None, dilation=1, activation=activation)
    expected = ACTIVATIONS[activation](x.double())
    # GELU's polynomial is right to 8e-8 of x.
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=6e-7)
    wrong = passes.depthwise(x * float("nan"), one, None, dilation=1, activation=activation)
    assert wrong.isnan().all()


@pytest.mark.parametrize("channels", [1, 3, 16, 57, 60, 72, 180])
@pytest.mark.parametrize("value", [1.23, -17.3, 100.7, 1e-20, 3e20])
def test_the_norm_of_equal_channels_is_zero(channels, value, level):
    x = torch.full((1, 3, 5, channels), value)
    weight, bias = normal(channels), normal(channels)
    norm = passes.NormWeights(weight, bias, 1e-5)
    found = passes.normalised(x, norm)
    assert torch.equal(found, bias.expand_as(x))


@pytest.mark.parametrize("channels", [1, 3, 15, 16, 17, 40, 180])
def test_norms_and_gates_are_pytorchs(channels, level):
    shape = (2, 5, 7, channels)
    x, gate = 3 + 2 * normal(*shape), normal(*shape)
    weight, bias = normal(channels), normal(channels)
    for norm in (
        passes.NormWeights(weight, bias, 1e-5),
        passes.NormWeights(weight, None, 1e-3),
        passes.NormWeights(None, None, 0.1),
    ):
        tensors = [None if t is None else t.double() for t in (norm.weight, norm.bias)]
        expected = F.layer_norm(x.double(), (channels,), *tensors, norm.eps)
        same(passes.normalised(x, norm), expected.float())
        gated = (expected * F.silu(gate.double())).float()
        same(passes.normalised(x, norm, gate), gated)
        same(passes.normalised(padded(x), norm, padded(gate)), gated)
        x_apart, gate_apart = (t.repeat_interleave(2, -1)[..., ::2] for t in (x, gate))
        same(passes.normalised(x_apart, norm, gate_apart), gated)


def test_a_norm_of_tokens_far_from_zero_keeps_its_digits(level):
    """The variance is that of the differences, not a difference of squares."""
    x = normal(1, 4, 4, 30) + 1000
    norm = passes.NormWeights(None, None, 1e-5)
    expected = F.layer_norm(x.double(), (30,), eps=1e-5)
    # The mean is right to a few units in the last place of 1000, which are 6e-5 each. A difference
    # of squares would be wrong by several percent.
    torch.testing.assert_close(passes.normalised(x, norm).double(), expected, rtol=0, atol=5e-4)


@pytest.mark.parametrize("channels", [1, 5, 16, 37])
def test_scaled_sums_are_pytorchs(channels, level):
    shape = (3, 4, 5, channels)
    x, added, scale, gain = (
        normal(*shape),
        2 - normal(*shape),
        normal(channels),
        normal(3, channels),
    )
    gain = gain[:, None, None]
    same(passes.scaled_sum(x, None, added), x + added)
    same(passes.scaled_sum(x, scale, added), x * scale + added)
    same(passes.scaled_sum(padded(x), None, padded(added), gain), x + added * gain)
    same(passes.scaled_sum(x, scale, added, gain), x * scale + added * gain)
    norm = passes.NormWeights(normal(channels), normal(channels), 1e-5)
    total, normed = passes.scaled_sum_and_norm(x, scale, padded(added), norm)
    same(total, x * scale + added)
    expected = F.layer_norm(total.double(), (channels,), norm.weight.double(), norm.bias.double())
    same(normed, expected.float())


def test_results_do_not_depend_on_threads(level):
    before = torch.get_num_threads()
    x, weight, bias = normal(2, 40, 30, 50), normal(50, 1, 3, 3), normal(50)
    norm = passes.NormWeights(bias, bias, 1e-5)
    found = []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            conv = passes.depthwise(x, weight, bias, dilation=1, activation="silu")
            found.append([conv, *passes.scaled_sum_and_norm(x, bias, conv, norm)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, other, found[0]))


class Subclass(torch.Tensor):
    pass


def test_passes_run_only_on_ordinary_tensors():
    x, norm = normal(2, 3, 4, 6), passes.NormWeights(normal(6), None, 1e-5)
    assert passes.normalised(x, norm) is not None
    others = [x.double(), x.bfloat16(), x.to("meta"), x.as_subclass(Subclass), x[:0], x.to_sparse()]
    for other in [*others, torch._neg_view(x)]:
        assert passes.normalised(other, norm) is None
    assert passes.normalised(x, norm._replace(weight=norm.weight.double())) is None
    assert passes.normalised(x, norm, x.half()) is None


def test_tensors_that_do_not_fit_are_left_to_pytorchs_errors():
    x, norm = normal(2, 3, 4, 6), passes.NormWeights(normal(6), None, 1e-5)
    conv = {"dilation": 1, "activation": "none"}
    assert passes.normalised(x, norm._replace(weight=normal(5))) is None
    assert passes.normalised(x, norm, x[:1]) is None
    assert passes.scaled_sum(x, normal(1), x) is None
    assert passes.scaled_sum(x, None, x, normal(1, 1, 1, 6)) is None
    assert passes.scaled_sum_and_norm(x, None, x[..., :5], norm) is None
    for weight in (normal(5, 1, 3, 3), normal(6, 2, 3, 3), normal(6, 1, 3, 5), normal(6, 1, 2, 2)):
        assert passes.depthwise(x, weight, None, **conv) is None
    assert passes.depthwise(x, normal(6, 1, 3, 3), normal(5), **conv) is None
    assert passes.depthwise(x[0], normal(6, 1, 3, 3), None, **conv) is None


def test_memory_that_was_given_back_is_an_error():
    x, norm = normal(2, 3, 4, 6), passes.NormWeights(None, None, 1e-5)
    x.untyped_storage().resize_(8)
    with pytest.raises(ValueError, match="was its storage resized"):
        passes.normalised(x, norm)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_passes_leave_traces_and_modes_to_pytorch(monkeypatch):
    x, norm = normal(2, 3, 4, 6), passes.NormWeights(None, None, 1e-5)
    seen = []

    def spied(x):
        seen.append(passes.normalised(x, norm))
        return x

    assert passes.normalised(x, norm) is not None
    with torch.autocast("cpu", torch.float16):
        spied(x)
    with FlopCounterMode(display=False):
        spied(x)
    with torch.device("meta"):
        spied(x)
    torch.vmap(spied)(x)
    with torch.autograd.forward_ad.dual_level():
        spied(x)
    torch.jit.trace(spied, x, check_trace=False)
    torch.export.export(Module(spied), (x,))
    monkeypatch.setenv(passes.ENVIRONMENT, "0")
    spied(x)
    assert len(seen) == 8 and all(found is None for found in seen)


def test_a_default_device_is_no_mode_that_must_see_pytorchs_operators():
    x, norm = normal(2, 3, 8), passes.NormWeights(None, None, 1e-5)
    with torch.device("cpu"):
        assert passes.normalised(x, norm) is not None
    with torch.device("meta"):
        assert passes.normalised(x, norm) is None
    assert passes.normalised(x, norm) is not None


def test_passes_leave_compiled_code_to_pytorch(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert passes.normalised(normal(2, 6), passes.NormWeights(None, None, 1e-5)) is None


def test_tokens_may_have_any_number_of_axes():
    norm, x, gain = passes.NormWeights(None, None, 1e-5), normal(6), normal(2, 6)
    same(passes.normalised(x, norm), F.layer_norm(x, (6,)))
    same(passes.scaled_sum(x, None, x + 1), 2 * x + 1)
    assert passes.scaled_sum(x, None, x, x) is None
    assert passes.scaled_sum(x, None, x, normal(6, 6)) is None
    assert passes.normalised(x[0], norm) is None
    pair = normal(2, 6)
    same(passes.scaled_sum(pair, None, pair, gain), pair + pair * gain)


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_a_library_without_passes_is_done_without(monkeypatch):
    """An installation that was not built again after an update."""
    monkeypatch.setattr(native, "library", lambda: object())
    monkeypatch.setattr(native, "unavailable", lambda: None)
    library.library.cache_clear()
    try:
        assert passes.normalised(normal(2, 6), passes.NormWeights(None, None, 1e-5)) is None
        monkeypatch.setattr(native, "unavailable", lambda: "it does not load")
        monkeypatch.setattr(native, "library", None)
        library.library.cache_clear()
        assert passes.normalised(normal(2, 6), passes.NormWeights(None, None, 1e-5)) is None
    finally:
        library.library.cache_clear()


@pytest.mark.parametrize(
    "structure",
    [
        library.ZooDepthwise,
        library.ZooTokens,
        library.ZooTokensGradients,
        rows.ZooStage,
        rows.ZooRows,
    ],
    ids=lambda structure: structure.__name__,
)
def test_structures_are_those_of_the_header(structure):
    name = structure.__name__
    (body,) = re.findall(rf"struct {name} \{{(.*?)\}} {name};", HEADER.read_text(), re.DOTALL)
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    declared = []
    for words in filter(None, map(str.strip, body.split(";"))):
        kind, star, names = re.fullmatch(r"(?:const )?(\w+)(\*?)\s+(.*)", words, re.DOTALL).groups()
        declared += [(one.strip(), kind, star == "*") for one in names.split(",")]
    kinds = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "float": ctypes.c_float}
    expected = []
    for field, kind, is_pointer in declared:
        base, _, count = field.partition("[")
        c_type = ctypes.c_void_p if is_pointer else kinds[kind]
        expected.append((base, c_type * int(count.rstrip("]")) if count else c_type))
    assert list(structure._fields_) == expected


def test_the_library_refuses_wrong_sizes_by_itself():
    """It is called through a plain C interface, by whoever loads it."""
    loaded, x, written = library.library(), torch.zeros(64), torch.zeros(64)
    address, place = x.data_ptr(), written.data_ptr()

    def depthwise(sizes=(1, 2, 2, 2), kernel=3, dilation=1, activation=0, at=address):
        strides = (8, 4, 2)
        call = library.ZooDepthwise(
            activation, *sizes, kernel, dilation, at, strides, address, None
        )
        return loaded.zoo_depthwise(ctypes.byref(call), address, None, 1, None)

    def tokens(sizes=(1, 2, 2), at=address):
        call = library.ZooTokens(*sizes, 1e-5, 0, at, *[None] * 6, 2, 0, 0, None, address)
        return loaded.zoo_tokens(ctypes.byref(call), None, 1, None)

    def gradients(out=None, total=address, scale=None, at=address):
        call = library.ZooTokens(1, 2, 2, 1e-5, 0, address, *[None] * 6, 2, 0, 0, None, None)
        given = library.ZooTokensGradients(total, out, at, None, None, scale)
        return loaded.zoo_tokens_gradients(ctypes.byref(call), ctypes.byref(given), None, 1, None)

    def weights(kernel=3, at=address):
        call = library.ZooDepthwise(0, 1, 2, 2, 2, kernel, 1, address, (8, 4, 2), address, None)
        return loaded.zoo_depthwise_weights(ctypes.byref(call), at, place, None, None, 1, None)

    wrong_size, misaligned = 4, native._MISALIGNED
    assert weights() == gradients(at=place) == 0
    assert weights(kernel=2) == gradients(total=None) == gradients(scale=address) == wrong_size
    assert weights(at=address + 1) == gradients(at=address + 2) == misaligned
    assert depthwise(at=None, sizes=(0, 2, 2, 2)) == tokens(sizes=(1, 0, 2)) == 0
    for sizes in [(-1, 2, 2, 2), (1, 2, 2, 2**62), (2**40, 2**40, 1, 1)]:
        assert depthwise(sizes=sizes) == wrong_size
    for kernel in (0, 2, -3, 2**40 + 1):
        assert depthwise(kernel=kernel) == wrong_size
    assert depthwise(dilation=0) == depthwise(dilation=2**60) == wrong_size
    assert depthwise(activation=3) == depthwise(activation=-1) == wrong_size
    assert tokens(sizes=(1, 2, -2)) == tokens(sizes=(2**50, 2, 2)) == wrong_size
    assert depthwise(at=address + 1) == tokens(at=address + 2) == misaligned
