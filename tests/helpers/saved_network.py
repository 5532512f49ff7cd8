"""Weights files of a small network, whole or with metadata of any kind."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

import zoo

SMALL = {"network": {"type": "single_image", "dim": 32, "depths": [1], "scale": 2}}


def saved_small(folder):
    """The file of such a network in a folder, after step 7."""
    path = folder / "w.safetensors"
    zoo.save(zoo.build(SMALL), path, step="7")
    return path


def metadata_only(path, recipe, **tensors):
    save_file(tensors or {"a": torch.zeros(1)}, path, {"format": "zoo", "recipe": recipe})
    return path
