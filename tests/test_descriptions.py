"""What ``zoo.describe``, the lists and the documentation say of models and parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import zoo
from zoo.errors import RecipeError
from zoo.evaluation.settings import evaluate_settings
from zoo.recipe import load_recipe
from zoo.shipped import shipped_weights


def test_models_and_parts_are_listed_by_pattern():
    assert zoo.list_models("mambair_l*x4") == ["mambair_light_x4"]
    assert "raster" in zoo.list_parts("scan")
    assert "block/rssb" in zoo.list_parts(pattern="rs*")
    with pytest.raises(RecipeError, match="did you mean 'block'"):
        zoo.list_parts("blok")


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


def test_models_are_listed_by_name():
    for names in (zoo.list_models(), shipped_weights()):
        assert names == sorted(names) and names


def documented() -> str:
    root = Path(__file__).parent.parent
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return "".join(page.read_text(encoding="utf-8") for page in pages)


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
