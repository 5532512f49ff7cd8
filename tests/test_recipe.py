"""Recipes: every published one is valid, and mistakes in one are named."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

import zoo
import zoo.recipe as recipe_module
from zoo.errors import RecipeError
from zoo.evaluation.settings import evaluate_settings
from zoo.plain_data import LONGEST_TEXT
from zoo.recipe import load_recipe
from zoo.recipe_files import read_recipe
from zoo.shipped import RECIPES
from zoo.training.settings import train_settings

OF_FILES = {
    "mambair_realdn",
    "vmambair_derain",
    "wavemamba_uhdll",
    "wavemamba_lol",
    *(name for name in zoo.list_models("eamamba_*") if "_dn" not in name and "_light_" not in name),
}
"""Models that are trained on pairs of files, so nothing degrades the photos."""

SMALL = {"network": {"type": "single_image", "dim": 32, "depths": [1], "scale": 2}}


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_published_recipe_is_valid(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.summary
    # Our own tiny models have no paper, though each extends a model that has one.
    assert (recipe.paper is None) == ("_tiny" in name)
    assert recipe.paper is None or (recipe.paper.title and recipe.paper.arxiv)
    if recipe.train:
        settings = train_settings(recipe)
        scale = recipe.network.get("scale", 1)
        if recipe.takes_burst:
            made = settings.data.synthesis  # None: real bursts, which are files
            assert made is None or made(frames=2, factor=4, mode="rgb").scale == 4
        elif name in OF_FILES:
            assert settings.data.degradation is None
        else:
            made = settings.data.degradation
            assert made is not None and made(scale=scale).scale == scale
    assert isinstance(evaluate_settings(recipe).datasets, tuple)
    again = load_recipe(recipe.data())
    assert again == recipe


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dim": "x"}, r"network\.dim: expected a whole number, got 'x' \(str\)"),
        ({"dim": True}, r"network\.dim: expected a whole number"),
        ({"blok": 1}, r"network\.blok: unknown option .*did you mean 'block'"),
        ({"block.mixer.d_stat": 8}, r"network\.block\.mixer\.d_stat: .*did you mean 'd_state'"),
        ({"block": "rsb"}, r"network\.block: unknown block 'rsb'; did you mean 'rssb'"),
        ({"block": 5}, r"network\.block: expected a block"),
        ({"block.scan": "raster"}, r"network\.block\.scan: the network sets"),
        (
            {"scans": [{"type": "window", "widnow": 8}]},
            r"network\.scans\[0\]\.widnow: unknown option",
        ),
        ({"scans": ["window"]}, r"network\.scans\[0\]: scan 'window' needs the option 'size'"),
        ({"scans": [{"type": "window", "size": 0}]}, r"network\.scans\[0\]: size is 0"),
        ({"scans": "raster"}, r"network\.scans: expected a list"),
        ({"scans": [{"size": 8}]}, r"network\.scans\[0\]: 'type' must name a scan"),
        ({"depths": [2.5]}, r"network\.depths\[0\]: expected a whole number"),
        ({"depths": []}, r"depths is \[\]"),
        ({"scale": 5}, r"scale 5 is neither 3 nor a power of two"),
        (
            {"head": "residual"},
            r"network\.head: scale is 2, but the residual head keeps .* as pixelshuffle_direct",
        ),
        ({"conv": "2conv"}, r"network\.conv: expected one of 1conv, 3conv, got '2conv'"),
        ({"block.branch.compress": 90}, r"network\.block\.branch: .*use dim >= 90"),
        ({"depths": [2], "drop_path": 1.5}, r"drop_path is 1.5"),
        ({"block.mixer.d_conv": 2}, r"network\.block\.mixer: d_conv is 2; it must be odd"),
        (
            {"scans": ["raster"], "scans[3].size": 8},
            r"override network\.scans\[3\]\.size: '3' is not an index",
        ),
        ({"scans": ["raster"], "scans[1].size": 8}, r"'1' is not an index of a list of 1"),
        ({"dim.x": 8}, r"override network\.dim\.x: network\.dim is 32, which has no options"),
        ({"type": "single"}, r"network: unknown network 'single'; did you mean 'single_image'"),
    ],
)
def test_mistakes_are_named_with_place_and_fix(overrides, message):
    with pytest.raises(RecipeError, match=message):
        zoo.build(SMALL, **overrides)


def test_unknown_sections_and_models():
    with pytest.raises(
        RecipeError, match="netwrk: unknown option of a recipe; did you mean 'network'"
    ):
        zoo.build({"netwrk": {}})
    for nothing in ({}, {"name": "mine"}, {"network": {}}):
        with pytest.raises(RecipeError, match="network: 'type' must name a network; known: burst"):
            zoo.build(nothing)
    with pytest.raises(RecipeError, match="did you mean 'mambair_light_x4'"):
        zoo.build("mambair_lite_x4")
    with pytest.raises(RecipeError, match="unknown model"):
        zoo.build("../recipes/mambair_light_x4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: {dim: 1, dim: 2}", "'dim' is given twice"),
        ("network: [", "not valid YAML"),
        ("just text", "a recipe is a mapping"),
        ("extends: mine.yaml", "circular"),
        ("extends: 5", "'extends' must name a recipe"),
        ("network: {type: unet, dim: 31}", "dim is 31, and the level below has 62"),
    ],
)
def test_broken_files_are_named(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=f"mine.*{message}"):
        zoo.build("mine.yaml")
    with pytest.raises(RecipeError, match="cannot read"):
        zoo.build("missing.yaml")


def test_names_of_guides_are_checked_when_a_network_is_built(monkeypatch):
    def guided(factory):
        return SimpleNamespace(guides={"no name": None})

    monkeypatch.setattr(recipe_module, "build_within_limit", guided)
    with pytest.raises(RecipeError, match=r"^custom: .*no name"):
        zoo.build(SMALL)


def test_long_names_of_options_are_cut():
    for length, told in ((60, "x" * 60), (61, "x" * 57 + "...")):
        with pytest.raises(RecipeError, match=rf"network\.{re.escape(told)}: unknown option"):
            load_recipe(SMALL, {f"network.{'x' * length}": 1})


def test_a_name_is_one_that_files_can_have():
    for name in ("n" * 200, "\u00e4" * 100, ".a", "a b"):
        assert load_recipe({"name": name, **SMALL}).name == name
    for name in ("n" * 201, "\u00e4" * 100 + "n", "", " .", "..", "a/b", "a\\b", "a:b", "a\nb"):
        with pytest.raises(RecipeError, match=r"name is .*; files are named after it, so give 1"):
            load_recipe({"name": name, **SMALL})


def test_the_place_of_a_part_inside_a_part_is_told_once():
    with pytest.raises(RecipeError) as found:
        zoo.build(SMALL, **{"block.mixer.d_conv": 2})
    assert str(found.value).count("network.block") == 1
    with pytest.raises(RecipeError, match=r"^custom: network: dim is 0; it must be at least 1"):
        zoo.build(SMALL, dim=0)


def test_a_published_recipe_keeps_its_paper_however_its_path_is_written(monkeypatch):
    monkeypatch.chdir(RECIPES.parent)
    assert load_recipe("recipes/mambair_dn25.yaml").paper == load_recipe("mambair_dn25").paper
    assert load_recipe("mambair_dn25").paper is not None


def test_a_recipe_of_the_greatest_length_is_read_to_its_end(tmp_path):
    end = "\nname: abc"
    path = tmp_path / "long.yaml"
    path.write_text("#".ljust(LONGEST_TEXT - len(end), "-") + end)
    assert read_recipe(path)[0]["name"] == "abc"
    path.write_text("#".ljust(LONGEST_TEXT - len(end) + 1, "-") + end)
    with pytest.raises(RecipeError, match="more than 100,000 characters"):
        read_recipe(path)
