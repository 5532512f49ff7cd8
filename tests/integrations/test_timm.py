"""Our models in timm: its own names of options, its lists, and what cannot be had."""

from __future__ import annotations

import warnings

import pytest
import torch

import zoo
from zoo.blocks import DropPath
from zoo.errors import RecipeError, ZooError
from zoo.integrations.timm import register
from zoo.shipped import shipped_weights


@pytest.fixture
def models(timm):
    register("*tiny*")
    register("mambair_light_x2")
    return timm


def test_timm_creates_what_the_package_builds(models):
    network = models.create_model("mambair_tiny_x2", scale=3).eval()
    assert network.scale == 3 and network(torch.rand(1, 3, 5, 7)).shape == (1, 3, 15, 21)
    loaded = models.create_model("mambair_tiny_x2", pretrained=True).eval()
    image = torch.rand(1, 3, 5, 7)
    assert torch.equal(loaded(image), zoo.load("mambair_tiny_x2")(image))


def test_options_have_the_names_of_timm(models):
    network = models.create_model(
        "mambair_light_x2", in_chans=1, drop_path_rate=0.25, num_classes=0, drop_rate=0.0
    )
    assert network.channels == network.out_channels == 1
    rates = [module.rate for module in network.modules() if isinstance(module, DropPath)]
    assert max(rates) == 0.25
    assert models.create_model("mambair_light_x2").channels == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 10}, "num_classes is for classifiers, and this network returns images"),
        ({"features_only": True}, "features_only would return features of several sizes"),
        ({"out_indices": (0, 1)}, "out_indices is for features of several sizes"),
        ({"global_pool": "avg"}, "global_pool is for classifiers, and this network returns images"),
        (
            {"img_size": 64},
            "img_size is for networks of one size, and this one takes .* any; leave",
        ),
        ({"pretrained": True, "in_chans": 1}, "the weights that ship are for in_chans=3, not 1; "),
        ({"drop_rate": 0.5}, "drop_rate is for classifiers; .* drop_path_rate; leave it out"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(models, options, message):
    with pytest.raises(ZooError, match=f"mambair_tiny_x2: {message}"):
        models.create_model("mambair_tiny_x2", **options)


def test_options_of_place_and_cache_are_taken(models, tmp_path):
    network = models.create_model(
        "mambair_tiny_x2", pretrained=True, dtype=torch.bfloat16, cache_dir=tmp_path, global_pool=""
    )
    assert {weight.dtype for weight in network.parameters()} == {torch.bfloat16}
    with pytest.raises(ZooError, match=r"dtype is torch\.int8; this network works in"):
        models.create_model("mambair_tiny_x2", dtype=torch.int8)
    network = models.create_model("mambair_light_x2", device="meta")
    assert all(weight.is_meta for weight in network.parameters())


def test_unknown_options_are_named(models):
    with pytest.raises(RecipeError, match=r"network.in_chan: unknown option of network"):
        models.create_model("mambair_tiny_x2", in_chan=1)


def test_lists_hold_the_models_and_those_with_weights(models):
    assert {"mambair_tiny_x2", "mambairv2_tiny_x2"} <= set(models.list_models("mamba*tiny*"))
    assert set(shipped_weights()) <= set(models.list_pretrained("*mamba*tiny*"))
    ours = [name for name in shipped_weights() if name.startswith("mambair_tiny_p")]
    assert models.list_pretrained("mambair_tiny_p*") == ours != []
    assert models.is_model("mambair_light_x2") and not models.is_model("mambair_light_x3")
    facts = models.get_pretrained_cfg("mambair_tiny_x2")
    assert facts.input_size == (3, 64, 64) and facts.num_classes == 0 and facts.has_weights


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("mambair_tiny_x2", {"pretrained": True}, 3),
        ("mambair_light_x2", {}, 3),  # no weights ship
        ("mambair_light_x2", {"in_chans": 1}, 1),
    ],
)
def test_transforms_leave_an_image_as_it_is(models, name, options, channels):
    from PIL import Image

    network = models.create_model(name, **options)
    config = models.data.resolve_model_data_config(network)
    assert config["mean"] == (0,) * channels and config["std"] == (1,) * channels
    assert config["crop_pct"] == 1 and config["input_size"] == (channels, 64, 64)
    transform = models.data.create_transform(**config, is_training=False)
    levels = torch.randint(256, (64, 64, channels), dtype=torch.uint8)
    image = Image.fromarray(levels.squeeze(-1).numpy())
    assert torch.equal(transform(image), levels.movedim(-1, 0) / 255)


def test_weights_and_facts_of_the_user_are_taken(models, tmp_path):
    mine = zoo.build("mambair_tiny_x2")
    zoo.save(mine, tmp_path / "mine.safetensors")
    facts = {"file": str(tmp_path / "mine.safetensors"), "input_size": (3, 48, 48)}
    for given in ({"pretrained_cfg_overlay": facts}, {"pretrained_cfg": facts}):
        network = models.create_model("mambair_tiny_x2", pretrained=True, **given)
        image = torch.rand(1, 3, 5, 7)
        assert torch.equal(network.eval()(image), mine.eval()(image))
        assert models.data.resolve_model_data_config(network)["input_size"] == (3, 48, 48)
    with pytest.raises(ZooError, match="mambair_tiny_x2: url is not read here; give the path"):
        models.create_model("mambair_tiny_x2", pretrained_cfg_overlay={"url": "http://a/b"})
    with pytest.raises(ZooError, match=r"mambair_tiny_x2 has one kind of weights; .*tag 'in1k'"):
        models.create_model("mambair_tiny_x2.in1k", pretrained=True)


def test_registering_twice_is_quiet(models):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "mambair_tiny_x2" in register("mambair_tiny*")
