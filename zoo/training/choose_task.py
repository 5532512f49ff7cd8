"""Choosing the training task of a recipe."""

from __future__ import annotations

import dataclasses

from zoo.evaluation.settings import evaluate_settings, protocol_of
from zoo.networks import Network
from zoo.recipe import Recipe
from zoo.training.burst_task import BurstTask
from zoo.training.photo_task import PhotoTask
from zoo.training.settings import BurstTrainSettings, TrainSettings
from zoo.training.task import Task


def make_task(
    recipe: Recipe, settings: TrainSettings, network: Network, *, progress: bool = False
) -> Task:
    """Return the task for a network: bursts for a burst network, otherwise photos.

    Args:
        recipe: the recipe to train.
        settings: the recipe's ``train`` section.
        network: the network built from the recipe.
        progress: whether to show a progress bar while files are checked.
    """
    if network.takes_burst:
        assert isinstance(settings, BurstTrainSettings)
        return BurstTask(settings, network, progress=progress)
    wanted = evaluate_settings(recipe)
    data = settings.data
    if recipe.paper is None:
        # A recipe without a paper may inherit the name of the training data of another's paper.
        data = dataclasses.replace(data, paper="")
    return PhotoTask(
        data,
        network,
        protocol=protocol_of(wanted, network, data.range),
        iterations=settings.iterations,
        seed=settings.seed,
        progress=progress,
    )
