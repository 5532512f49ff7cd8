"""Recipes: strict, merged, overridden; and every one that is published."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import torch

import zoo
from zoo.errors import RecipeError
from zoo.evaluation.settings import evaluate_settings
from zoo.networks import SingleImage
from zoo.recipe import load_recipe, parse_value
from zoo.registry import Capabilities, Registry, kind, kinds, temporary_registrations
from zoo.schema import resolve
from zoo.training.settings import ScheduleSettings, train_settings

SMALL = {"network": {"type": "single_image", "dim": 32, "depths": [1], "scale": 2}}


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_published_recipe_is_valid(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.summary and recipe.paper
    if recipe.train:
        settings = train_settings(recipe)
        scale = recipe.network.get("scale", 1)
        if recipe.takes_burst:
            assert settings.data.synthesis(frames=2, factor=4, mode="rgb").scale == 4
        elif name == "mambair_realdn":
            assert settings.data.degradation is None  # noisy and clean photographs are files
        else:
            made = settings.data.degradation
            assert made is not None and made(scale=scale).scale == scale
    assert isinstance(evaluate_settings(recipe).datasets, tuple)
    again = load_recipe(recipe.data())
    assert again == recipe


def test_models_and_parts_are_listed_by_pattern():
    assert zoo.list_models("*light*x4") == ["mambair_light_x4"]
    assert "raster" in zoo.list_parts("scan")
    assert "block/rssb" in zoo.list_parts(pattern="rs*")
    with pytest.raises(RecipeError, match="did you mean 'block'"):
        zoo.list_parts("blok")


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
        ({"head": "residual"}, r"network\.head: scale is 2, but the residual head keeps the size"),
        ({"conv": "2conv"}, r"network\.conv: expected one of 1conv, 3conv, got '2conv'"),
        ({"block.branch.compress": 90}, r"network\.block\.branch: .*use dim >= 90"),
        ({"depths": [2], "drop_path": 1.5}, r"drop_path is 1.5"),
        ({"block.mixer.d_conv": 2}, r"network\.block\.mixer: d_conv is 2; it must be odd"),
        (
            {"scans": ["raster"], "scans[3].size": 8},
            r"override network\.scans\[3\]\.size: '3' is not an index",
        ),
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
    with pytest.raises(RecipeError, match="did you mean 'mambair_light_x4'"):
        zoo.build("mambair_lite_x4")
    with pytest.raises(RecipeError, match="unknown model"):
        zoo.build("../recipes/mambair_light_x4")


def test_settings_of_several_values_say_what_they_are():
    message = (
        r"train\.schedule: .* of type, milestones, .*; did you mean train\.schedule\.type=flat"
    )
    with pytest.raises(RecipeError, match=message):
        resolve(ScheduleSettings, "flat", "train.schedule")


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: {dim: 1, dim: 2}", "'dim' is given twice"),
        ("network: [", "not valid YAML"),
        ("just text", "a recipe is a mapping"),
        ("extends: mine.yaml", "circular"),
        ("extends: 5", "'extends' must name a recipe"),
        ("network: {type: unet, dim: 31}", "dim is 31; it must be even"),
    ],
)
def test_broken_files_are_named(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=f"mine.*{message}"):
        zoo.build("mine.yaml")
    with pytest.raises(RecipeError, match="cannot read"):
        zoo.build("missing.yaml")


def test_values_are_read_as_yaml_with_plain_exponents():
    assert parse_value("1e-4") == 1e-4 and parse_value("2E5") == 2e5
    assert parse_value("[6, 6]") == [6, 6] and parse_value("true") is True


def test_descriptions():
    model = zoo.describe("mambair_light_x4")
    assert (model.scale, model.parameters) == (4, 924_492)
    assert model.gigaflops > 1 and "924,492" in str(model)
    part = zoo.describe("mixer/ss2d")
    assert part.options["d_state"] == "int = 16" and "expand" in str(part)
    assert zoo.describe("network/unet").capabilities.size_multiple == 8
    with pytest.raises(RecipeError, match="did you mean 'block/rssb'"):
        zoo.describe("rssb")
    assert "arXiv:2402.15648" in model.paper and model.size == (64, 64)


def test_burst_models_are_described_too():
    """Counting operations must not meet gradients: some parameters are used in slices."""
    model = zoo.describe("qmambabsr_tiny", height=8, width=16)
    assert (model.size, model.channels, model.capabilities.input) == ((8, 16), 4, "burst")
    assert model.gigaflops > 0


class Animal:
    """An animal."""


def test_temporary_registrations_are_forgotten():
    before = {name: registry.names() for name, registry in kinds().items()}
    with temporary_registrations():
        Registry("test animal", Animal).register("cat")(Animal)
        zoo.register("head", "test_head")(kind("head").get("pixelshuffle").target)
        assert kind("test animal").names() == ["cat"] and "test_head" in kind("head").names()
    assert {name: registry.names() for name, registry in kinds().items()} == before


def test_a_registry_refuses_what_is_no_part_and_stays_as_it_was():
    animals = Registry("test animal", Animal, supplied=("dim",))

    @animals.register("cat", capabilities=Capabilities(size_multiple=4))
    class Cat(Animal):
        """A cat."""

        def __init__(self, dim, *, legs: int = 4): ...

    with pytest.raises(RecipeError, match="already registered"):
        animals.register("cat")(Cat)
    with pytest.raises(RecipeError, match="derived from"):
        animals.register("stone")(int)

    class Loose(Animal):
        def __init__(self, dim, legs: int = 4): ...

    class Untyped(Animal):
        def __init__(self, dim, *, legs=4): ...

    with pytest.raises(RecipeError, match="keyword-only"):
        animals.register("loose")(Loose)
    with pytest.raises(RecipeError, match="type annotation"):
        animals.register("untyped")(Untyped)
    assert animals.names() == ["cat"]
    assert animals.get("cat").summary == "A cat."


def test_drop_path_rates_rise_linearly():
    network = SingleImage(dim=32, depths=(2, 1), drop_path=0.2)
    rates = [block.drop_path.rate for group in network.groups for block in group.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])


def documented() -> str:
    root = Path(__file__).parent.parent
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return "".join(page.read_text(encoding="utf-8") for page in pages)


def test_every_model_is_documented_with_its_count():
    text = documented()
    for name in zoo.list_models():
        with torch.device("meta"):
            parameters = sum(p.numel() for p in zoo.build(name).parameters())
        assert f"| `{name}` | {parameters:,} |" in text


SCORE = re.compile(r"(\w+) (\d+\.\d\d)(?: / (0\.\d{3,4}))?")
"""A published score in the README: test set, PSNR and perhaps SSIM, as in "Set5 38.57 / 0.9627"."""


def test_the_readme_shows_the_published_scores_of_the_recipes():
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    cells = dict(re.findall(r"^\|[^|]*\| `(\w+)` \|[^|]*\|[^|]*\|([^|]*)\|$", readme, re.MULTILINE))
    for name in zoo.list_models():
        paper = evaluate_settings(load_recipe(name)).paper or {}
        published = {test_set: score for test_set, score in paper.items() if score}
        shown = {
            test_set: tuple(float(value) for value in (psnr, ssim) if value)
            for test_set, psnr, ssim in SCORE.findall(cells.get(name, ""))
        }
        assert shown.items() <= published.items(), name
        if name in cells:  # the ablations of MambaCSR share one row, which has no scores
            assert bool(shown) == bool(published), name


@pytest.mark.slow
def test_every_model_is_documented_with_its_operations():
    text = documented()
    for name in zoo.list_models():
        found = zoo.describe(name)
        assert f"| `{name}` | {found.parameters:,} | {found.gigaflops:.1f} |" in text
