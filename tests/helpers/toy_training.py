"""Trainings of the toy network in this process."""

from __future__ import annotations

import json

import torch

from recipes.train import Trainer
from zoo.distributed import ProcessGroup
from zoo.recipe import load_recipe

STEPS = 20

ADAMW = {"type": "adamw", "lr": 0.01, "betas": [0.7, 0.9], "weight_decay": 0.5, "decay": "all"}


def recipe_of(photos, network=(), evaluation=(), **settings):
    data = {
        "degradation": "bicubic",
        "photos": str(photos),
        "validate": str(photos),
        "patch": 6,
        "batch": 4,
    }
    data |= settings.pop("data", {})
    if "stages" in data:
        del data["patch"], data["batch"]
    train = {"iterations": STEPS, "save_every": STEPS, "log_every": 1, **settings, "data": data}
    train = {name: value for name, value in train.items() if value is not None}
    return load_recipe(
        {
            "name": "toy",
            "network": {"type": "toy", "scale": 2, **dict(network)},
            "train": train,
            "evaluate": dict(evaluation),
        }
    )


def trainer_of(photos, folder, *, group=None, **settings):
    folder.mkdir(exist_ok=True)
    return Trainer(recipe_of(photos, **settings), folder, device="cpu", num_workers=0, group=group)


def log_of(folder):
    return list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


class Several(ProcessGroup):
    """One of several processes, without the others: what all do, it does for them."""

    def __init__(self, rank, world_size, wrap=lambda network: network):
        self.rank, self.world_size, self._wrap = rank, world_size, wrap

    def gather(self, value):
        return [value] * self.world_size

    def add(self, *values):
        return [value * self.world_size for value in values]

    def wrap(self, network, device):
        return self._wrap(network)
