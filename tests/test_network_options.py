"""Options of networks: wrong or useless ones are named, and those of earlier files still load."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import zoo
from tests.helpers.outside_parts import register_parts, single
from zoo.blocks import Block, Mixer
from zoo.errors import RecipeError
from zoo.recipe import load_recipe


@pytest.fixture(autouse=True)
def parts():
    """Parts from outside; the suite forgets them after each test."""
    register_parts()


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
