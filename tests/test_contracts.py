"""What networks can be made of: each contract is met by a part from outside the package."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from tests.helpers.outside_parts import register_parts, single
from zoo.blocks import Skip, TokenScan, linear_projections
from zoo.networks.guide import check_names
from zoo.networks.unet import UNet
from zoo.ops.padding import margin_to_grid, pad


@pytest.fixture(autouse=True)
def parts():
    """Parts from outside; the suite forgets them after each test."""
    register_parts()


OUTSIDE = {
    "norm": single(block={"branch": None, "norm": "my_rms", "mixer": {"norm": "my_rms"}}),
    "merge": single(
        block={"branch": None, "mixer": {"merge": "my_weights"}},
        scans=[{"type": "raster", "directions": ["row", "column"]}],
    ),
    "core": single(block={"branch": None, "mixer": {"type": "my_plain_scan", "d_state": 2}}),
    "blocks in turn": single(block=["my_gain", {"type": "rssb", "branch": None}]),
    "levels": {
        "network": {
            "type": "unet",
            "dim": [8, 12, 10],
            "depths": [1, 1, 1],
            "block": "my_gain",
            "down": "my_mean",
            "skip": "my_difference",
            "top_skip": "my_difference",
            "head": "my_gray",
        }
    },
    "guide": {
        "network": {
            "type": "wavelet",
            "dim": 8,
            "depths": [1],
            "high_depths": [2],
            "block": "my_gain",
            "guided": "my_guide",
        }
    },
    "channels": single(channels=4, out_channels=1, head="my_gray", block="my_gain", scale=1),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_part_from_outside_learns_and_comes_back_from_a_file(name, tmp_path):
    network = zoo.build(OUTSIDE[name])
    image = torch.rand(2, network.channels, 5, 7)
    output = network(image)
    assert output.shape == (2, network.out_channels, 5, 7)
    output.square().mean().backward()
    assert not [key for key, p in network.named_parameters() if p.grad is None]
    zoo.save(network, tmp_path / "w.safetensors")
    with torch.no_grad():
        assert torch.equal(zoo.load(tmp_path / "w.safetensors")(image), network.eval()(image))


class EightBits(nn.Linear):
    """A quantiser's layer: weights of 8 bits, with one step size for each output."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        step = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        self.weight = nn.Parameter((layer.weight.detach() / step).round() * step)
        self.bias = layer.bias


@pytest.mark.parametrize(
    "mixer",
    ["ss2d", "my_plain_scan", "head_scan", "axial", {"type": "omni_scan", "d_state": 2}],
    ids=["ss2d", "outside", "head_scan", "axial", "omni_scan"],
)
def test_a_quantiser_reaches_all_projections_of_a_scan(mixer):
    torch.manual_seed(0)
    network = zoo.build(single(dim=32, block={"branch": None, "mixer": mixer})).eval()
    image, state = torch.rand(1, 3, 5, 7), set(network.state_dict())
    with torch.no_grad():
        before = network(image)
        linear_projections(linear_projections(network))  # twice does no harm
        torch.testing.assert_close(network(image), before)
    found = set(network.state_dict()) - state
    assert found and all(name.endswith("x_proj_weight.weight") for name in found)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, EightBits(child))
    with torch.no_grad():
        error = (network(image) - before).abs().max()
    assert 0 < error < 0.02 * (before.max() - before.min())
    for module in network.modules():
        if isinstance(module, TokenScan):
            assert type(module.x_proj_weight) is EightBits


def test_a_quantiser_reaches_the_projections_of_a_burst():
    network = zoo.build("qmambabsr_tiny", dim=16, stages=[1], burst=3).eval()
    burst = torch.rand(1, 3, 4, 8, 8)
    with torch.no_grad():
        before = network(burst)
        torch.testing.assert_close(linear_projections(network)(burst), before)
    names = {name.rpartition(".")[2] for name, m in network.named_modules() if type(m) is nn.Linear}
    assert {"query_weight", "C_weight", "x_proj_weight"} <= names


def test_blocks_take_turns_and_groups_may_have_their_own():
    turns = zoo.build(single(depths=[3], block=["my_gain", "res"]))
    assert [type(b).__name__ for b in turns.groups[0].blocks] == ["MyGain", "ResBlock", "MyGain"]
    groups = zoo.build(single(depths=[2, 3], block=[["res"], ["my_gain", "res"]]))
    names = [[type(b).__name__ for b in group.blocks] for group in groups.groups]
    assert names == [["ResBlock", "ResBlock"], ["MyGain", "ResBlock", "MyGain"]]
    coarse = {"depths": [1], "fusion": {"scan": {"size": 4}}}
    beside = zoo.build(single(depths=[1, 1], block=[["my_gain"], ["res"]], coarse=coarse))
    assert type(beside.coarse.groups[0].blocks[0]).__name__ == "MyGain"


