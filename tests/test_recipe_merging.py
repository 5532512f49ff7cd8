"""How recipes are merged: overrides, and files that extend others."""

from __future__ import annotations

import copy
import textwrap

import pytest
import torch

import zoo
from zoo.errors import RecipeError
from zoo.recipe import load_recipe, parse_overrides, parse_value
from zoo.training.settings import train_settings

SMALL = {"network": {"type": "single_image", "dim": 32, "depths": [1], "scale": 2}}


def test_overrides_reach_defaults_lists_and_parts():
    network = zoo.build(
        SMALL,
        scale=4,
        head="pixelshuffle_direct",
        scans=["raster", {"type": "window", "size": 4}],
        **{"scans[1].size": 6, "block.mixer.d_state": 5, "block.branch.squeeze": 16},
    )
    block = network.groups[0].blocks[0]
    assert block.mixer.A_log.shape[-1] == 5
    assert network.recipe.network["scans"][1]["size"] == 6
    assert network(torch.rand(1, 3, 4, 5)).shape == (1, 3, 16, 20)


def test_a_file_extends_another(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        textwrap.dedent("""
        extends: mambair_tiny_x2
        summary: mine
        network:
          head: {type: pixelshuffle, hidden: 16}
          scans: [{type: window, size: 8}, hilbert]
        train: {optimizer: {lr: 5e-4}}
        """)
    )
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    assert recipe.network["dim"] == load_recipe("mambair_tiny_x2").network["dim"]
    assert recipe.network["head"] == {"type": "pixelshuffle", "hidden": 16}
    assert recipe.train["optimizer"]["lr"] == 5e-4
    assert zoo.build(str(path))(torch.rand(1, 3, 3, 2)).shape == (1, 3, 6, 4)


def test_the_weights_that_a_training_starts_from_are_not_inherited(tmp_path):
    """They fit the network of the recipe that names them; of another, a few tensors might."""
    assert "mambair_classic_x2" in load_recipe("mambair_classic_x4").train["initial"]
    (tmp_path / "a.yaml").write_text("extends: mambair_classic_x4\nnetwork: {dim: 60}\n")
    first = load_recipe(tmp_path / "a.yaml")
    assert "initial" not in first.train and first.train["iterations"] == 250000
    own = "extends: mambair_classic_x4\ntrain: {initial: mine.safetensors}\n"
    (tmp_path / "b.yaml").write_text(own)
    assert load_recipe(tmp_path / "b.yaml").train["initial"] == "mine.safetensors"


def test_published_scores_are_not_inherited(tmp_path):
    """They are those of the parent's network."""
    parent = load_recipe("mambair_classic_x4").evaluate
    assert parent["paper"] and parent["paper_ensemble"] and parent["source"]
    (tmp_path / "a.yaml").write_text("extends: mambair_classic_x4\nnetwork: {dim: 60}\n")
    child = load_recipe(tmp_path / "a.yaml").evaluate
    assert child == {"datasets": parent["datasets"], "tiling": parent["tiling"]}
    assert load_recipe("mambair_dn15").evaluate["released"]
    (tmp_path / "c.yaml").write_text("extends: mambair_dn15\nnetwork: {dim: 60}\n")
    assert "released" not in load_recipe(tmp_path / "c.yaml").evaluate
    (tmp_path / "b.yaml").write_text(
        "extends: mambair_classic_x4\nevaluate: {paper: {Set5: [30.0, 0.9]}}\n"
    )
    assert load_recipe(tmp_path / "b.yaml").evaluate["paper"] == {"Set5": [30.0, 0.9]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e3", 1000), ("1E3", 1000), ("2.5e2", 250), ("-1e2", -100), ("9007199254740992e0", 2**53),
        ("1e-3", 0.001), ("2.5e0", 2.5), ("1000.0", 1000.0), ("1e300", 1e300),
    ],
)  # fmt: skip
def test_whole_numbers_may_be_written_with_an_exponent(text, expected):
    found = parse_value(text)
    assert found == expected and type(found) is type(expected)


def test_a_whole_number_with_an_exponent_fits_options_of_both_kinds():
    words = {"train.iterations": parse_value("1e3"), "train.clip": parse_value("1e0")}
    settings = train_settings(load_recipe("mambair_light_x2", words))
    assert (settings.iterations, settings.clip) == (1000, 1.0)
    assert type(settings.iterations) is int and type(settings.clip) is float


def test_values_are_read_as_yaml_with_plain_exponents():
    assert parse_value("1e-4") == 1e-4 and parse_value("2E5") == 2e5
    assert parse_value("[6, 6]") == [6, 6] and parse_value("true") is True


