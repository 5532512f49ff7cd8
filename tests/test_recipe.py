"""Recipes: strict, merged, overridden; and every one that is published."""

from __future__ import annotations

import copy
import math
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import zoo
import zoo.recipe as recipe_module
from zoo.errors import RecipeError
from zoo.evaluation.settings import evaluate_settings
from zoo.networks import SingleImage
from zoo.plain_data import LONGEST_TEXT
from zoo.recipe import load_recipe, parse_overrides, parse_value
from zoo.recipe_files import read_recipe
from zoo.registry import (
    Capabilities,
    Registry,
    capabilities_of,
    kind,
    kinds,
    temporary_registrations,
)
from zoo.schema import at_least, resolve
from zoo.shipped import RECIPES, shipped_weights
from zoo.training.settings import ScheduleSettings, train_settings

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


def test_models_and_parts_are_listed_by_pattern():
    assert zoo.list_models("mambair_l*x4") == ["mambair_light_x4"]
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


def test_a_paper_without_a_table_is_described_without_its_place(tmp_path):
    path = tmp_path / "mine.yaml"
    paper = "{title: On images, arxiv: '2401.1'}"
    path.write_text(f"extends: mambair_tiny_x2\npaper: {paper}\nnetwork: {{depths: [1]}}\n")
    assert zoo.describe(str(path), height=4, width=4).paper == "On images, arXiv:2401.1"


def test_burst_models_are_described_too():
    """Counting operations must not meet gradients: some parameters are used in slices."""
    model = zoo.describe("qmambabsr_tiny", height=8, width=16)
    assert (model.size, model.channels, model.capabilities.input) == ((8, 16), 4, "burst")
    assert model.gigaflops > 0


def test_options_are_described_by_type_and_default():
    options = zoo.describe("network/single_image").options
    assert options["depths"].startswith("list of int = ") and options["dim"].startswith("int")
    assert options["block"].startswith("block or list of block or ")
    assert options["block"].endswith("= rssb")
    assert options["head"] == "head = pixelshuffle"
    assert options["scans"].startswith("list of scan")
    assert (
        options["conv"].startswith("1conv or 3conv = ") and " or none = None" in options["coarse"]
    )
    assert zoo.describe("degradation/jpeg").options == {"quality": "int"}


def test_operations_are_counted_in_billions_for_the_size_that_is_given():
    """Twice the multiply-adds: those of the convolutions alone are a third of them."""
    small = zoo.describe("mambair_tiny_x2", height=8, width=16)
    large = zoo.describe("mambair_tiny_x2", height=16, width=16)
    assert large.size == (16, 16) and large.gigaflops == pytest.approx(
        2 * small.gigaflops, rel=0.05
    )
    network = zoo.build("mambair_tiny_x2")
    products = sum(
        2 * 256 * module.weight[0].numel() * module.weight.shape[0]
        for module in network.modules()
        if isinstance(module, torch.nn.Conv2d)
    )
    assert 1 < large.gigaflops / (products / 1e9) < 8


class Animal:
    """An animal."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every type that recipes have."""

    pair: tuple[int, float] = (1, 2.0)
    many: tuple[int, ...] = ()
    listed: list[str] = field(default_factory=list)
    table: dict[str, float] = field(default_factory=dict)
    flag: bool = False
    number: float = 1.0
    either: int | str | None = None


