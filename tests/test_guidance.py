"""Fusions with guides in the groups of networks, by a part from outside the package."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from export.onnx import export
from export.verify import verify
from zoo.blocks import Block, GuidedBlock
from zoo.errors import RecipeError
from zoo.networks import Guide
from zoo.networks.single_image import SingleImage

GUIDES = {"pan": {"channels": 2, "scale": 2}, "map": {"channels": 3}}


class MyFusion(GuidedBlock):
    """Adds what it computes of the guide."""

    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x_BHWC, guide_BHWC):
        return x_BHWC + self.linear(guide_BHWC)


class MySame(Block):
    """Changes nothing, so that only fusions do."""

    def __init__(self, dim, *, scan=None, drop_path=0.0):
        super().__init__()

    def forward(self, x_BHWC):
        return x_BHWC


@pytest.fixture(autouse=True)
def parts():
    zoo.register("guided_block", "my_fusion")(MyFusion)
    zoo.register("block", "my_same")(MySame)


def network_of(kind, **changes):
    options = {"dim": 8, "block": {"branch": None}, "guides": GUIDES, "guided": "my_fusion"}
    own = {
        "single_image": {"depths": [1, 1], "scale": 2},
        "unet": {"depths": [1, 1, 1], "refinement": 0},
    }
    torch.manual_seed(0)
    return zoo.build({"network": {"type": kind, **options, **own[kind], **changes}})


def perturbed(network):
    """With random values in all parameters, so that none is 0 or 1 by its initial value."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.mark.parametrize("guided", ["my_fusion", "hfe", None])
@pytest.mark.parametrize("kind", ["single_image", "unet"])
def test_every_group_begins_with_a_fusion_that_learns(kind, guided, tmp_path):
    network = perturbed(network_of(kind, guided=guided))
    name = "MyFusion" if guided == "my_fusion" else "HighFrequencyBlock"
    depths = 2 if kind == "single_image" else 3
    assert [type(f).__name__ for f in network.guidance.fusions] == [name] * depths
    inputs = network.example_inputs(5, 7)
    output = network(*inputs)
    assert output.shape == (1, 3, 5 * network.scale, 7 * network.scale)
    output.square().mean().backward()
    assert not [key for key, p in network.named_parameters() if p.grad is None]
    assert all(fusion.linear.weight.grad.any() for fusion in network.guidance.fusions
               if guided == "my_fusion")  # fmt: skip
    zoo.save(network, tmp_path / "w.safetensors")
    again = zoo.load(tmp_path / "w.safetensors")
    assert list(again.guides) == ["pan", "map"] and again.guides == network.guides
    with torch.no_grad():
        assert torch.equal(again(*inputs), network.eval()(*inputs))
        for number in (1, 2):
            changed = [1 - x if i == number else x for i, x in enumerate(inputs)]
            assert not torch.isclose(again(*changed), again(*inputs)).all()


def joined(network, pan, of_map):
    """The features of both guides, by plain operators."""
    pixels = torch.cat([F.pixel_unshuffle(pan, 2), of_map], 1)
    conv = network.guidance.join
    return F.conv2d(pixels, conv.weight, conv.bias, padding=1)


def test_a_group_adds_its_fusion_to_the_features_before_its_blocks():
    network = perturbed(network_of("single_image", block="my_same", patch_norm=False)).eval()
    image, pan, of_map = network.example_inputs(4, 6)
    guide_BHWC = joined(network, pan, of_map).permute(0, 2, 3, 1)
    seen = []
    network.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(image, pan, of_map)
        mean = network.normalise.mean_I[:, None, None]
        first = network.shallow((image - mean).permute(0, 2, 3, 1).contiguous())
        expected = first
        for fusion, group in zip(network.guidance.fusions, network.groups, strict=True):
            fused = expected + fusion.linear(guide_BHWC)
            expected = fused + group.conv(fused)
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)


def test_levels_of_a_unet_see_the_guides_in_their_size_and_width():
    network = perturbed(network_of("unet", dim=[8, 12, 10], down="strided", skip="sum")).eval()
    seen = []
    for fusion in network.guidance.fusions:
        fusion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    image, pan, of_map = network.example_inputs(8, 4)
    with torch.no_grad():
        network(image, pan, of_map)
        guide = joined(network, pan, of_map)
        for x_BHWC, guide_BHWC in seen:
            assert x_BHWC.shape == guide_BHWC.shape
            torch.testing.assert_close(guide_BHWC.permute(0, 3, 1, 2), guide)
            if len(seen) > (level := [x is x_BHWC for x, _ in seen].index(True)) + 1:
                guide = network.guidance.downs[level](guide_BHWC).permute(0, 3, 1, 2)
    assert [tuple(x.shape[1:]) for x, _ in seen] == [(8, 4, 8), (4, 2, 12), (2, 1, 10)]


@pytest.mark.parametrize("kind", ["single_image", "unet"])
def test_guides_are_padded_with_the_image(kind):
    network = perturbed(network_of(kind, pad_to=4, padding="reflect")).eval()
    image, pan, of_map = network.example_inputs(6, 7)
    padded = [F.pad(x, (0, s, 0, 2 * s), mode="reflect")
              for x, s in ((image, 1), (pan, 2), (of_map, 1))]  # fmt: skip
    with torch.no_grad():
        whole = network(*padded)
        found = network(image, pan, of_map)
    assert torch.equal(found, whole[..., : 6 * network.scale, : 7 * network.scale])


@pytest.mark.parametrize("kind", ["single_image", "unet"])
def test_a_network_without_guides_is_as_it_was(kind):
    guided, plain = network_of(kind), network_of(kind, guides={}, guided=None)
    assert plain.guidance is None and not plain.guides
    own = {key for key in guided.state_dict() if key.startswith("guidance.")}
    assert set(plain.state_dict()) == set(guided.state_dict()) - own != set(guided.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guides": {}}, "guided has no effect without guides; name them, as in"),
        ({"guides": {"pan": {"channels": 0}}}, r"network\.guides\.pan: channels is 0"),
        ({"guides": {"pan": {"channels": 1, "scale": 65}}}, "scale is 65; it must be from 1 to 64"),
        (
            {"guides": {"pan": {"scale": 2}}},
            r"network\.guides\.pan: .* needs the option 'channels'",
        ),
        ({"guides": {"flow": {"channels": 1}}}, "'flow' cannot be the name of a guide"),
        ({"guided": "rssb"}, r"network\.guided: unknown guided_block 'rssb'"),
    ],
)
def test_wrong_options_of_guides_are_named(changes, message):
    with pytest.raises(RecipeError, match=message):
        network_of("single_image", **changes)


def test_a_guide_of_another_name_or_kind_is_told_without_a_recipe():
    for guides in ({1: Guide(channels=1)}, {"output": Guide(channels=1)}):
        with pytest.raises(ValueError, match="cannot be the name of a guide"):
            SingleImage(guides=guides)
    with pytest.raises(ValueError, match="the guide pan of the network is int"):
        SingleImage(guides={"pan": 1})


@pytest.mark.parametrize("kind", ["single_image", pytest.param("unet", marks=pytest.mark.slow)])
def test_a_file_has_an_input_for_each_guide_and_agrees(kind, tmp_path):
    depths = [2] if kind == "single_image" else [1, 1]  # blocks of a group of two are traced apart
    options = {"block": "my_same", "padding": "reflect", "pad_to": 4, "depths": depths}
    network = perturbed(network_of(kind, **options)).eval()
    report = verify(network, export(network, tmp_path / "guided.onnx"))
    assert report.passed and {c.size[-2] % 4 for c in report.comparisons} - {0}
