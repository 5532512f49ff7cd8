"""Linear layers that other tools replace, quantise or watch, where networks read parts of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from zoo.blocks.router import Router
from zoo.blocks.scale_fusion import ScaleFusion

MODELS = {"mambacsr_tiny_x2": ScaleFusion, "mambairv2_tiny_x2": Router}


class Wrapped(nn.Module):
    """A layer in another one, as adapters are; it has no weight of its own."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


@pytest.fixture(params=MODELS)
def network(request):
    torch.manual_seed(0)
    return zoo.build(request.param).eval()


def parts_of(network):
    kind = MODELS[network.recipe.name]
    return [part for part in network.modules() if isinstance(part, kind)]


def layers_of(part):
    return [name for name, layer in part.named_children() if isinstance(layer, nn.Linear)]


@torch.no_grad()
def test_wrapped_layers_compute_the_same(network):
    x = torch.rand(1, 3, 17, 20)
    expected = network(x)
    for part in parts_of(network):
        for name in layers_of(part):
            setattr(part, name, Wrapped(getattr(part, name)))
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # of PyTorch, that this kind of quantisation will move
def test_quantised_layers_run(network):
    x = torch.rand(1, 3, 17, 20)
    expected = network(x)
    found = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, torch.qint8)(x)
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.max() - expected.min())


@torch.no_grad()
def test_hooks_of_layers_that_are_read_in_part_are_called(network):
    called = []
    parts = parts_of(network)
    for part in parts:
        for name in layers_of(part):
            layer = getattr(part, name)
            layer.register_forward_hook(lambda module, *_: called.append(module))
    network(torch.rand(1, 3, 16, 16))
    wanted = [getattr(part, name) for part in parts for name in layers_of(part)]
    assert wanted and all(layer in called for layer in wanted)
