"""A small network for bursts, for recipes that train or evaluate in seconds; and small bursts."""

from __future__ import annotations

import torch
import yaml

import zoo
from zoo.data.burst.__main__ import main as make
from zoo.recipe import load_recipe

SMALL = {
    "burst": 3, "dim": 8, "align": "none", "flow_prior": "none", "skip": "corner", "stages": [1],
    "body": {"type": "res"}, "fusion": {"type": "concat"},
}  # fmt: skip


def small(name, folder, **train):
    """A small network of a recipe with random weights: the recipe's file."""
    data = load_recipe(name).data()
    data["network"] |= SMALL
    data["train"] |= {"initial": None, **train}
    data["train"]["data"] |= {"border": 4}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(data))
    torch.manual_seed(0)
    zoo.save(zoo.build(str(file)), folder / "weights.safetensors")
    return file


def burst_of(photo, *words):
    """A folder with bursts of three frames that are made from a photo."""
    folder = photo.parent / "made"
    found = make([str(photo), "-o", str(folder), "--crop", "64", "--frames", "3", *map(str, words)])
    assert found == 0
    return folder
