"""Passes that look at whole images: gains of channel attention, and the directions of a scan."""

from __future__ import annotations

import ctypes

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.features import normal, padded
from tests.helpers.native_kernel import BUILT
from zoo.ops import passes
from zoo.ops.passes import Layer, NormWeights, library
from zoo.ops.scan import native

pytestmark = [
    pytest.mark.skipif(not BUILT, reason="the C++ kernel was not built"),
    pytest.mark.usefixtures("no_gradient"),
]

SHAPES = [(1, 1, 1, 1), (2, 3, 7), (1, 16, 32, 30), (3, 19, 27, 17), (2, 9, 64, 60), (1, 257, 97)]
"""Images, tokens and channels: less than a part of the tokens and more; whole vectors and not."""


def layers(channels, hidden, bias=True):
    return (
        Layer(normal(hidden, channels), normal(hidden) if bias else None),
        Layer(normal(channels, hidden), normal(channels + 1)[1:] if bias else None),
    )


def gain_by_pytorch(x, reduce, expand):
    mean = x.double().flatten(1, -2).mean(1)
    first, last = ([None if t is None else t.double() for t in layer] for layer in (reduce, expand))
    gain = F.linear(F.linear(mean, *first).relu(), *last).sigmoid()
    return gain.reshape(x.shape[0], *(1,) * (x.dim() - 2), x.shape[-1])


def close(found, expected):
    """Equal up to rounding: the mean of a thousand tokens, and two layers."""
    assert found is not None and found.shape == expected.shape and found.is_contiguous()
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("hidden, bias", [(1, True), (3, False), (20, True)])
def test_a_gain_is_pytorchs(shape, hidden, bias, level):
    x, both = 1 + normal(*shape), layers(shape[-1], hidden, bias)
    close(passes.channel_gain(x, *both), gain_by_pytorch(x, *both))
    close(passes.channel_gain(padded(x), *both), gain_by_pytorch(x, *both))


def test_a_gain_of_what_is_no_number_is_none(level):
    x, both = normal(2, 9, 20), layers(20, 3)
    x[1, 4, 7] = float("nan")
    found = passes.channel_gain(x, *both)
    assert found[1].isnan().all() and not found[0].isnan().any()


def test_what_is_no_gain_is_left_to_pytorch():
    x, both = normal(2, 4, 5, 6), layers(6, 2)
    assert passes.channel_gain(x, *both) is not None
    for wrong in (
        (layers(5, 2)[0], both[1]),
        (both[0], layers(5, 2)[1]),
        (both[0], layers(6, 3)[1]),
        (both[0]._replace(bias=normal(3)), both[1]),
        (both[0], both[1]._replace(bias=normal(5))),
        (both[0]._replace(weight=normal(2, 6).double()), both[1]),
    ):
        assert passes.channel_gain(x, *wrong) is None
    assert passes.channel_gain(normal(6), *both) is None
    with torch.enable_grad():
        assert passes.channel_gain(x.requires_grad_(), *both) is None


def by_pytorch(y, norm, gate):
    weight, bias = (None if t is None else t.double() for t in norm[:2])
    normed = F.layer_norm(y.double(), y.shape[-1:], weight, bias, norm.eps)
    return normed.mean(1), (y.double() * gate[:, None].double()).sum(2)


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 7, 2, 36), (1, 300, 4, 17), (3, 257, 3, 16)])
@pytest.mark.parametrize("affine", [True, False])
def test_directions_are_merged_as_in_pytorch(shape, affine, level):
    images, _, directions, channels = shape
    y, gate = 1 + normal(*shape), normal(images, directions, channels)
    weights = (normal(channels), normal(channels + 1)[1:]) if affine else (None, None)
    norm = NormWeights(*weights, 1e-5)
    mean, total = by_pytorch(y, norm, gate)
    close(passes.directions_mean(y, norm), mean)
    close(passes.directions_mean(padded(y), norm), mean)
    close(passes.directions_sum(y, gate), total)
    turned = gate.transpose(1, 2).contiguous().transpose(1, 2)
    close(passes.directions_sum(padded(y), turned), total)


def test_what_are_no_directions_is_left_to_pytorch():
    y, norm, gate = normal(2, 3, 4, 5), NormWeights(normal(5), normal(5), 1e-5), normal(2, 4, 5)
    assert passes.directions_mean(y, norm) is not None
    assert passes.directions_sum(y, gate) is not None
    assert passes.directions_mean(y[0], norm) is None
    assert passes.directions_mean(y, norm._replace(bias=normal(4))) is None
    assert passes.directions_mean(y, norm._replace(weight=normal(4))) is None
    assert passes.directions_sum(y, normal(2, 3, 5)) is None
    assert passes.directions_sum(y[0], gate[0]) is None
    with torch.enable_grad():
        assert passes.directions_mean(y.clone().requires_grad_(), norm) is None
        assert passes.directions_sum(y, gate.requires_grad_()) is None


def test_results_do_not_depend_on_threads(level):
    x, both, y, gate = normal(2, 50, 40, 33), layers(33, 4), normal(2, 900, 3, 33), normal(2, 3, 33)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            norm = NormWeights(None, None, 1e-5)
            merged = passes.directions_mean(y, norm), passes.directions_sum(y, gate)
            found.append((passes.channel_gain(x, *both), *merged))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, other, found[0]))


def test_the_library_refuses_wrong_sizes_by_itself():
    loaded, memory = library.library(), torch.zeros(64)
    address = memory.data_ptr()

    def gain(sizes=(1, 2, 2, 1), at=address):
        call = library.ZooGain(*sizes, at, 2, address, None, address, None, address)
        return loaded.zoo_gain(ctypes.byref(call), None, 1, None)

    def directions(sizes=(1, 2, 2, 2), at=address):
        call = library.ZooDirections(*sizes, 1e-5, at, None, None)
        mean = loaded.zoo_directions_mean(ctypes.byref(call), address, None, 1, None)
        assert mean == loaded.zoo_directions_sum(
            ctypes.byref(call), address, address, None, 1, None
        )
        return mean

    wrong_size, misaligned = 4, native._MISALIGNED
    assert gain() == directions() == gain((0, 2, 2, 1)) == directions((1, 2, 0, 2)) == 0
    for sizes in [(-1, 2, 2, 1), (1, 2, 2, 0), (1, 2, 2, -1), (1, 2**47, 2**47, 1), (2**40,) * 4]:
        assert gain(sizes) == wrong_size
    assert gain((2**24, 1, 1, 2**47)) == wrong_size
    for sizes in [(1, -2, 2, 2), (1, 2, 2, 2**62), (2**40, 2**40, 1, 1)]:
        assert directions(sizes) == wrong_size
    assert gain(at=address + 1) == directions(at=address + 2) == misaligned
