"""The adapter for timm, with a stand-in that keeps what it is given; the real one: test_timm.py."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

import zoo
import zoo.integrations.timm as adapter
from tests.helpers.small_weights import small_network
from zoo.blocks import DropPath
from zoo.errors import ZooError
from zoo.integrations.timm import FOR_CLASSIFIERS, WHY_NOT, entrypoint, register
from zoo.shipped import WEIGHTS, list_models

NAME = "mambair_tiny_x2"
TINY = {"dim": 30, "depths": [2]}


@pytest.fixture
def made(monkeypatch):
    """The functions that timm was given, by name."""
    kept = {}
    models = SimpleNamespace(
        is_model_in_modules=lambda name, modules: modules == ["timm"] and name in kept,
        register_model=lambda create: kept.setdefault(create.__name__, []).append(create),
    )
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "timm.models", models)
    monkeypatch.setattr(adapter, "default_cfgs", {})
    return kept


def test_models_are_registered_once_and_those_with_weights_have_facts(made):
    names = register("mambair_*x2")
    assert names == list_models("mambair_*x2") and {NAME, "mambair_light_x2"} <= set(names)
    assert register(NAME) == [NAME]
    assert {name: len(kept) for name, kept in made.items()} == dict.fromkeys(names, 1)
    assert set(adapter.default_cfgs) == set(names) & set(zoo.shipped.shipped_weights())
    facts = adapter.default_cfgs[NAME]
    assert facts == {
        "file": str(WEIGHTS / f"{NAME}.safetensors"),
        "architecture": NAME,
        "num_classes": 0,
        "input_size": (3, 64, 64),
        "min_input_size": (3, 1, 1),
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
        "crop_pct": 1,
        "description": zoo.recipe.load_recipe(NAME).summary,
    }
    register()
    assert set(made) == set(list_models("*"))


def test_a_library_that_does_not_load_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models", None)
    with pytest.raises(ZooError, match=r"^timm cannot be imported .*\[timm\].*, with a torch"):
        register()


def test_options_have_the_names_of_timm_and_none_means_not_given():
    create = entrypoint("mambair_light_x2")
    assert create.__name__ == create.__qualname__ == "mambair_light_x2"
    network = create(in_chans=1, drop_path_rate=0.25, **TINY, scale=None, cache_dir="c")
    plain = create(**TINY)
    assert network.channels == 1 and network.scale == 2
    rates = [module.rate for module in network.modules() if isinstance(module, DropPath)]
    assert max(rates) == 0.25
    for made, channels in ((network, 1), (plain, 3)):
        facts = made.pretrained_cfg
        assert facts is made.default_cfg and facts["mean"] == (0,) * channels
        assert facts["input_size"] == (channels, 64, 64) and "file" not in facts
        assert facts["min_input_size"] == (channels, 1, 1) and facts["std"] == (1,) * channels


WRONG = {
    "num_classes": 1000, "drop_rate": 0.5, "features_only": True, "out_indices": (0,),
    "global_pool": "avg", "img_size": 64,
}  # fmt: skip


@pytest.mark.parametrize("option", FOR_CLASSIFIERS)
def test_options_of_classifiers_are_refused_unless_they_mean_none(option):
    assert WRONG.keys() == FOR_CLASSIFIERS.keys() == WHY_NOT.keys()
    create = entrypoint("mambair_light_x2")
    with pytest.raises(ZooError, match=f"^mambair_light_x2: {option} (is|would) .*; leave it out$"):
        create(**{option: WRONG[option]})


def test_what_means_no_classifier_is_taken():
    nones = {"num_classes": 0, "drop_rate": 0.0, "features_only": False, "global_pool": ""}
    told = {name: values for name, values in FOR_CLASSIFIERS.items() if values}
    assert told == {name: (value,) for name, value in nones.items()}
    assert entrypoint("mambair_light_x2")(**nones, **TINY).scale == 2


def test_place_and_dtype_move_the_network():
    create = entrypoint("mambair_light_x2")
    network = create(device="meta", dtype=torch.bfloat16, **TINY)
    assert {(w.dtype, w.is_meta) for w in network.parameters()} == {(torch.bfloat16, True)}
    assert not any(w.is_meta for w in create(**TINY).parameters())


def same(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], value) for key, value in expected.items()
    )


def test_weights_are_those_that_ship_or_those_of_the_file(tmp_path):
    shipped, create = zoo.load(NAME), entrypoint(NAME)
    assert same(create(pretrained=True), shipped) and not same(create(), shipped)
    assert create(pretrained=True, drop_path_rate=0.5).recipe.network["drop_path"] == 0.5
    network = small_network()
    zoo.save(network, tmp_path / "mine.safetensors")
    file = {"file": str(tmp_path / "mine.safetensors"), "crop_pct": 0.5, "std": None}
    of_small = entrypoint("mambair_light_x2")
    options = {key: network.recipe.network[key] for key in ("dim", "depths", "block")}
    other = {"file": "other", "url": ""}
    given = (
        {"pretrained_cfg": file},
        {"pretrained_cfg_overlay": file},
        {"pretrained_cfg": SimpleNamespace(to_dict=lambda: file)},
        {"pretrained_cfg": other, "pretrained_cfg_overlay": file},
    )
    for words in given:
        found = of_small(pretrained=True, **words, **options)
        assert same(found, network)
        assert found.pretrained_cfg["crop_pct"] == 0.5 and found.pretrained_cfg["std"] == (1,) * 3
    bare = {"file": str(tmp_path / "bare.pth")}  # it does not say of which network it is
    torch.save(network.state_dict(), bare["file"])
    assert same(of_small(pretrained=True, pretrained_cfg=bare, **options), network)
    with pytest.raises(ZooError, match=r"weights that ship are for in_chans=3, not 1; leave out"):
        create(pretrained=True, in_chans=1)
    assert create(pretrained=True, in_chans=3).channels == 3


@pytest.mark.parametrize("key", ["url", "hf_hub_id", "state_dict"])
def test_weights_from_elsewhere_and_tags_are_refused(key):
    create = entrypoint(NAME)
    for words in ("pretrained_cfg", "pretrained_cfg_overlay"):
        with pytest.raises(ZooError, match=f"{NAME}: {key} is not read here; give the path"):
            create(**{words: {key: "there"}})
    with pytest.raises(ZooError, match=f"{NAME} has one kind of weights; leave out the tag 'in1k'"):
        create(pretrained_cfg="in1k")
    create(pretrained_cfg="")