def test_values_become_what_their_annotations_say():
    given = {"pair": [1, 2], "many": [1, 2], "listed": ["a"], "table": {"a": 1}, "number": 3}
    found = resolve(Options, given, "")
    assert found == Options(pair=(1, 2.0), many=(1, 2), listed=["a"], table={"a": 1.0}, number=3.0)
    assert [type(v) for v in (found.pair[1], found.table["a"], found.number)] == [float] * 3
    assert type(found.listed) is list and type(found.many) is tuple
    assert resolve(Options, {"either": "x"}, "").either == "x"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair": [1, 2, 3]}, r"^pair: expected 2 values, got 3"),
        ({"many": [1, True]}, r"^many\[1\]: expected a whole number, got True"),
        ({"table": {"a": "x"}}, r"^table\.a: expected a number"),
        ({"table": [1]}, r"^table: expected a mapping"),
        ({"number": True}, r"^number: expected a number, got True"),
        ({"flag": 1}, r"^flag: expected true or false"),
        ({"either": 1.5}, r"^either: expected"),
    ],
)
def test_values_of_another_type_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        resolve(Options, options, "")


def test_the_smallest_number_allowed_is_allowed():
    at_least(SimpleNamespace(a=1, b=2), 1, "a", "b")
    with pytest.raises(RecipeError, match=r"^b is 0\.5; it must be at least 1$"):
        at_least(SimpleNamespace(a=1, b=0.5), 1, "a", "b")
    at_least(SimpleNamespace(a=None, b=9), 1, "a", "b", most=9)
    cases = {10: "most 9", math.inf: "most 9", math.nan: "least 1", -math.inf: "least 1"}
    for value, wanted in cases.items():
        with pytest.raises(RecipeError, match=f"^a is {value}; it must be at {wanted}"):
            at_least(SimpleNamespace(a=value), 1, "a", most=9)
    with pytest.raises(RecipeError, match="a is inf; it must be"):
        at_least(SimpleNamespace(a=math.inf), 1, "a")


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


def test_a_recipe_leads_through_16_files_at_most(tmp_path):
    path = tmp_path / "0.yaml"
    path.write_text("name: first\nnetwork: {type: unet}\n")
    for number in range(1, 17):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {tmp_path}/{number - 1}.yaml\n")
    assert load_recipe(tmp_path / "15.yaml").network == {"type": "unet"}
    with pytest.raises(RecipeError, match="'extends' leads through more than 16 files"):
        load_recipe(tmp_path / "16.yaml")


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


def test_models_are_listed_by_name():
    for names in (zoo.list_models(), shipped_weights()):
        assert names == sorted(names) and names


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


def test_capabilities_are_a_parts_own_or_those_of_the_class_that_it_derives_from():
    class Mine(SingleImage): ...

    registered = Capabilities(size_multiple=8)
    assert capabilities_of(zoo.build("mambair_realdn", dim=32, depths=[1] * 4)) == registered
    network = Mine(dim=32, depths=(1,))
    assert capabilities_of(network) == Capabilities() == capabilities_of(object())
    network.capabilities = Capabilities(size_multiple=3)
    assert capabilities_of(network).size_multiple == 3

    class Turned(type(zoo.build("mambair_realdn", dim=32, depths=[1] * 4))): ...

    assert capabilities_of(Turned(dim=32, depths=[1] * 4)) == registered


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


def test_a_recipe_of_the_greatest_length_is_read_to_its_end(tmp_path):
    end = "\nname: abc"
    path = tmp_path / "long.yaml"
    path.write_text("#".ljust(LONGEST_TEXT - len(end), "-") + end)
    assert read_recipe(path)[0]["name"] == "abc"
    path.write_text("#".ljust(LONGEST_TEXT - len(end) + 1, "-") + end)
    with pytest.raises(RecipeError, match="more than 100,000 characters"):
        read_recipe(path)


@pytest.mark.long
def test_every_model_is_documented_with_its_count():
    text = documented()
    counts = {}  # many recipes train the same network for other tasks
    for name in zoo.list_models():
        network = str(load_recipe(name).network)
        if network not in counts:
            with torch.device("meta"):
                counts[network] = sum(p.numel() for p in zoo.build(name).parameters())
        assert f"| `{name}` | {counts[network]:,} |" in text


SCORE = re.compile(r"(\w+) (\d+\.\d{2,3})(?: / (0\.\d{2,4}))?")
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
