"""A block and a scan order from outside the package reach every tool."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.data import Photo, read_photo, write_photo

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


def command(folder, *words):
    paths = [str(HERE / "helpers"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def photos(folder):
    folder.mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).random((48, 40, 3)).astype(np.float32)
        write_photo(folder / f"{index}.png", Photo(pixels))
    return folder


def test_training_saving_loading_and_restoring_through_import(tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE)
    folder = photos(tmp_path / "photos")
    trained = command(
        tmp_path,
        str(HERE.parent / "recipes" / "train.py"),
        "mine.yaml",
        f"data.photos={folder}",
        f"data.validate={folder}",
        "--import",
        "my_parts",
        "--num-workers",
        "0",
    )
    assert trained.returncode == 0, trained.stderr
    weights = tmp_path / "runs" / "mine" / "weights.safetensors"
    restored = command(
        tmp_path, "-m", "zoo", "restore", str(folder), "-o", "out", "-w", str(weights),
        "--import", "my_parts",
    )  # fmt: skip
    assert restored.returncode == 0, restored.stderr
    assert read_photo(tmp_path / "out" / "0.png").color_HWC.shape == (96, 80, 3)
    shown = command(tmp_path, "-m", "zoo", "list", "--parts", "block", "--import", "my_parts")
    assert "my_plain" in shown.stdout
    drawn = command(
        tmp_path, "-m", "zoo", "scans", "plot", "my_odd_even", "-o", "a.png", "--import", "my_parts"
    )
    assert drawn.returncode == 0, drawn.stderr

    without = command(tmp_path, "-m", "zoo", "restore", str(folder), "-o", "x", "-w", str(weights))
    assert without.returncode == 2 and "unknown" in without.stderr
    assert "Traceback" not in without.stderr and not (tmp_path / "x").exists()


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
