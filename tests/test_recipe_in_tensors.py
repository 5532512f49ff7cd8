"""What tensors alone tell of a network, and the recipe as one of them where that is too little."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from tests.helpers.official_weights import CASES, state_dict
from tests.helpers.small_weights import small_network
from zoo.checkpoints import OFFICIAL, WEIGHTS
from zoo.checkpoints.as_published import network_of_our_names, published_facts
from zoo.checkpoints.embedded import KEY, embedded
from zoo.checkpoints.keymap import KeyMap, SameNameError
from zoo.checkpoints.releases import key_map_of
from zoo.checkpoints.unheld import computes_the_same
from zoo.errors import CheckpointError
from zoo.recipe import load_recipe

IMAGE = torch.rand(1, 3, 7, 10, generator=torch.Generator().manual_seed(0))

UNUSUAL = {
    "scans": {"scans": ["hilbert"]},
    "window": {"scans": [{"type": "window", "size": 8}]},
    "img_range": {"img_range": 255.0},
    "pad_to": {"pad_to": 16},
    "padding": {"pad_to": 4, "padding": "reflect"},
    "branch": {"block.branch": "mlp"},
}


def outputs(network):
    with torch.inference_mode():
        return network(IMAGE)


def written(network, tmp_path):
    zoo.save(network, tmp_path / "w.safetensors")
    return load_file(tmp_path / "w.safetensors")


@pytest.mark.parametrize("options", UNUSUAL.values(), ids=UNUSUAL)
def test_a_file_whose_tensors_would_be_misread_holds_its_recipe(tmp_path, options):
    network = small_network(**options)
    state = written(network, tmp_path)
    assert state[KEY].dtype == torch.uint8
    assert json.loads(bytes(state[KEY].tolist())) == network.recipe.data()
    assert torch.equal(outputs(zoo.load(state)), outputs(network))
    assert zoo.detect(state) == network.recipe
    assert torch.equal(outputs(zoo.load(tmp_path / "w.safetensors")), outputs(network))


def test_a_file_whose_tensors_tell_all_holds_nothing_else(tmp_path):
    network = small_network()
    state = written(network, tmp_path)
    assert state.keys() == network.state_dict().keys()
    found = zoo.detect(state, as_published=True)
    assert torch.equal(outputs(zoo.load(state, recipe=found)), outputs(network))
    message = r"the names are ours, but do not say .*; or as_published=True, to take what is publ"
    with pytest.raises(CheckpointError, match=message):
        zoo.detect(state)  # nothing is assumed unless it is asked for


TELLING = ["mambair_dn15", "mambair_car10", "mambair_light_x2_gen_a", "mambairv2_light_x2",
           "mambairv2_dn15", "dvmsr_x4", "mair_light_t_x2", "mair_light_s_x2", "mair_dn15",
           "mambacsr_final", "eamamba_dn15", "wavemamba_lol", "mambair_realdn"]  # fmt: skip


@pytest.mark.parametrize("name", TELLING)
def test_our_names_show_each_published_network(name):
    with torch.device("meta"):
        network = zoo.build(name)
    found = network_of_our_names(network.state_dict())
    assert computes_the_same(network, found)
    assert computes_the_same(found, network)


TWO = ["row", "row_reversed"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mair_light_t_x2", {"scans": [{"type": "stripes", "width": 4}]}),
        ("mambairv2_tiny_x2", {"block.mixer.routing": "sample"}),
        ("mambair_tiny_x2", {"img_range": 2.0}),
        ("mambacsr_final", {"scans": [{"type": "window", "size": 16, "directions": TWO}]}),
        ("mambair_tiny_x2", {"scans": [{"type": "raster", "directions": ["row"]}]}),
    ],
    ids=["stripes", "routing", "range", "windows", "directions"],
)
def test_what_tensors_do_not_show_is_another_network(name, change):
    with torch.device("meta"):
        plain, changed = zoo.build(name), zoo.build(name, **change)
    found = network_of_our_names(changed.state_dict())
    assert not computes_the_same(plain, changed)
    if name != "mambair_tiny_x2" or "img_range" in change:
        assert not computes_the_same(changed, found)
    else:  # one direction shows in the tensors
        assert computes_the_same(changed, found)


@pytest.mark.parametrize("case", ["mair_light_x2_17x23", "mair_dn_16x20", "csr_wo_x2_16x16"])
def test_facts_of_the_authors_files_are_as_published_if_asked(case):
    facts = {key: value for key, value in CASES[case]["options"].items() if key != "compat"}
    state = state_dict(case)
    assert zoo.detect(state, as_published=True) == zoo.detect(state, **facts)
    with pytest.raises(CheckpointError, match="tensors do not show"):
        zoo.detect(state)
    (name,) = facts
    other = zoo.detect(state, as_published=True, **{name: 2})
    assert other == zoo.detect(state, **{name: 2})


@pytest.mark.parametrize(
    ("name", "width"),
    [("mair_light_t_x3", 8), ("mair_light_s_x3", 4), ("mair_classic_x4", 8), ("mair_dn25", 4)],
)
def test_stripes_are_as_wide_as_in_the_published_recipe(name, width):
    with torch.device("meta"):
        network = zoo.build(name)
    (release,) = (one for one in OFFICIAL if one.name == "MaIR")
    theirs = key_map_of(release, network).state_to_theirs(network.state_dict())
    assert published_facts(release, theirs) == {"scan_len": width}
    assert load_recipe(name).network["scans"][0]["width"] == width


def test_an_assumption_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    zoo.detect(small_network().state_dict(), as_published=True)
    assert "has our names; what they do not show is taken to be as published" in caplog.text


def test_the_tensor_survives_casts_other_names_above_and_other_files(tmp_path):
    network = small_network(scans=["hilbert"])
    state = written(network, tmp_path)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.int32):
        cast = {**state, KEY: state[KEY].to(dtype)}
        assert torch.equal(outputs(zoo.load(cast)), outputs(network)), dtype
    torch.save(state, tmp_path / "w.pth")
    assert torch.equal(outputs(zoo.load(tmp_path / "w.pth")), outputs(network))
    below = {f"module.{name}": tensor for name, tensor in state.items()}
    assert torch.equal(outputs(zoo.load(below, recipe=network.recipe)), outputs(network))
    save_file(state, tmp_path / "plain.safetensors")
    assert torch.equal(outputs(zoo.load(tmp_path / "plain.safetensors")), outputs(network))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, 3, dtype=torch.uint8), "the recipe in its tensor 'zoo.recipe' is damaged"),
        (torch.full((8,), 255, dtype=torch.uint8), "the recipe in its tensor .* is damaged"),
        (torch.full((8,), 300.0), "the recipe in its tensor .* is damaged"),
        (torch.zeros(1_000_001, dtype=torch.uint8), "the recipe in its tensor .* is damaged"),
        (torch.zeros(0, dtype=torch.uint8), "the recipe in the file is damaged"),
        (embedded("{}")[KEY], "its recipe has"),
        (embedded('{"extends": "/etc/passwd"}')[KEY], "can only extend a published one"),
    ],
    ids=["shape", "text", "values", "size", "empty", "no recipe", "path"],
)
def test_a_damaged_or_hostile_recipe_is_one_clear_error(tensor, message):
    state = {**small_network().state_dict(), KEY: tensor}
    with pytest.raises(CheckpointError, match=message):
        zoo.load(state)


def test_a_recipe_in_the_metadata_comes_first(tmp_path):
    network = small_network(scans=["hilbert"])
    zoo.save(network, tmp_path / "w.safetensors")
    state = {**network.state_dict(), **embedded('{"network": 7}')}
    facts = {"format": "zoo", "recipe": json.dumps(network.recipe.data())}
    save_file(state, tmp_path / "both.safetensors", facts)
    assert torch.equal(outputs(zoo.load(tmp_path / "both.safetensors")), outputs(network))


@pytest.mark.parametrize("name", ["mambair_tiny_x2", "mambacsr_tiny_x2"])
def test_tensors_of_the_shipped_weights_tell_their_network(name):
    state = load_file(WEIGHTS / f"{name}.safetensors")
    found = zoo.detect(state, as_published=True)
    assert computes_the_same(zoo.build(name), zoo.build(found))


def test_tools_see_the_capabilities_of_a_network():
    dtypes = ("float32", "bfloat16", "float16", "float64")
    assert zoo.build("mambair_tiny_x2").capabilities.dtypes == dtypes
    assert zoo.build("qmambabsr_tiny").capabilities.takes_burst
    network = small_network(pad_to=8)
    assert network.capabilities.size_multiple == 8
    with pytest.raises(AttributeError):
        _ = network.capability


def test_a_release_whose_names_would_meet_is_passed_over(monkeypatch):
    network, rename, asked = small_network(), KeyMap.state_to_theirs, []

    def meeting(self, state):
        asked.append(self)
        if len(asked) == 1:
            raise SameNameError("two have one name")
        return rename(self, state)

    monkeypatch.setattr(KeyMap, "state_to_theirs", meeting)
    found = network_of_our_names(network.state_dict())
    assert found is not None and found.recipe.network["depths"] == [1] and len(asked) > 1
