"""Every command of docs/papers.md runs on toy data, from the folders to the printed table.

Networks are made small, and nothing else: sets, protocol and the paper's scores are the recipe's.
"""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

import zoo
from tests.helpers import author_layouts, hdf5
from zoo.cli import main
from zoo.evaluation.settings import evaluate_settings
from zoo.recipe import load_recipe

PAGE = (Path(__file__).parents[1] / "docs" / "papers.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
COMMANDS = list(dict.fromkeys(re.findall(r"`zoo ([^`]+)`", "\n".join(r[-1] for r in ROWS))))

SMALL = {
    "single_image": {"dim": 30, "depths": [1]},
    "burst": {
        "burst": 3,
        "dim": 8,
        "align": "none",
        "skip": "corner",
        "stages": [1],
        "fusion": {"type": "concat"},
        "body": {"type": "res"},
    },
    "unet": {"dim": 30, "depths": [1, 1, 1, 1], "refinement": 1},
}
"""Options that make the network of a type small."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a reader of the page has: test sets in the authors' layouts, and a photo."""
    root = tmp_path_factory.mktemp("papers")
    for make in (
        author_layouts.super_resolution,
        author_layouts.denoising,
        author_layouts.jpeg,
        author_layouts.sidd,
        author_layouts.synthetic_bursts,
        author_layouts.burstsr,
        author_layouts.realbsr_raw,
        author_layouts.realbsr_rgb,
    ):
        make(root / "datasets")
    hdf5.dnd(root / "datasets")
    author_layouts.picture(root / "photo.png", 16)
    return root


def small(name, folder):
    """Write a small network of a recipe and its weights; return the recipe's file."""
    data = load_recipe(name).data()
    data["network"] |= SMALL[data["network"]["type"]]
    if data["network"]["type"] == "burst":
        data["train"]["data"]["border"] = 4
    if data["network"].get("coarse"):
        data["network"]["coarse"]["depths"] = [1]
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(data))
    zoo.save(zoo.build(str(file)), folder / f"{name}.safetensors")
    return file


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(command, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", hdf5.h5py())
    for name in ("datasets", "photo.png"):
        (tmp_path / name).symlink_to(folder / name)
    words = shlex.split(command)
    models = [word for word in words if word in zoo.list_models()]
    if "FILE" in words:
        [name] = models
        file = small(name, tmp_path)
        words[words.index(name)] = str(file)
        words[words.index("FILE")] = str(file.with_suffix(".safetensors"))
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    if words[0] == "evaluate":
        check_table(printed, load_recipe(models[0]), words)
    for option, path in itertools.pairwise(words):
        if option in ("-o", "--save-images"):
            assert Path(path).exists()


def check_table(printed, recipe, words):
    """Every set of the paper has a row with its score, of files where the authors have files."""
    settings = evaluate_settings(recipe)
    published = (settings.paper_ensemble if "--ensemble" in words else settings.paper) or {}
    rows = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines()]
    found = {row[1]: row for row in rows if len(row) > 6}
    sets = settings.datasets
    if "--sets" in words:
        sets = [words[words.index("--sets") + 1]]
    for name in sets:
        made = recipe.train["data"].get("degradation") or {}
        kind = made if isinstance(made, str) else made.get("type")
        assert found[name][3] == ("made" if kind == "noise" or name == "LIVE1" else "files")
        if score := published.get(name):
            decimals = (2, 4)
            told = [f"{value:.{places}f}" for value, places in zip(score, decimals, strict=False)]
            assert found[name][6] == " / ".join([*told, "-"][:2])
        ssim = "-" if name == "BurstSR" else r"\d\.\d{4}"
        assert re.fullmatch(rf"-?\d+\.\d\d / {ssim}", found[name][5]), found[name]


def test_every_row_has_a_command_or_a_reason():
    assert len(ROWS) > 60
    for row in ROWS:
        assert row[-1].strip(), row
    asked = [c.split()[1] for c in COMMANDS if c.startswith("evaluate")]
    assert set(asked) <= set(zoo.list_models())
