"""What networks can be made of: each contract is met by a part from outside the package."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import zoo
from tests.helpers.plain import conv, randomised, weights_of
from tests.helpers.plain_field import band_select
from zoo.blocks import (
    Block,
    Conv2d,
    Downsampler,
    GuidedBlock,
    LayerNorm,
    Merge,
    Mixer,
    Norm,
    Skip,
    TokenScan,
    linear_projections,
    nearest_channels,
    scan_sizes,
)
from zoo.errors import RecipeError
from zoo.heads import Head
from zoo.networks import Extension, Network
from zoo.networks.guide import check_names
from zoo.networks.unet import UNet
from zoo.networks.wavelet import BandSelect
from zoo.ops.haar import haar, inverse_haar
from zoo.ops.padding import PadMode, margin_to_grid, pad
from zoo.ops.scan import selective_scan
from zoo.recipe import load_recipe
from zoo.registry import Capabilities
from zoo.scans import Raster


@pytest.fixture(autouse=True)
def parts():
    """Registers the parts below; the suite forgets them after each test."""
    for kind, name, target in (
        ("norm", "my_rms", MyRMS),
        ("merge", "my_weights", MyWeights),
        ("mixer", "my_plain_scan", MyPlainScan),
        ("block", "my_gain", MyGain),
        ("downsampler", "my_mean", MyMean),
        ("skip", "my_difference", MyDifference),
        ("head", "my_gray", MyGray),
        ("guided_block", "my_guide", MyGuide),
        ("network", "my_padded", MyPadded),
    ):
        zoo.register(kind, name)(target)


class MyRMS(Norm):
    def __init__(self, dim, *, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return x * self.weight / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()


class MyWeights(Merge):
    """One weight for each direction, which must know how many there are."""

    def __init__(self, dim, *, directions):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(directions))

    def forward(self, inputs):
        return torch.einsum("blke,k->ble", selective_scan(*inputs, reduce=False), self.weights)


class MyPlainScan(TokenScan, Mixer):
    """The scan core alone: no gate, no convolution, projections with biases."""

    def __init__(self, dim, *, scan=None, d_state: int = 4):
        super().__init__(scan_sizes(dim, expand=1, d_state=d_state), scan=scan or Raster())
        self.into, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.reset_parameters()

    def forward(self, x_BHWC):
        height, width = x_BHWC.shape[1:3]
        order = self.scan.order(height, width, x_BHWC.device)
        y = selective_scan(*self.scan_inputs(self.into(x_BHWC).flatten(1, 2), order), reduce=True)
        return self.out(y).unflatten(1, (height, width))


class MyGain(Block):
    def __init__(self, dim, *, scan=None, drop_path=0.0):
        super().__init__()
        self.gain = nn.Parameter(torch.full((dim,), 1.5))

    def forward(self, x_BHWC):
        return x_BHWC * self.gain


class MyMean(Downsampler):
    def __init__(self, dim, *, out):
        super().__init__()
        self.linear = nn.Linear(dim, out)

    def forward(self, x_BHWI):
        return self.linear(x_BHWI.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).mean((2, 4)))


class MyDifference(Skip):
    def __init__(self, dim):
        super().__init__()
        self.out = 3 * dim

    def forward(self, x_BHWC, skip_BHWC):
        return torch.cat([x_BHWC, skip_BHWC, x_BHWC - skip_BHWC], dim=-1)


class MyGray(Head):
    def __init__(self, dim, *, scale, channels):
        super().__init__()
        self.conv = Conv2d(dim, channels, 1)

    def forward(self, features_BHWC, image_BHWI):
        return self.conv(features_BHWC)


class MyGuide(GuidedBlock):
    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x_BHWC, guide_BHWC):
        return x_BHWC + self.linear(guide_BHWC)


class MyPadded(Network):
    """A network that pads as those of the package do; it needs even sides."""

    def __init__(self, *, dim: int, block: str, padding: PadMode = "replicate", pad_to: int = 1):
        super().__init__()
        self._set_sizes(scale=1, channels=3, out_channels=None)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.extension = Extension(padding, pad_to, needed=4)
        self.capabilities = Capabilities(size_multiple=self.extension.grid)

    def forward(self, image_BIHW):
        return self.extension.around(self.conv, image_BIHW)


def single(**changes):
    return {"network": {"type": "single_image", "dim": 16, "depths": [2], **changes}}


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


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("single_image", {"depths": [1, 2]}),
        ("single_image", {"depths": [3, 1], "block": [["res"], ["res", "my_gain"]]}),
        ("unet", {"depths": [1, 2], "refinement": 2}),
        ("wavelet", {"depths": [1, 2], "high_depths": [1, 1], "guided": "my_guide"}),
    ],
)
def test_a_kind_of_block_that_no_group_has_a_place_for_is_refused(kind, more):
    """One list for all groups may be longer than some of them."""
    small = {"type": kind, "dim": 8, "block": ["res", "my_gain", "res"], **more}
    with pytest.raises(RecipeError, match=r"block has [23] kinds .* at most [12] blocks"):
        zoo.build({"network": small})
    if "block" not in more:
        zoo.build({"network": {**small, "block": ["res", "my_gain"]}})


class MyAxial(Mixer):
    """Scans on its own, as it says."""

    takes_scan = False

    def __init__(self, dim, *, scan=None):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x_BHWC):
        return self.linear(x_BHWC.cumsum(1))


class MyKeeper(Block):
    """A block with a mixer that takes no scan order, and a scan of its own that does."""

    def __init__(self, dim, *, scan=None, drop_path=0.0):
        super().__init__()
        self.mixer, self.order = MyAxial(dim), scan

    def forward(self, x_BHWC):
        return self.mixer(x_BHWC)


def rows(mixer):
    return {"type": "rssb", "branch": None, "mixer": mixer}


SCANLESS = {"axial": "AxialSS2D", "mamba1d": "Mamba1D", "my_axial": "MyAxial",
            "window_attention": "WindowAttention"}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"block": rows(mixer)}, rf"scans has no effect, because {name} takes no scan order")
            for mixer, name in SCANLESS.items()
        ),
        ({"block": ["res", "channel_transformer"]}, "ChannelTransformer and ResBlock take no scan"),
        ({"block": {"type": "msfm", "branches": ["conv"]}}, "MSFM takes no scan order"),
        ({"block": {"type": "msfm"}}, "AxialSS2D and ChannelTransformer take no scan order"),
        (
            {"depths": [2, 1], "block": [["res"], ["res"]], "scans": [["zigzag"], ["spiral"]]},
            "scans has no effect, because ResBlock takes",
        ),
        (
            {
                "block": [["res"]],
                "scans": ["raster"],
                "coarse": {"depths": [1], "scans": ["zigzag"], "fusion": {"scan": {"size": 4}}},
            },
            r"coarse\.scans has no effect",
        ),
    ],
)
def test_scan_orders_that_no_part_takes_are_refused(options, message):
    zoo.register("mixer", "my_axial")(MyAxial)
    told = {"type": "single_image", "dim": 16, "depths": [2], "scans": ["zigzag"], **options}
    with pytest.raises(RecipeError, match=rf"{message}.*; leave it out, or set it to \[raster\]"):
        zoo.build({"network": told})
    without = {key: value for key, value in told.items() if key not in ("scans", "coarse")}
    zoo.build({"network": without})
    zoo.build({"network": {**without, "scans": ["raster"]}})


@pytest.mark.parametrize(
    "options",
    [
        {"type": "unet", "depths": [1, 1], "block": "res"},
        {"type": "wavelet", "depths": [1], "high_depths": [1], "block": "res"},
        {"type": "burst", "burst": 2, "stages": [1], "body": "res"},
        {"type": "burst", "burst": 2, "stages": [0]},
    ],
    ids=["unet", "wavelet", "burst", "no block"],
)
def test_every_network_refuses_scan_orders_that_no_part_takes(options):
    message = "scans has no effect, because (ResBlock takes no scan order|there is no block);"
    with pytest.raises(RecipeError, match=message):
        zoo.build({"network": {"dim": 8, "scans": ["zigzag"], **options}})


@pytest.mark.parametrize(
    "block",
    ["my_gain", "my_keeper", ["res", "my_gain"], "attentive_layer", rows("my_plain_scan")],
    ids=["silent", "keeper", "in turn", "one of two mixers", "outside"],
)
def test_scan_orders_that_a_part_takes_or_may_take_are_not_refused(block):
    zoo.register("block", "my_keeper")(MyKeeper)
    options = {"type": "single_image", "dim": 16, "depths": [2], "scans": ["zigzag"]}
    zoo.build({"network": {**options, "block": block}})
    # Lists by group have one for each, whatever its blocks.
    zoo.build({"network": {**options, "block": [["res"], ["my_gain"]], "depths": [1, 1],
                           "scans": [["zigzag"], ["spiral"]]}})  # fmt: skip


@pytest.mark.parametrize("mixer", ["ss2d", "attentive"])
def test_inner_channels_are_given_once(mixer):
    def inner(**options):
        network = zoo.build(single(block=rows({"type": mixer, **options})))
        return network.groups[0].blocks[0].mixer.D.shape[1]

    assert inner() == 32 and inner(expand=1.5) == 24 and inner(d_inner=20) == 20
    assert inner(expand=None, d_inner=20) == 20
    with pytest.raises(RecipeError, match=r"expand is 2 and d_inner is 20, .* leave expand out"):
        inner(expand=2, d_inner=20)


def test_files_with_options_without_effect_still_load(tmp_path, caplog):
    """Earlier versions ignored them in silence; now a line says so."""
    network = zoo.build(single(block=[rows({"d_inner": 20}), "res"])).eval()
    plain = zoo.build(single(block=rows("axial"))).eval()
    mixer = {"d_inner": 20, "expand": 1.5}
    for known, added in (
        (network, {"block": [rows(mixer), "res"]}),
        (plain, {"scans": [{"type": "zigzag"}]}),
    ):
        recipe = known.recipe
        known.recipe = dataclasses.replace(recipe, network={**recipe.network, **added})
        zoo.save(known, tmp_path / "old.safetensors")
        caplog.clear()
        again = zoo.load(tmp_path / "old.safetensors")
        [told] = [record.message for record in caplog.records]
        assert "has no effect" in told or "expand is 1.5 and d_inner is 20" in told
        image = torch.rand(1, 3, 5, 4)
        with torch.no_grad():
            assert torch.equal(again(image), known(image))
        with pytest.raises(RecipeError, match=r"no effect|d_inner is 20"):
            zoo.build(known.recipe)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": []}, r"depths is \[\] and refinement is 4; give each level at least one block"),
        ({"depths": [1, 1], "decoder_depths": [1, 1]}, r"decoder_depths is \[1, 1\]; give one"),
        ({"depths": [1, 1], "dim": [8]}, r"dim is \[8\]; .* one for each of the 2 levels"),
        ({"depths": [1] * 11}, "depths has 11 levels; use at most 10"),
        ({"depths": [1, 1], "block": [["res"]]}, "block has 1 lists for 2 groups"),
        ({"depths": [1], "block": []}, "block is empty"),
        ({"depths": [1], "out_channels": 1}, "out_channels is 1, .* set residual to false"),
        ({"depths": [1], "out_channels": 0}, "out_channels is 0; it must be at least 1"),
        ({"depths": [1, 1], "block": ["res"] * 5}, "block has 5 kinds .* at most 4 blocks"),
        ({"depths": [1], "padding": "wrap"}, "expected one of replicate, reflect, mirror"),
        ({"depths": [1], "block": {"norm": {"eps": 0}}}, r"block\.norm: eps is 0"),
        ({"depths": [1], "scale": 2}, "scale is 2, .* conv head .*; set it to 1, or take"),
        ({"depths": [1], "block": {"branch": {"type": "simple_gate", "ratio": 1.1}}}, "even"),
        ({"depths": [1], "block": {"branch": {"type": "gdfn", "ratio": 0}}}, "0 hidden channels"),
        ({"depths": [1], "dim": 30, "block": {"mixer": "head_scan"}}, "a multiple of 4"),
        (
            {"depths": [1], "block": {"mixer": {"type": "omni_scan", "channel_rank": 0}}},
            "rank is 0",
        ),
    ],
)
def test_a_wrong_option_of_a_unet_is_named(changes, message):
    with pytest.raises(RecipeError, match=message):
        zoo.build({"network": {"type": "unet", "dim": 32, **changes}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": [1, 1]}, r"high_depths is \[1, 1, 2\]; give both one number"),
        ({"pad_to": 0}, "pad_to is 0; it must be from 1 to 256"),
        (
            {"pad_to": 250},
            "needs multiples of 8, so images .* to multiples of 1000; use a multiple",
        ),
        ({"dim": 0}, "dim is 0"),
    ],
)
def test_a_wrong_option_of_a_wavelet_network_is_named(changes, message):
    with pytest.raises(RecipeError, match=message):
        zoo.build({"network": {"type": "wavelet", **changes}})


def test_a_norm_with_another_epsilon_equals_its_equation():
    part = randomised(LayerNorm(8, eps=0.25))
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 0.25).sqrt()
    w = weights_of(part)
    torch.testing.assert_close(part(x), expected * w["weight"] + w["bias"])
    assert LayerNorm(8).eps == 1e-5


def test_haar_bands_are_sums_and_differences_and_come_back():
    x = torch.randn(2, 4, 6, 3, dtype=torch.float64)
    a, b, c, d = x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]
    expected = (a + b + c + d, c + d - a - b, b + d - a - c, a + d - b - c)
    for found, twice in zip(haar(x), expected, strict=True):
        torch.testing.assert_close(2 * found, twice)
    torch.testing.assert_close(inverse_haar(haar(x)), x)


def test_bands_are_weighed_channel_by_channel():
    part = randomised(BandSelect(9))
    bands = [torch.randn(2, 3, 5, 9, dtype=torch.float64) for _ in range(3)]
    with torch.no_grad():
        torch.testing.assert_close(part(bands), band_select(weights_of(part), bands))
    assert part.reduce[0].out_channels == 4 and BandSelect(64).reduce[0].out_channels == 8


def test_the_nearest_channel_is_the_same_under_autocast():
    x_BLC, guide_BLC = torch.rand(2, 50, 6), torch.rand(2, 50, 6)
    near_BC = nearest_channels(x_BLC, guide_BLC)
    for b in range(2):
        for c in range(6):
            apart = (guide_BLC[b] - x_BLC[b, :, c : c + 1]).norm(dim=0)
            assert near_BC[b, c] == apart.argmin()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_channels(x_BLC, guide_BLC), near_BC)


def test_the_nearest_channel_is_found_where_half_precision_would_overflow():
    x_BLC, guide_BLC = (100 * torch.rand(1, 400, 5)).half(), (100 * torch.rand(1, 400, 5)).half()
    assert torch.equal(
        nearest_channels(x_BLC, guide_BLC), nearest_channels(x_BLC.float(), guide_BLC.float())
    )


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


@pytest.mark.parametrize(
    ("former", "current"),
    [
        (
            {"type": "single_image", "depths": [1], "head": "my_gray", "mirror_pad": 4},
            {"padding": "mirror", "pad_to": 4},
        ),
        (
            {"type": "single_image", "depths": [1], "head": "my_gray", "mirror_pad": 1},
            {"padding": "replicate", "pad_to": 1},
        ),
        (
            {"type": "wavelet", "depths": [1], "high_depths": [1], "grid": 6},
            {"padding": "reflect", "pad_to": 6},
        ),
        ({"type": "wavelet", "depths": [1], "high_depths": [1], "grid": None}, {"pad_to": 1}),
    ],
    ids=["mirror", "no mirror", "grid", "no grid"],
)
def test_files_with_former_names_of_options_load_unchanged(former, current, tmp_path):
    common = {"dim": 8, "block": "my_gain"}
    options = {name: value for name, value in former.items() if name not in ("mirror_pad", "grid")}
    network = zoo.build({"network": {**common, **options, **current}}).eval()
    network.recipe = dataclasses.replace(network.recipe, network={**common, **former})
    zoo.save(network, tmp_path / "old.safetensors")
    image = torch.rand(1, 3, 5, 7)
    again = zoo.load(tmp_path / "old.safetensors")
    assert current.items() <= {"padding": "reflect", **again.recipe.network}.items()
    with torch.no_grad():
        assert torch.equal(again(image), network(image))


@pytest.mark.parametrize(
    ("kind", "former", "current"),
    [
        ("single_image", "mirror_pad", {"pad_to": 8}),
        ("single_image", "mirror_pad", {"padding": "reflect"}),
        ("wavelet", "grid", {"pad_to": 8}),
    ],
)
def test_the_former_and_the_current_name_of_an_option_do_not_go_together(kind, former, current):
    with pytest.raises(RecipeError, match=f"{former} is the former name of pad_to"):
        load_recipe({"network": {"type": kind, former: 4, **current}})
    with pytest.raises(RecipeError, match=r"padding is 'mirror', .* set pad_to"):
        zoo.build({"network": {"type": "single_image", "depths": [1], "padding": "mirror"}})


def test_an_override_by_the_current_name_wins_over_a_former_name():
    data = {"network": {"type": "single_image", "mirror_pad": 4}}
    network = load_recipe(data, {"network.pad_to": 8}).network
    assert (network["pad_to"], network["padding"]) == (8, "mirror") and "mirror_pad" not in network
    heir = {"extends": "mambairv2_light_x2", "network": {"mirror_pad": 8}}
    assert load_recipe(heir).network["pad_to"] == 8  # the name of a file of its time


def test_plain_parts_of_levels_equal_their_definitions():
    x = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    skip = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    for name, expected in (
        ("concat", lambda w: torch.cat([x, skip], -1)),
        ("sum", lambda w: x + skip),
        ("concat_conv", lambda w: conv(w, torch.cat([x, skip], -1))),
    ):
        part = randomised(zoo.blocks.SKIPS.get(name).target(8))
        with torch.no_grad():
            found = part(x, skip)
            torch.testing.assert_close(found, expected(weights_of(part)))
        assert part.out == found.shape[-1]
    unshuffle = randomised(zoo.blocks.DOWNSAMPLERS.get("pixelunshuffle").target(8, out=12))
    with torch.no_grad():
        smooth = conv(weights_of(unshuffle).under("conv"), x).permute(0, 3, 1, 2)
        expected = torch.nn.functional.pixel_unshuffle(smooth, 2).permute(0, 2, 3, 1)
        torch.testing.assert_close(unshuffle(x), expected)
    strided = randomised(zoo.blocks.DOWNSAMPLERS.get("strided").target(8, out=5))
    with torch.no_grad():
        weight, cells = strided.conv.weight, x.unflatten(2, (3, 2)).unflatten(1, (2, 2))
        expected = torch.einsum("bhiwjc,ocij->bhwo", cells, weight) + strided.conv.bias
        torch.testing.assert_close(strided(x), expected)


def test_a_missing_attribute_of_a_part_from_outside_is_named():
    class NoOut(Skip):
        def __init__(self, dim):
            super().__init__()

    with pytest.raises(ValueError, match="NoOut has no attribute 'out'; a skip sets it"):
        UNet(dim=32, depths=[1, 1, 1], skip=NoOut)
    with pytest.raises(ValueError, match=r"the guide pan of the network is tuple; .* a Guide"):
        check_names({"pan": (1, 2)})
