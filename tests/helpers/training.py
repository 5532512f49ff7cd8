"""Small photos and small trainings for the tests of the trainer."""

from __future__ import annotations

import json

import numpy as np

from recipes.train import main
from zoo.data import Photo, write_photo
from zoo.distributed import ProcessGroup

# Two blocks: the second one's drop path is the network's, the first one's is zero.
SETTINGS = [
    "mambair_tiny_x2",
    "network.dim=32",
    "network.depths=[2]",
    "network.drop_path=0.3",
    "network.scans=[{type: raster, directions: [row]}]",
    "data.patch=8",
    "data.batch=2",
    "iterations=6",
    "save_every=3",
    "log_every=1",
]

LIGHT = [
    "mambair_light_x2",
    "network.dim=32",
    "network.depths=[2]",
    "data.patch=16",
    "data.batch=2",
    "log_every=1",
]
"""The light recipe, narrow and on small patches; all else is the paper's."""


def make_photos(folder, count=2, noise=0.0):
    folder.mkdir()
    for index in range(count):
        random = np.random.default_rng(index)
        pixels = 0.25 + 0.5 * random.random((40, 48, 3))
        pixels = np.clip(pixels + noise * random.standard_normal(pixels.shape), 0, 1)
        write_photo(folder / f"{index}.png", Photo(pixels.astype(np.float32)))
    return folder


def words(photos, output, *more, base=SETTINGS, num_workers="0"):
    data = [f"data.photos={photos}", f"data.validate={photos}"]
    return [*base, *data, *map(str, more), "--output", str(output), "--num-workers", num_workers]


def train(photos, output, *more, **options):
    return main(words(photos, output, *more, **options))


def losses(folder):
    """Loss by step; every line of the log counts, so a step logged twice is seen."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    found = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert len(found) == len(dict(found))
    return dict(found)


class Rank(ProcessGroup):
    """One of several processes; ``others`` is what the others give to a gathering."""

    def __init__(self, rank, world_size, others=None):
        self.rank, self.world_size, self.others = rank, world_size, others

    def gather(self, value):
        return [value, self.others]
