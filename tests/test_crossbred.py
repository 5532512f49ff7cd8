"""The recipes that mix the parts of several papers, and the pages that show them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

import zoo
from export.onnx import export
from export.verify import verify
from zoo.recipe import load_recipe, parse_value
from zoo.training.options import overrides_of

ROOT = Path(__file__).parent.parent
MIXED = sorted((ROOT / "examples" / "crossbred").glob("*.yaml"))


@pytest.mark.parametrize("path", MIXED, ids=lambda path: path.stem)
def test_a_mixed_recipe_is_short_and_learns(path):
    assert len(path.read_text().splitlines()) <= 12
    network = zoo.build(path)
    image = torch.rand(1, *network.example(8, 8).shape[1:])
    output = network(image)
    assert output.shape == (1, 3, 8 * network.scale, 8 * network.scale)
    output.square().mean().backward()
    unused = [key for key, p in network.named_parameters() if p.grad is None]
    assert not [key for key in unused if not key.startswith("align.")]
    assert load_recipe(path).train["iterations"] >= 200


@pytest.mark.slow
@pytest.mark.parametrize("path", MIXED, ids=lambda path: path.stem)
def test_a_mixed_network_exports(path, tmp_path):
    network = zoo.build(path).eval()
    report = verify(network, export(network, tmp_path / "n.onnx"))
    assert report.passed, str(report)


def test_the_tutorial_shows_the_recipe_of_the_example():
    page = (ROOT / "docs" / "your_paper.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    file = (ROOT / "examples" / "crossbred" / "stripes_in_mambacsr.yaml").read_text()
    assert parse_value(shown) == parse_value(file)


def test_the_runs_of_the_tutorial_change_all_blocks_and_nothing_else():
    page = (ROOT / "docs" / "your_paper.md").read_text(encoding="utf-8")
    [script] = [text for text in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "for " in text]
    script = "python() { printf '%s\\t' \"$@\"; echo; }\n" + script
    told = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout
    networks = {}
    for line in told.splitlines():
        train, recipe, *words, option, folder = line.rstrip("\t").split("\t")
        assert (train, recipe, option) == ("recipes/train.py", "mine.yaml", "-o")
        path = ROOT / "examples" / "crossbred" / "stripes_in_mambacsr.yaml"
        found = load_recipe(path, overrides_of(words))
        assert found.train["iterations"] == 200 and found.train["data"]["patch"] == 24
        zoo.build(found)
        networks[folder] = found.network
    scans = {name: network["scans"] for name, network in networks.items()}
    for width in (2, 4, 8, 16):
        assert [scan["width"] for scan in scans[f"runs/width_{width}"]] == [width, width]
        assert scans[f"runs/width_{width}"][1]["shift"] == width // 2
    assert networks["runs/sum"]["block"]["mixer"]["merge"] == "sum"
    assert scans["runs/random"] == [{"type": "shuffled"}]


@pytest.mark.parametrize("name", ["networks.md", "your_paper.md"])
def test_pages_lead_to_files_that_exist(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists(), link


def test_every_scan_order_has_a_picture_on_the_page_of_networks():
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    for entry in zoo.registry.kind("scan").entries():
        if entry.target.__module__.startswith("zoo."):
            assert f"| `{entry.name}` |" in text, entry.name