def test_building_leaves_the_data_that_it_is_given_alone():
    data = {"network": {"type": "single_image", "dim": 32, "depths": [1], "scans": ["raster"]}}
    before = copy.deepcopy(data)
    zoo.build(data, scale=4, **{"scans[0].directions": ["row"], "block.mixer.d_state": 3})
    assert data == before


@pytest.mark.parametrize(
    ("path", "value"),
    [("block", {"mixer": {"d_state": 7}}), ("block.mixer", {"d_state": 7})],
)
def test_overriding_by_a_mapping_keeps_its_neighbours(path, value):
    data = {"network": {**SMALL["network"], "block": {"type": "rssb", "mixer": {"expand": 1.5}}}}
    network = zoo.build(data, **{path: value})
    mixer = network.groups[0].blocks[0].mixer
    assert mixer.A_log.shape[-1] == 7 and network.recipe.network["block"]["mixer"]["expand"] == 1.5


def test_a_recipe_that_extends_one_of_its_type_keeps_the_rest_and_another_type_does_not(tmp_path):
    parts = "extends: mambair_tiny_x2\nname: other\nnetwork:\n  type: {}\n  dim: 36\n"
    (tmp_path / "same.yml").write_text(parts.format("single_image"))
    recipe, base = load_recipe(tmp_path / "same.yml"), load_recipe("mambair_tiny_x2")
    assert recipe.name == "other" and recipe.network == {**base.network, "dim": 36}
    (tmp_path / "other.yaml").write_text(parts.format("unet"))
    assert load_recipe(tmp_path / "other.yaml").network == {"type": "unet", "dim": 36}
    assert "evaluate" not in load_recipe({"network": SMALL["network"]}).data()


def test_an_override_is_plain_data_and_a_copy():
    with pytest.raises(
        RecipeError, match=r"override network\.dim: expected a number, text, a list"
    ):
        load_recipe(SMALL, {"network.dim": object()})
    depths = [1, 1]
    recipe = load_recipe(SMALL, {"network.depths": depths})
    depths.append(2)
    assert recipe.network["depths"] == [1, 1]


def test_iterations_replace_the_epochs_of_a_parent_and_the_reverse(tmp_path):
    parent = tmp_path / "parent.yaml"
    parent.write_text("extends: mambair_tiny_x2\ntrain: {epochs: 3}\n")
    assert (
        "iterations" not in load_recipe(parent).train and load_recipe(parent).train["epochs"] == 3
    )
    child = tmp_path / "child.yaml"
    child.write_text(f"extends: {parent}\ntrain: {{iterations: 9}}\n")
    found = load_recipe(child).train
    assert "epochs" not in found and found["iterations"] == 9
    child.write_text(f"extends: {parent}\ntrain: {{iterations: 9, epochs: 2}}\n")
    assert {"iterations": 9, "epochs": 2}.items() <= load_recipe(child).train.items()


def test_a_recipe_leads_through_16_files_at_most(tmp_path):
    path = tmp_path / "0.yaml"
    path.write_text("name: first\nnetwork: {type: unet}\n")
    for number in range(1, 17):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {tmp_path}/{number - 1}.yaml\n")
    assert load_recipe(tmp_path / "15.yaml").network == {"type": "unet"}
    with pytest.raises(RecipeError, match="'extends' leads through more than 16 files"):
        load_recipe(tmp_path / "16.yaml")


def test_recipes_that_extend_each_other_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, other in (("a", "b"), ("b", "c"), ("c", "b")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {other}.yaml")
    with pytest.raises(RecipeError, match=r"circular: a\.yaml -> b\.yaml -> c\.yaml -> b\.yaml"):
        load_recipe("a.yaml")


def test_settings_of_the_command_line_are_split_at_the_first_equals_sign():
    assert parse_overrides(["a=b=c", "d.e=[1, 2E1]"], "x=1") == {"a": "b=c", "d.e": [1, 20.0]}
    for word in ("a", "=1", ""):
        with pytest.raises(RecipeError, match=r"is not a setting; write key=value, such as x=1"):
            parse_overrides([word], "x=1")


def test_a_file_that_is_extended_is_looked_for_beside_the_file_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "base.yaml").write_text("extends: mambair_tiny_x2\nnetwork: {dim: 36}\n")
    (tmp_path / "base.yaml").write_text("extends: mambair_tiny_x2\nnetwork: {dim: 24}\n")
    (tmp_path / "other.yaml").write_text("extends: mambair_tiny_x2\nnetwork: {dim: 12}\n")
    for base, dim in [("base.yaml", 36), ("../base.yaml", 24), ("other.yaml", 12)]:
        (tmp_path / "own" / "child.yaml").write_text(f"extends: {base}\n")
        monkeypatch.chdir(tmp_path)
        assert load_recipe("own/child.yaml").network["dim"] == dim
