"""The recipe that a file holds, or that its tensors show."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from zoo.checkpoints.as_published import network_of_our_names, published_facts
from zoo.checkpoints.evidence import Evidence, difference
from zoo.checkpoints.keymap import MissingKeyError
from zoo.checkpoints.releases import OFFICIAL
from zoo.checkpoints.source import Source, Weights, opened
from zoo.checkpoints.trainers import without_usual_names
from zoo.errors import CheckpointError, RecipeError, nearest, shown
from zoo.plain_data import read_json
from zoo.recipe import Recipe, load_recipe, self_contained

logger = logging.getLogger(__name__)

OURS = ("shallow.", "groups.0.", "encoders.0.", "head.")
"""Starts of our own names of tensors."""


def detect(source: Source, *, as_published: bool = False, **facts: Any) -> Recipe:
    """Return the recipe of the network that weights belong to, without building it.

    Args:
        source: weights, as for :func:`load`.
        as_published: whether to take what the tensors do not show, such as the scan orders, as it
            is in the published networks, where it is neither in the file nor in ``facts``. Tensors
            by our names are recognised, too, if a published network has them.
        facts: settings that the tensors do not show, such as ``scan_size`` of MambaCSR.

    Raises:
        CheckpointError: if the weights cannot be read, are not recognised, or need another fact, or
            if the recipe in the file is wrong.
        RecipeError: if the release has no such fact.
    """
    weights = opened(source)
    known = facts_known(weights)
    for name in facts:
        if name not in known:
            raise RecipeError(f"{weights.what}: unknown fact {shown(name)}{nearest(name, known)}")
    try:
        recipe = recipe_of(weights, facts, as_published=as_published)
    except CheckpointError as error:
        if as_published or not _is_as_published(weights, facts):
            raise
        raise CheckpointError(
            f"{error}; or as_published=True, to take what is published"
        ) from error
    return checked_recipe(weights.what, recipe)


def _is_as_published(weights: Weights, facts: Mapping[str, Any]) -> bool:
    try:
        recipe_of(weights, facts, as_published=True)
    except CheckpointError:
        return False
    return True


def facts_known(weights: Weights) -> tuple[str, ...]:
    """Return the names of the settings that a user may add to what the tensors show."""
    return () if weights.official is None else weights.official[1].facts


def recipe_of(
    weights: Weights, facts: Mapping[str, Any], *, as_published: bool = False
) -> dict[str, Any]:
    """Return the recipe in a file in our format, or else the one that the tensors show.

    Args:
        weights: the weights.
        facts: settings that the tensors do not show.
        as_published: whether the others of these settings are as published.

    Raises:
        CheckpointError: if the recipe is missing or damaged, or the tensors are not recognised.
    """
    if weights.is_ours:
        return recipe_in(weights)
    what = weights.what
    if weights.official is None:
        ours = network_of_our_names(weights.tensors) if as_published else None
        if ours is None:
            raise CheckpointError(f"{what}: these weights are not recognised {_stranger(weights)}")
        logger.info("%s has our names; what they do not show is taken to be as published", what)
        return {"name": weights.title, "network": ours.recipe.network}
    found, release = weights.official
    if as_published:
        facts = {**published_facts(release, found.state), **facts}
    evidence = Evidence(found.state)
    try:
        network = release.network(evidence, facts)
    except MissingKeyError as error:
        hint = difference(found.state, OFFICIAL)
        fault = f"{error}; {hint}" if hint else str(error)
    except CheckpointError as error:
        raise CheckpointError(f"{what}: {error}") from error
    except (ArithmeticError, IndexError, ValueError):
        fault = evidence.fault()
    else:
        logger.info("recognised %s as %s; img_range is 1, as published", what, release.name)
        return {"name": weights.title, "network": network}
    raise CheckpointError(f"{what}: looks like {release.name}, but {fault}")


def _stranger(weights: Weights) -> str:
    """Say what weights have that no release has, or else what to do with them."""
    state = without_usual_names(weights.tensors)
    known = ", ".join(release.name for release in OFFICIAL)
    hint = difference(state, OFFICIAL)
    if hint is None and any(key.startswith(OURS) for key in state):
        hint = "the names are ours, but do not say which network it is; pass recipe=..."
    hint = hint or f"known are our own files and {known}; for others, pass recipe=..."
    return f"(first key {shown(next(iter(state), 'none'))}); {hint}"


def checked_recipe(what: str, recipe: Mapping[str, Any]) -> Recipe:
    """Return the recipe of weights after checking it.

    Raises:
        CheckpointError: if it has unknown parts or options.
    """
    try:
        return load_recipe(recipe)
    except RecipeError as error:
        fault = str(error).removeprefix("recipe: ")
        raise CheckpointError(
            f"{what}: its recipe has {fault}; if the part is yours, add --import MODULE"
        ) from error


def recipe_in(weights: Weights) -> dict[str, Any]:
    """Return the recipe in the metadata of a file, as data that name no path."""
    try:
        return self_contained(read_json(weights.metadata["recipe"]))
    except KeyError as error:
        raise CheckpointError(f"{weights.what}: the file has no recipe; pass recipe=...") from error
    except RecipeError as error:
        raise CheckpointError(
            f"{weights.what}: the recipe in the file is damaged ({error}); pass recipe=..."
        ) from error
