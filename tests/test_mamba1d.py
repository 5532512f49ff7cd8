"""The plain Mamba baseline."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.blocks import Mamba1D


def test_a_recipe_uses_it_and_it_trains():
    network = zoo.build("mambair_tiny_x2", **{"block.mixer": {"type": "mamba1d", "d_conv": 3}})
    assert any(isinstance(module, Mamba1D) for module in network.modules())
    network(torch.rand(1, 3, 9, 7)).mean().backward()
    grads = [p.grad for n, p in network.named_parameters() if "mixer" in n]
    assert grads and all(g is not None and g.isfinite().all() for g in grads)


def test_a_convolution_needs_a_width():
    with pytest.raises(ValueError, match="d_conv is 0"):
        Mamba1D(6, d_conv=0)
