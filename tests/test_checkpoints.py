"""Weights files: which recipe counts, what is taken from a file, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from export.model import network_of
from tests.helpers.command_line import run
from tests.helpers.saved_network import SMALL, metadata_only, saved_small
from zoo.blocks import RSSB
from zoo.checkpoints import model_in
from zoo.checkpoints.choose import choose_network
from zoo.checkpoints.files import read_state, write_safetensors
from zoo.checkpoints.named_recipe import differences
from zoo.checkpoints.scored import ScoredWeights, scored_weights
from zoo.errors import CheckpointError, RecipeError, ZooError
from zoo.registry import temporary_registrations


@pytest.fixture
def saved(tmp_path):
    return saved_small(tmp_path)


def test_a_file_says_what_it_is(saved):
    _, metadata = read_state(saved)
    assert metadata["format"] == "zoo" and metadata["step"] == "7"
    assert json.loads(metadata["recipe"])["network"] == SMALL["network"]
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_named_recipe_counts_and_a_word_says_where_it_differs(tmp_path, caplog):
    path, name = tmp_path / "w.safetensors", "mambairv2_tiny_x2"
    changes = {"block.mixer.routing": "sample", "block.mixer.prompt": "sorted"}
    zoo.save(zoo.build(name, **changes), path)
    sources = (
        lambda: choose_network(name, path),
        lambda: network_of(name, path).network,
        lambda: zoo.load(path, recipe=name),
    )
    for source in sources:
        caplog.clear()
        mixer = source().groups[0].blocks[0].far.mixer
        assert (mixer.router.routing, mixer.prompt) == ("argmax", "raster")
        assert f"w.safetensors has another recipe than {name}, which is used" in caplog.text
        assert "'network.block.mixer.routing' is the default, not 'sample'" in caplog.text
        assert "'network.block.mixer.prompt' is the default, not 'sorted'" in caplog.text


@pytest.mark.parametrize(
    ("held", "overrides"),
    [
        ({"name": "x", "extends": "mambairv2_tiny_x2"}, {}),
        ({"extends": "mambairv2_tiny_x2"}, {"block.mixer.routing": "sample"}),
        ({"extends": "mambairv2_tiny_x2", "train": {"steps": 7}}, {}),
        ({"extends": 7}, {}),
    ],
    ids=["same", "overridden", "training", "damaged"],
)
def test_no_word_about_a_recipe_in_a_file_that_does_not_differ(held, overrides, tmp_path, caplog):
    path, name = tmp_path / "w.safetensors", "mambairv2_tiny_x2"
    facts = {"format": "zoo", "recipe": json.dumps(held)}
    write_safetensors(path, zoo.build(name).state_dict(), facts)
    zoo.load(path, recipe=name, **overrides)
    assert not caplog.records


def test_parts_are_compared_by_name_or_by_mapping():
    named = {"head": "residual", "scans": ["raster", {"type": "window", "size": 8}], "dim": 4}
    same = {"head": {"type": "residual"}, "scans": [{"type": "raster"}, named["scans"][1]]}
    assert differences(named, {**same, "dim": 4}, ()) is None
    other = {"head": {"type": "plain"}, "scans": ["raster", "hilbert"], "dim": 5, "scale": 2}
    found = differences(named, other, ("dim",))
    assert found == (
        "'network.head.type' is 'residual', not 'plain'; "
        "'network.scans[1].type' is 'window', not 'hilbert'; "
        "'network.scans[1].size' is 8, not the default and so on"
    )


@pytest.mark.parametrize("wrapper", ["params_ema", "params", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path, saved, wrapper, prefix):
    state = {prefix + key: value for key, value in load_file(saved).items()}
    content = state if wrapper is None else {"params": {}, wrapper: state, "iter": 5}
    if wrapper == "params_ema":
        content["params"] = {key: value + 1 for key, value in state.items()}
    if wrapper == "state_dict":
        del content["params"]
    torch.save(content, tmp_path / "w.pth")
    network = zoo.load(tmp_path / "w.pth", recipe=SMALL)
    expected = zoo.load(saved).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_a_part_that_is_not_imported_is_an_error_with_the_file_and_the_option(tmp_path):
    path = tmp_path / "w.safetensors"
    with temporary_registrations():
        zoo.register("block", "twice")(type("Twice", (RSSB,), {}))
        zoo.save(zoo.build(SMALL, block="twice"), path)
    with pytest.raises(CheckpointError) as error:
        zoo.load(path)
    message = str(error.value)
    assert message.startswith(f"{path}: its recipe has network.block: unknown block 'twice'; known")
    assert message.endswith("; if the part is yours, add --import MODULE")
    assert zoo.load(path, block="rssb")  # an override may repair it


def test_a_wrong_override_is_not_blamed_on_the_file(saved):
    with pytest.raises(RecipeError, match="unknown block 'mine'") as error:
        zoo.load(saved, block="mine")
    assert "its recipe" not in str(error.value)


def test_overrides_apply_when_loading(saved):
    with pytest.raises(CheckpointError, match="wrong size"):
        zoo.load(saved, dim=64)
    assert zoo.load(saved, drop_path=0.5).groups[0].blocks[0].drop_path.rate == 0


def test_names_without_weights_and_unknown_names():
    with pytest.raises(CheckpointError, match=r"no weights ship for 'mambair_light_x4'"):
        zoo.load("mambair_light_x4")
    with pytest.raises(CheckpointError, match="did you mean 'mambair_light_x4'"):
        zoo.load("mambair_lite_x4")
    with pytest.raises(CheckpointError, match="does not exist"):
        zoo.load("missing.pth")


def test_shipped_weights_load_by_name():
    from zoo.checkpoints import WEIGHTS, shipped_weights

    assert "mambair_tiny_x2" in shipped_weights()
    for name in shipped_weights():
        assert zoo.load(name).recipe.name == name
        assert (WEIGHTS / f"{name}.md").is_file()
        assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 2e6


def test_a_recipe_in_a_file_may_extend_a_published_one(tmp_path):
    network = zoo.build("mambair_tiny_x2")
    recipe = '{"extends": "mambair_tiny_x2", "name": "mine"}'
    path = metadata_only(tmp_path / "w.safetensors", recipe, **network.state_dict())
    assert zoo.load(path).recipe.name == "mine" == model_in(path)


def test_only_weights_of_a_training_are_told_to_be_of_another_one(saved):
    other = zoo.build(SMALL, dim=40).recipe
    for weights, told in (
        (ScoredWeights(saved, "those"), False),
        (ScoredWeights(saved, "those", trained=True), True),
    ):
        with pytest.raises(CheckpointError) as caught:
            weights.network(other)
        assert ("it was trained with other settings" in str(caught.value)) is told


def test_a_file_that_is_missing_is_not_told_to_be_in_the_package(tmp_path):
    recipe = zoo.build("mambair_tiny_x2").recipe
    for given, told in (
        (tmp_path / "missing.pth", f"{tmp_path}/missing.pth"),
        (Path("mambair_tiny_x2"), "those of mambair_tiny_x2 in the package"),
    ):
        assert scored_weights(recipe, given).told == told


def test_compat_without_effect_names_the_file_or_the_model(saved):
    for model, weights, name in ((None, saved, saved), ("mambair_tiny_x2", None, "mambair_tiny")):
        with pytest.raises(ZooError, match=f"^--compat has no effect on {name}"):
            choose_network(model, weights, overrides={"compat": "official"})


def test_weights_that_are_not_finite_are_told(saved, tmp_path, caplog):
    state = load_file(saved)
    state["norm.weight"][:2] = torch.tensor([float("nan"), float("inf")])
    zoo.load(saved)
    assert not caplog.messages
    save_file(state, tmp_path / "nan.safetensors")
    zoo.load(tmp_path / "nan.safetensors", recipe=SMALL)
    assert "2 of the 32 values of norm.weight are NaN or infinite" in caplog.text


def test_a_converted_file_never_replaces_its_source(saved, tmp_path):
    (tmp_path / "link.safetensors").symlink_to(saved)
    content = saved.read_bytes()
    for target in (saved, tmp_path / "link.safetensors", str(saved)):
        with pytest.raises(CheckpointError, match="the output would replace the input"):
            zoo.convert(saved, target)
    assert saved.read_bytes() == content


def test_a_file_of_weights_is_described_and_is_no_model(saved, capsys):
    assert run("show", saved) == 0
    assert "parameters" in capsys.readouterr().out
    assert run("restore", "photo.png", "-o", "x.png", "-n", saved) == 2
    assert "it is a file of weights; name it with -w" in capsys.readouterr().err
