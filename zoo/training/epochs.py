"""Epochs as a unit of training: how many steps a pass over the training data takes."""

from __future__ import annotations

import math
from typing import Any

from zoo.data.burst.finding import find_bursts
from zoo.data.photos import SAMPLES_SOURCE, photo_files
from zoo.data.samples import sample_names
from zoo.errors import RecipeError
from zoo.recipe import Recipe, load_recipe
from zoo.training.settings import BurstDataSettings, DataSettings, TrainSettings, train_settings


def in_steps(recipe: Recipe) -> Recipe:
    """Return the recipe with ``iterations`` in the place of ``epochs``; unchanged if it has none.

    An epoch is one pass over the photos or the real bursts: their number over that of a batch,
    rounded up. The training counts them once, when it begins.

    Args:
        recipe: the recipe to train.

    Raises:
        RecipeError: if the recipe has stages, which have batches of several sizes.
        ImageError: if there is no photo or burst.
    """
    if not recipe.train:
        return recipe
    settings = train_settings(recipe)
    if not settings.epochs:
        return recipe
    steps = settings.epochs * math.ceil(count_examples(settings) / _batch(settings))
    data: dict[str, Any] = recipe.data()
    del data["train"]["epochs"]
    data["train"]["iterations"] = steps
    return load_recipe(data)


def _batch(settings: TrainSettings) -> int:
    data = settings.data
    if isinstance(data, BurstDataSettings):
        return data.batch
    if data.stages:
        raise RecipeError("epochs are for batches of one size; give iterations with data.stages")
    return data.plan(1)[0].batch


def count_examples(settings: TrainSettings) -> int:
    """Return how many photos, or real bursts, the training data has.

    Raises:
        ImageError: if there is none, or a folder cannot be read.
    """
    data: DataSettings | BurstDataSettings = settings.data
    if isinstance(data, BurstDataSettings) and data.real is not None:
        return len(find_bursts(data.real))
    if data.photos == SAMPLES_SOURCE:
        return len(sample_names(held_out=False))
    return len(photo_files(data.photos))
