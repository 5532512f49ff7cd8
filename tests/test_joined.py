"""Layers that are joined into passes: outputs stay the same, and hooks still run."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

import zoo
from tests.helpers.native_kernel import BUILT, passes_that_run
from zoo.blocks import RSSB
from zoo.blocks.channel_attention import LightCAB
from zoo.blocks.joined import factors, in_a_row, scaled_sum_and_norm
from zoo.blocks.layers import Conv2d
from zoo.blocks.norm import LayerNorm
from zoo.ops import passes

pytestmark = pytest.mark.skipif(not BUILT, reason="the kernel was not built")

NETWORKS = {
    "mambair_light_x4": {"dim": 30, "depths": [2]},
    "mambair_classic_x2": {"dim": 36, "depths": [1]},
    "mair_light_t_x2": {"dim": 36, "depths": [1]},
    "mambacsr_tiny_x2": {},
}
RAN = {
    "mambair_light_x4": {"zoo_rows": 4, "zoo_tokens": 2, "zoo_gain": 2},
    "mambair_classic_x2": {"zoo_rows": 2, "zoo_tokens": 1, "zoo_gain": 1},
    "mair_light_t_x2": {"zoo_rows": 2, "zoo_tokens": 1, "zoo_directions_sum": 1},
    "mambacsr_tiny_x2": {
        **{"zoo_rows": 19, "zoo_tokens": 12, "zoo_depthwise": 2, "zoo_gain": 6},
        **{"zoo_directions_mean": 7, "zoo_directions_sum": 7},
    },
}
"""How often each pass runs in inference: a layer that leaves the joined way takes another."""


@pytest.fixture
def ran(monkeypatch):
    return passes_that_run(monkeypatch)


def scrambled(module):
    """The module with parameters that are not the initial ones and zeros."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_same_with_and_without_passes(name, ran, monkeypatch):
    network = scrambled(zoo.build(name, **NETWORKS[name]))
    image = torch.rand(2, network.channels, 13, 9)
    with torch.inference_mode():
        found = network(image)
        assert Counter(ran) == RAN[name]
        ran.clear()
        monkeypatch.setenv(passes.ENVIRONMENT, "0")
        expected = network(image)
    assert not ran
    # The issue of the passes allows 1e-5 of the range.
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.max() - expected.min())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_same_gradients_with_and_without_passes(name, ran, monkeypatch):
    network = scrambled(zoo.build(name, **NETWORKS[name]))
    image = torch.rand(2, network.channels, 13, 9, requires_grad=True)
    weight = torch.randn(2, network.channels, 13 * network.scale, 9 * network.scale)
    inputs = [image, *network.parameters()]

    def gradients():
        return torch.autograd.grad((network(image) * weight).sum(), inputs)

    found = gradients()
    assert set(ran) == {
        "zoo_depthwise",
        "zoo_depthwise_slope",
        "zoo_depthwise_weights",
        "zoo_tokens",
        "zoo_tokens_gradients",
    }
    ran.clear()
    monkeypatch.setenv(passes.ENVIRONMENT, "0")
    expected = gradients()
    assert not ran
    for one, other in zip(found, expected, strict=True):
        # Sums of hundreds of terms, in another sequence, through two blocks.
        assert float((one - other).abs().max()) <= 2e-5 * float(other.abs().max())


WIDTH = 9
"""Of images that passes over rows take."""


@pytest.mark.parametrize("kind", ["forward", "pre", "replaced"])
def test_hooks_of_joined_layers_run(kind, ran):
    block, x = RSSB(30, branch=LightCAB).eval(), torch.rand(1, 6, WIDTH, 30)
    with torch.no_grad():
        block(x)
    assert ran.count("zoo_rows") == 2  # so these layers are joined without hooks
    layers = {
        name: module
        for name, module in block.named_modules()
        if not isinstance(module, nn.ModuleList)
    }
    called = set()
    for name, module in layers.items():
        if kind == "replaced":  # as accelerate does it

            def call(*inputs, name=name, forward=module.forward):
                called.add(name)
                return forward(*inputs)

            module.forward = call
        elif kind == "forward":
            module.register_forward_hook(lambda *_, name=name: called.add(name))
        else:
            module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    with torch.no_grad():
        block(x)
    assert called == set(layers)


