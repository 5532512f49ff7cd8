"""The pass over rows in C++: every instruction set, odd sizes, and what it refuses."""

from __future__ import annotations

import ctypes
import weakref

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.features import ACTIVATIONS, normal, padded
from tests.helpers.native_kernel import BUILT
from zoo.ops import passes
from zoo.ops.passes import DepthwiseStage, NormStage, ProductStage, library, rows
from zoo.ops.scan import native

pytestmark = [
    pytest.mark.skipif(not BUILT, reason="the C++ kernel was not built"),
    pytest.mark.usefixtures("no_gradient"),
]


def product(inputs, outputs, **others):
    return ProductStage(normal(outputs, inputs) * inputs**-0.5, normal(outputs), **others)


def depthwise(channels, kernel=3, dilation=1, activation="silu", keep=None):
    weight = normal(channels, 1, kernel, kernel) / kernel
    return DepthwiseStage(weight, normal(channels), dilation, activation, keep)


def norm(channels, gate=None, keep=None):
    return NormStage(1 + 0.1 * normal(channels), normal(channels), 1e-5, gate, keep)


def by_pytorch(x, stages):
    """What the stages keep, computed in float64 by the operators of PyTorch."""
    x, kept = x.double(), []
    for stage in stages:
        weight, bias = (None if t is None else t.double() for t in (stage.weight, stage.bias))
        if isinstance(stage, NormStage):
            x = F.layer_norm(x, x.shape[-1:], weight, bias, stage.eps)
            x = x if stage.gate is None else x * F.silu(stage.gate.double())
        elif isinstance(stage, ProductStage):
            x = F.linear(x[..., : weight.shape[1]], weight, bias)
            if stage.skip is not None:
                x = x + stage.skip * (1 if stage.scale is None else stage.scale.double())
            x = ACTIVATIONS[stage.activation](x)
        else:
            channels, padding = len(weight), stage.dilation * (weight.shape[-1] // 2)
            y = x[..., :channels].permute(0, 3, 1, 2)
            y = F.conv2d(y, weight, bias, 1, padding, stage.dilation, channels)
            x = ACTIVATIONS[stage.activation](y.permute(0, 2, 3, 1))
        if stage.keep is not None:
            kept.append(x[..., stage.keep :].float())
    return kept


def same(found, expected):
    """Equal up to rounding: sums of at most 200 terms, through seven stages."""
    assert found is not None and len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.is_contiguous()
        assert float((one - other).abs().max()) <= 5e-6 * float(other.abs().max())


SHAPES = [(1, 1, 8), (2, 5, 9), (1, 37, 8), (1, 18, 23), (3, 2, 70)]
"""Images, rows and columns: less than a band and more, with and without a rest of four pixels."""


@pytest.mark.parametrize(
    "channels, inner", [(1, 1), (5, 7), (16, 32), (30, 36), (60, 72), (97, 50)]
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_way_into_a_scan_is_pytorchs(shape, channels, inner, level):
    x = 2 + normal(*shape, channels)
    for conv in (depthwise(inner, keep=0), depthwise(inner, 5, 1, "none", keep=0)):
        stages = [
            norm(channels),
            product(channels, 2 * inner, keep=inner),
            conv,
            product(inner, 13),
        ]
        stages[-1] = stages[-1]._replace(keep=0, bias=None)
        expected = by_pytorch(x, stages)
        same(passes.through_rows(x, stages), expected)
        same(passes.through_rows(padded(x), stages), expected)
        same(passes.through_rows(x, stages[1:]), by_pytorch(x, stages[1:]))


@pytest.mark.parametrize("channels, inner", [(1, 1), (6, 9), (30, 36), (60, 72)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_way_out_of_a_scan_is_pytorchs(shape, channels, inner, level):
    y, gate, skip = normal(*shape, inner), 3 * normal(*shape, inner), normal(*shape, channels)
    hidden = channels // 2 + 1
    for factor, before in ((normal(channels), lambda x: x), (None, padded)):
        leaving = product(inner, channels, skip=before(skip), scale=factor, keep=0)
        stages = [
            norm(inner, before(gate)),
            leaving,
            norm(channels, keep=channels - 1),
            product(channels, hidden),
            depthwise(hidden, activation="gelu"),
            product(hidden, channels),
            depthwise(channels, 3, 2, "none", keep=0),
        ]
        same(passes.through_rows(before(y), stages), by_pytorch(y, stages))
        same(passes.through_rows(y, stages[:2]), by_pytorch(y, stages[:2]))


@pytest.mark.parametrize("kernel, dilation", [(1, 1), (3, 3), (7, 2), (9, 4)])
def test_kernels_may_reach_beyond_the_image(kernel, dilation, level):
    x = normal(2, 6, 11, 5)
    wide, usual = depthwise(4, kernel, dilation, keep=0), depthwise(4, keep=0)
    stages = [product(5, 6), wide, usual, depthwise(3, kernel, dilation, keep=1)]
    same(passes.through_rows(x, stages), by_pytorch(x, stages))


def test_parameters_may_be_missing_or_not_contiguous(level):
    x = normal(1, 9, 12, 10)
    weight = normal(10, 14).t()
    first = NormStage(None, None, 1e-3)
    stages = [first, ProductStage(weight, keep=0), NormStage(normal(28)[::2], None, 0.1, keep=3)]
    same(passes.through_rows(x, stages), by_pytorch(x, stages))
    # A factor of a skip that there is not changes nothing.
    alone = [product(10, 4, scale=normal(4), keep=0)]
    same(passes.through_rows(x, alone), by_pytorch(x, alone))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_product_has_an_activation(activation, level):
    x = 3 * normal(2, 5, 9, 33)
    stages = [product(33, 40, activation=activation), product(40, 7, activation=activation, keep=0)]
    same(passes.through_rows(x, stages), by_pytorch(x, stages))
    if activation != "none":
        joined = [product(33, 7, skip=normal(2, 5, 9, 7), keep=0)._replace(activation=activation)]
        assert passes.through_rows(x, joined) is None  # which of both comes first?


def test_results_do_not_depend_on_threads(level):
    before = torch.get_num_threads()
    x = normal(2, 50, 30, 33)
    stages = [
        norm(33),
        product(33, 40),
        depthwise(40),
        product(40, 33),
        depthwise(33, 3, 2, keep=0),
    ]
    found = []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            found += passes.through_rows(x, stages)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, found[0]) for other in found[1:])


def test_what_does_not_fit_is_left_to_pytorch():
    x, fitting = normal(2, 3, 9, 6), [norm(6), product(6, 8), depthwise(7, keep=0)]
    assert passes.through_rows(x, fitting) is not None
    for wrong in (
        [],
        fitting * 3,
        fitting[2:],
        [norm(5)],
        [product(5, 4, keep=0)],
        [norm(6, normal(2, 3, 9, 5))],
        [norm(6, normal(2, 3, 9, 6).double())],
        [product(6, 8, skip=normal(1, 3, 9, 8), keep=0)],
        [product(6, 8, scale=normal(7), keep=0)],
        [product(6, 8, keep=8)],
        [product(6, 8, keep=-1)],
        [product(6, 8)._replace(bias=normal(6))],
        [product(6, 8)._replace(weight=normal(8, 6, 1))],
        [product(6, 8), depthwise(9, keep=0)],
        [norm(6), product(7, 8, keep=0)],
        [product(6, 8), depthwise(8, 65, keep=0)],
        [product(6, 8), depthwise(8, keep=0)._replace(dilation=0)],
        [product(6, 8), depthwise(8, keep=0)._replace(weight=normal(8, 1, 2, 2))],
        [product(6, 8), depthwise(8, keep=0)._replace(weight=normal(8, 2, 3, 3))],
    ):
        assert passes.through_rows(x, wrong) is None
    for other in (x[0], x[:, :, :7], x.double(), x[:0]):
        assert passes.through_rows(other, fitting) is None
    with torch.enable_grad():
        assert passes.through_rows(x.clone().requires_grad_(), fitting) is None
        learning = [fitting[0], fitting[1]._replace(weight=normal(8, 6).requires_grad_())]
        assert passes.through_rows(x, learning) is None
    with torch.autocast("cpu", torch.float16):
        assert passes.through_rows(x, fitting) is None


def test_the_largest_kernel_and_most_stages_run():
    x = normal(1, 1, 8, 1)
    stages = [norm(1)] * 7 + [depthwise(1, 63, keep=0)]
    same(passes.through_rows(x, stages), by_pytorch(x, stages))


def test_copies_live_as_long_as_the_library_reads_them(monkeypatch):
    """Tensors that do not lie as the library needs them are copied, and nobody else has these."""
    copies, real, run = [], torch.Tensor.contiguous, library.run

    def contiguous(tensor):
        copy = real(tensor)
        if copy is not tensor:
            copies.append(weakref.ref(copy))
        return copy

    def checked(*arguments):
        assert len(copies) == 17 and all(copy() is not None for copy in copies)
        run(*arguments)

    monkeypatch.setattr(torch.Tensor, "contiguous", contiguous)
    monkeypatch.setattr(library, "run", checked)

    def every(tensor):
        return real(tensor.repeat_interleave(2, -1))[..., ::2]

    x = every(normal(1, 2, 9, 6))
    stages = []
    for _ in range(2):
        gate, skip = every(normal(1, 2, 9, 6)), every(normal(1, 2, 9, 6))
        stages += [
            NormStage(every(normal(6)), every(normal(6)), 1e-5, gate),
            ProductStage(every(normal(6, 6)), every(normal(6)), skip, every(normal(6)), keep=0),
            DepthwiseStage(every(normal(6, 1, 3, 3)), None, 1, "none", keep=0),
        ]
    same(passes.through_rows(x, stages), by_pytorch(x, stages))


def test_the_pass_is_switched_off(monkeypatch):
    monkeypatch.setenv(passes.ENVIRONMENT, "0")
    assert passes.through_rows(normal(2, 3, 9, 6), [product(6, 8, keep=0)]) is None


def test_the_library_refuses_wrong_stages_by_itself():
    """It is called through a plain C interface, by whoever loads it."""
    loaded, x, out = library.library(), torch.zeros(512), torch.zeros(512)
    address = x.data_ptr()

    def call(count=2, sizes=(1, 2, 2), at=address, before=None, **changed):
        norm = {"kind": 0, "inputs": 2, "outputs": 2, "kernel": 1, "dilation": 1}
        second = {**norm, "kind": 2, "kernel": 3, "weight": address, "out": out.data_ptr()}
        described = (rows.ZooStage * 9)()
        for stage, fields in zip(
            described, [{**norm, **(before or {})}] + 8 * [second], strict=True
        ):
            for name, value in fields.items():
                setattr(stage, name, value)
        for name, value in changed.items():
            setattr(described[1], name, value)
        whole = rows.ZooRows(*sizes, at, 2, 0, count, ctypes.addressof(described))
        return loaded.zoo_rows(ctypes.byref(whole), None, 1, None)

    wrong_size, misaligned = 4, native._MISALIGNED
    assert call() == call(count=8) == call(sizes=(0, 2, 2)) == call(sizes=(1, 0, 2)) == 0
    for count in (0, -1, 9):
        assert call(count=count) == wrong_size
    for sizes in ((-1, 2, 2), (1, 2**62, 2), (2**40, 2**40, 1), (2**24, 2**23, 1)):
        assert call(sizes=sizes) == wrong_size
    for changed in (
        {"kind": 3},
        {"kind": -1},
        {"inputs": 3, "outputs": 3},
        {"inputs": 0, "outputs": 0},
        {"outputs": 1},
        {"kernel": 2},
        {"kernel": 0},
        {"kernel": -3},
        {"kernel": 65},
        {"dilation": 0},
        {"dilation": 2**60},
        {"activation": 3},
        {"activation": -1},
        {"first": 2},
        {"first": -1},
        {"weight": None},
        {"gate": address},
        {"skip": address},
        {"scale": address},
        {"kind": 1},  # a product with the kernel of a convolution
        {"kind": 1, "kernel": 1, "outputs": 2**47},
        {"kind": 1, "kernel": 1, "activation": 1, "skip": address},
        {"kind": 0, "kernel": 1, "activation": 1},
        {"kind": 1, "kernel": 1, "weight": None},
    ):
        assert call(**changed) == wrong_size, changed
    assert call(before={"kind": 2, "kernel": 3, "weight": address}) == wrong_size
    assert call(before={"inputs": 2**62, "outputs": 2**62}) == wrong_size
    assert call(at=address + 1) == call(weight=address + 2) == misaligned
    assert call(out=out.data_ptr() + 1) == call(bias=address + 3) == misaligned
