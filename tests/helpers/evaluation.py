"""Small files, weights and words for the command that evaluates."""

from __future__ import annotations

import numpy as np
import torch

import zoo
from recipes.evaluate import main
from zoo.data import (
    Photo,
    write_photo,
)


def photo_file(path, seed=0, size=(24, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).random((*size, 3)).astype(np.float32)
    write_photo(path, Photo(pixels))
    return path


def weights_in(folder):
    """A tiny network, saved with a recipe: the words that evaluate it."""
    torch.manual_seed(0)
    network = zoo.build("mambair_light_x2", dim=30, depths=[1])
    zoo.save(network, folder / "a.safetensors")
    (folder / "small.yaml").write_text(
        "extends: mambair_light_x2\n"
        "network: {dim: 30, depths: [1]}\n"
        "evaluate: {paper: {Set5: [30.5, 0.9]}, paper_ensemble: {Set5: [31, 0.91]}}\n"
    )
    return folder / "small.yaml", "-w", folder / "a.safetensors"


def run(*words):
    return main([str(word) for word in words])
