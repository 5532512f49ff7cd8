"""The plain Mamba baseline."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.blocks import Mamba1D
from zoo.blocks.mamba1d import causal_conv


def test_a_recipe_uses_it_and_it_trains():
    network = zoo.build("mambair_tiny_x2", **{"block.mixer": {"type": "mamba1d", "d_conv": 3}})
    assert any(isinstance(module, Mamba1D) for module in network.modules())
    network(torch.rand(1, 3, 9, 7)).mean().backward()
    grads = [p.grad for n, p in network.named_parameters() if "mixer" in n]
    assert grads and all(g is not None and g.isfinite().all() for g in grads)


def test_a_convolution_needs_a_width():
    with pytest.raises(ValueError, match="d_conv is 0"):
        Mamba1D(6, d_conv=0)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("installed", [True, False])
def test_a_gpu_convolves_with_the_library_for_the_widths_that_it_has(width, installed, monkeypatch):
    class OnGpu(torch.Tensor):
        is_cuda = True

    calls = []

    def causal_conv1d_fn(x_BEL, weight_EW, bias_E, activation=None):
        calls.append(activation)
        return x_BEL + 1

    library = SimpleNamespace(
        causal_conv1d_fn=causal_conv1d_fn, __spec__=ModuleSpec("causal_conv1d", None)
    )
    monkeypatch.setitem(sys.modules, "causal_conv1d", library if installed else None)
    if not installed:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    x_BLE, weight_EW, bias_E = torch.randn(2, 7, 6), torch.randn(6, width), torch.randn(6)
    found = causal_conv(x_BLE.as_subclass(OnGpu), weight_EW, bias_E).as_subclass(torch.Tensor)
    there = installed and 2 <= width <= 4
    assert calls == ["silu"] * there
    expected = x_BLE + 1 if there else causal_conv(x_BLE, weight_EW, bias_E)
    assert torch.equal(found, expected) and calls == ["silu"] * there