def test_levels_of_a_unet_have_their_own_widths_depths_blocks_and_scan_orders():
    network = zoo.build(
        {
            "network": {
                "type": "unet",
                "dim": [8, 12],
                "depths": [2, 1],
                "decoder_depths": [3],
                "refinement": 1,
                "block": [[{"type": "rssb", "branch": None}], ["my_gain"]],
                "scans": [["zigzag", "spiral"], ["raster"]],
            }
        }
    )
    encoder, decoder = network.encoders[0], network.decoders[0]
    assert [type(b.mixer.scan).__name__ for b in encoder] == ["Zigzag", "Spiral"]
    assert len(decoder) == 3 and decoder[0].norm.weight.shape == (16,)
    assert network.latent[0].gain.shape == (12,) and len(network.refinement) == 1
    assert zoo.registry.capabilities_of(network).size_multiple == 2


def test_a_unet_may_leave_out_the_image_or_add_it_enlarged():
    def built(**changes):
        torch.manual_seed(0)
        options = {"dim": 8, "depths": [1, 1], "block": "my_gain", "head": "pixelshuffle_direct"}
        return zoo.build({"network": {"type": "unet", "scale": 2, **options, **changes}}).eval()

    image = torch.rand(1, 3, 3, 5)
    with torch.no_grad():
        added = built()(image) - built(residual=False)(image)
    enlarged = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(added, enlarged, atol=1e-6, rtol=0)


def test_an_image_of_other_channels_keeps_the_mean_of_those_that_come_out():
    network = zoo.build(single(channels=1, out_channels=3, head="my_gray", block="my_gain"))
    with torch.no_grad():
        network.head.conv.weight.zero_(), network.head.conv.bias.zero_()
        found = network(torch.rand(1, 1, 2, 2))[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0.4488, 0.4371, 0.4040]))


def test_the_image_joins_each_level_with_its_pixels_as_channels():
    network = zoo.build(
        {
            "network": {
                "type": "wavelet",
                "dim": 4,
                "depths": [1, 1],
                "high_depths": [1, 1],
                "block": "my_gain",
                "guided": "my_guide",
            }
        }
    ).eval()
    seen = []
    for down in network.downs:
        down.image.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        network(image)
    for side, found in zip((2, 4), seen, strict=True):
        expected = torch.nn.functional.pixel_unshuffle(image, side)
        assert torch.equal(found.permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize(("extra", "size", "padded"), [(False, 8, 8), (True, 8, 12), (True, 7, 8)])
def test_a_wavelet_network_pads_by_reflection_to_whole_grids(extra, size, padded):
    options = {"dim": 4, "depths": [1], "high_depths": [1], "block": "my_gain"}
    network = zoo.build(
        {"network": {"type": "wavelet", **options, "pad_to": 4, "extra_grid": extra}}
    ).eval()
    seen = []
    network.shallow.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, size, size)
    with torch.no_grad():
        assert network(image).shape == image.shape
    more = padded - size
    expected = torch.nn.functional.pad(image, (0, more, 0, more), mode="reflect")
    assert torch.equal(seen[0].permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize("mode", ["replicate", "reflect", "mirror"])
def test_every_network_of_images_pads_alike(mode):
    """The same two options, whatever the network needs itself."""
    small = {"dim": 8, "block": "my_gain", "padding": mode, "pad_to": 6}
    image = torch.rand(1, 3, 7, 10)
    padded = pad(image, margin_to_grid(image, 12), mode)
    for kind, more, grid in (
        ("single_image", {"depths": [1], "head": "my_gray"}, 6),
        ("unet", {"depths": [1, 1, 1]}, 12),
        ("wavelet", {"depths": [1, 1], "high_depths": [1, 1], "guided": "my_guide"}, 12),
        ("my_padded", {}, 12),
    ):
        network = zoo.build({"network": {"type": kind, **small, **more}}).eval()
        assert zoo.registry.capabilities_of(network).size_multiple == grid
        with torch.no_grad():
            expected = network(padded)[..., :7, :10]
            assert torch.equal(network(image), expected)


def test_a_missing_attribute_of_a_part_from_outside_is_named():
    class NoOut(Skip):
        def __init__(self, dim):
            super().__init__()

    with pytest.raises(ValueError, match="NoOut has no attribute 'out'; a skip sets it"):
        UNet(dim=32, depths=[1, 1, 1], skip=NoOut)
    with pytest.raises(ValueError, match=r"the guide pan of the network is tuple; .* a Guide"):
        check_names({"pan": (1, 2)})