@pytest.mark.parametrize(
    "name",
    [
        *("norm", "mixer", "drop_path", "branch_norm", "branch", "branch.layers.3"),
        *("branch.layers.5", "mixer.in_proj", "mixer.conv", "mixer.out_norm", "mixer.out_proj"),
    ],
)
@pytest.mark.parametrize("kind", ["hook", "class"])
def test_one_layer_that_is_not_ordinary_is_called(name, kind):
    """As a fine-tuning library makes them; the others may be joined around it."""
    block, x = scrambled(RSSB(30, branch=LightCAB)), torch.rand(1, 6, WIDTH, 30)
    layer = block.get_submodule(name)
    if kind == "hook":
        layer.register_forward_hook(lambda _module, _inputs, y: y + 1)
    else:
        own = type(layer)
        layer.__class__ = type(
            "Other", (own,), {"forward": lambda self, x: own.forward(self, x) + 1}
        )
    with torch.no_grad():
        found = block(x)
        mixed = block.drop_path(block.mixer(block.norm(x)))
        total = x * block.skip_scale + mixed
        expected = total * block.branch_scale + block.branch(block.branch_norm(total))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_layers_of_other_classes_are_called():
    """As a fine-tuning library puts them in the place of ours."""

    class Norm(LayerNorm):
        def forward(self, x):
            return super().forward(x) + 1

    class Conv(Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    class Gelu(nn.GELU):
        def forward(self, x):
            return super().forward(x) + 1

    x, conv = torch.rand(1, 4, 5, 6), Conv(6, 6, 3, padding=1, groups=6)
    plain = Conv2d(6, 6, 3, padding=1, groups=6)
    plain.load_state_dict(conv.state_dict())
    with torch.no_grad():
        found = in_a_row([conv, Gelu()], x)
        torch.testing.assert_close(found, nn.GELU()(plain(x) + 1) + 1)
        tanh = nn.GELU(approximate="tanh")
        torch.testing.assert_close(in_a_row([plain, tanh], x), tanh(plain(x)))
        _, normed = scaled_sum_and_norm(x, None, x, Norm(6))
        torch.testing.assert_close(normed, LayerNorm(6)(2 * x) + 1)


def test_a_branch_is_the_product_of_its_factors():
    branch, x = scrambled(LightCAB(30)), torch.rand(2, 6, 5, 30)
    with torch.no_grad():
        features, gain = factors(branch, x)
        assert gain.shape == (2, 1, 1, 30)
        torch.testing.assert_close(features * gain, branch(x))
        branch.register_forward_hook(lambda *_: None)
        whole, nothing = factors(branch, x)
    assert nothing is None
    torch.testing.assert_close(whole, features * gain)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3, "padding": 0, "groups": 6},
        {"kernel_size": 3, "padding": 1, "groups": 6, "stride": 2},
        {"kernel_size": 3, "padding": 1, "groups": 3},
        {"kernel_size": 3, "padding": 1, "groups": 6, "padding_mode": "reflect"},
        {"kernel_size": (3, 1), "padding": (1, 0), "groups": 6},
        {"kernel_size": 3, "padding": (2, 1), "dilation": (2, 1), "groups": 6},
        {"kernel_size": 3, "padding": "same", "groups": 6},
        {"kernel_size": 1, "padding": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 1, "groups": 2},
        {"kernel_size": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("gradient", [False, True])
def test_any_convolution_is_pytorchs(settings, gradient):
    ours = Conv2d(6, 6, **settings)
    theirs = nn.Conv2d(6, 6, **settings)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 7, 5, 6)
    with torch.set_grad_enabled(gradient):
        expected = theirs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        torch.testing.assert_close(ours(x), expected)
