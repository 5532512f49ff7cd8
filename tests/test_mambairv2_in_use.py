"""MambaIRv2 in every tool: tiles, ensemble, training with checkpointing, half-precision exports."""

from __future__ import annotations

import pytest
import torch

import zoo
from export.onnx import export
from export.precision import prepared
from export.shape import input_shape
from zoo.blocks import Router
from zoo.errors import RecipeError
from zoo.inference import RestoreSettings, restore_tensor
from zoo.training.gradient_checkpointing import enable_gradient_checkpointing


@pytest.fixture
def network():
    """A small network whose blocks all matter."""
    network = zoo.build("mambairv2_tiny_x2", **{"block.mixer.classes": 6}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network


def psnr(found, expected):
    return float(-10 * (found - expected).double().square().mean().log10())


def test_tiles_are_routed_each_by_itself_and_blended(network):
    image = torch.rand(1, 3, 72, 40)
    whole = restore_tensor(network, image, RestoreSettings(tile=0))
    tiles = restore_tensor(network, image, RestoreSettings(tile=45, overlap=16))
    assert whole.shape == tiles.shape == (1, 3, 144, 80)
    # Tiles of 45 are cut to 40, a multiple of the window of 8, so that they need no padding.
    alone = restore_tensor(network, image[:, :, :40], RestoreSettings(tile=0))
    assert torch.equal(tiles[:, :, : 2 * 16], alone[:, :, : 2 * 16])
    assert not torch.equal(tiles, whole)
    assert psnr(tiles, whole) > 20


def test_the_ensemble_is_the_mean_of_eight(network):
    image = torch.rand(1, 3, 9, 12)
    found = restore_tensor(network, image, RestoreSettings(tile=0, ensemble=True))
    total = 0
    with torch.no_grad():
        for turn in range(8):
            turned = (image.flip(3) if turn >= 4 else image).rot90(turn % 4, (2, 3))
            back = network(turned).rot90(-(turn % 4), (2, 3))
            total = total + (back.flip(3) if turn >= 4 else back)
    torch.testing.assert_close(found, (total / 8).clamp(0, 1))


def test_gradient_checkpointing_draws_the_same_routes_again(network):
    network, image = network.train(), torch.rand(1, 3, 8, 8)
    gradients = []
    for enable in (False, True):
        if enable:
            assert enable_gradient_checkpointing(network) == 4
        network.zero_grad()
        torch.manual_seed(2)
        network(image).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_exports_in_half_precision_keep_the_router_whole(network, precision):
    copied = prepared(network, input_shape(network), precision).network
    for name, value in network.named_parameters():
        kept = copied.get_parameter(name)
        if ".router." in name:
            assert torch.equal(kept, value)
        elif name.endswith("in_proj.weight"):
            assert kept.dtype != torch.float32
    assert sum(isinstance(module, Router) for module in copied.modules()) == 4
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        found = copied(image.to(copied.shallow.weight.dtype))
        assert psnr(found.float(), network(image)) > 25


def test_sampled_routes_are_not_exported(tmp_path):
    network = zoo.build("mambairv2_tiny_x2", **{"block.mixer.routing": "sample", "depths": [1]})
    with pytest.raises(RecipeError, match=r"routing is 'sample'.*block\.mixer\.routing=argmax"):
        export(network, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())
