"""A block and a scan order from outside the package reach every tool."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from recipes.train import main as train
from zoo.cli import main as zoo_main
from zoo.data import Photo, read_photo, write_photo
from zoo.registry import temporary_registrations

HERE = Path(__file__).parent

RECIPE = """
extends: mambair_tiny_x2
network:
  dim: 32
  depths: [1]
  block: {type: my_plain, expand: 1.0}
  scans: [my_odd_even, raster]
train: {data: {patch: 8, batch: 2}, iterations: 2, save_every: 2, log_every: 1}
"""


def command(main, *words):
    """A command's exit code, as if in a process of its own: it sees no part but by --import."""
    with temporary_registrations():
        try:
            return main([str(word) for word in words])
        finally:
            sys.modules.pop("my_parts", None)


def photos(folder):
    folder.mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).random((48, 40, 3)).astype(np.float32)
        write_photo(folder / f"{index}.png", Photo(pixels))
    return folder


def test_training_saving_loading_and_restoring_through_import(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my_parts.py").write_text((HERE / "helpers" / "my_parts.py").read_text())
    Path("mine.yaml").write_text(RECIPE)
    folder = photos(tmp_path / "photos")
    mine = ("--import", "my_parts")
    data = (f"data.photos={folder}", f"data.validate={folder}", "--num-workers", 0)
    assert command(train, "mine.yaml", *data, *mine) == 0
    weights = tmp_path / "runs" / "mine" / "weights.safetensors"
    assert command(zoo_main, "restore", folder, "-o", "out", "-w", weights, *mine) == 0
    assert read_photo(tmp_path / "out" / "0.png").color_HWC.shape == (96, 80, 3)
    capsys.readouterr()
    assert command(zoo_main, "list", "--parts", "block", *mine) == 0
    assert "my_plain" in capsys.readouterr().out
    assert command(zoo_main, "scans", "plot", "my_odd_even", "-o", "a.png", *mine) == 0

    assert command(zoo_main, "restore", folder, "-o", "x", "-w", weights) == 2
    error = capsys.readouterr().err
    assert "unknown" in error and "my_" in error and not Path("x").exists()


def test_building_from_plain_python(monkeypatch):
    # It registers when it is first imported, and each test forgets what it registered.
    monkeypatch.delitem(sys.modules, "tests.helpers.my_parts", raising=False)
    importlib.import_module("tests.helpers.my_parts")
    recipe = {"network": {"type": "single_image", "dim": 32, "depths": [1], "block": "my_plain"}}
    assert zoo.build(recipe)(torch.rand(1, 3, 5, 4)).shape == (1, 3, 5, 4)


def test_the_timm_adapter_builds_what_the_zoo_builds():
    from zoo.integrations.timm import entrypoint, register

    create = entrypoint("mambair_tiny_x2")
    assert create.__name__ == "mambair_tiny_x2"
    network = create(pretrained=False, pretrained_cfg=None, scale=3)
    assert network.scale == 3
    expected = zoo.load("mambair_tiny_x2").state_dict()
    found = create(pretrained=True).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError):
        with pytest.raises(zoo.errors.ZooError, match="timm cannot be imported"):
            register()
    else:
        assert "mambair_tiny_x2" in register("mambair_tiny*")
