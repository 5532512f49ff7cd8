"""Which weights are scored: those given, those trained here, or those in the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zoo.checkpoints.choose import with_compat
from zoo.checkpoints.loading import load
from zoo.errors import MisfitError, ZooError
from zoo.networks import Network
from zoo.recipe import Recipe
from zoo.shipped import shipped_weights

RUN_WEIGHTS = "weights.safetensors"
"""Name of the weights in the folder of a training."""


class ScoredWeights(NamedTuple):
    """Where the weights are that are scored.

    Attributes:
        weights: a file, or the name of a model whose weights ship.
        told: the same, in words.
        trained: whether it is what a training of the same name has left.
    """

    weights: str | Path
    told: str
    trained: bool = False

    def network(self, recipe: Recipe, overrides: Mapping[str, Any] | None = None) -> Network:
        """Build the network of a recipe with these weights.

        Args:
            recipe: the recipe.
            overrides: options of the network by dotted path.

        Raises:
            CheckpointError: if the weights cannot be read or do not fit.
            ZooError: if ``compat`` is overridden and has no effect.
        """
        options = dict(overrides or {})
        return with_compat(lambda: self._network(recipe, options), options, recipe.name)

    def _network(self, recipe: Recipe, overrides: dict[str, Any]) -> Network:
        try:
            return load(self.weights, recipe=recipe, **overrides)
        except MisfitError as error:
            if not self.trained:
                raise
            raise MisfitError(
                f"{error}; it was trained with other settings than those of {recipe.name}: "
                "evaluate its own recipe, or name other weights with -w"
            ) from error


def scored_weights(recipe: Recipe, given: Path | None) -> ScoredWeights:
    """Choose the weights to score: those given, or those trained here, or those in the package.

    Args:
        recipe: the recipe to evaluate.
        given: a file, or the name of a model whose weights ship; None to choose.

    Raises:
        ZooError: if there are none.
    """
    shipped = shipped_weights()
    if given is not None:
        is_name = str(given) in shipped and not given.is_file()
        return ScoredWeights(given, f"those of {given} in the package" if is_name else str(given))
    trained = Path("runs") / recipe.name / RUN_WEIGHTS
    if trained.is_file():
        return ScoredWeights(trained, f"{trained}, trained here", trained=True)
    if recipe.name in shipped:
        return ScoredWeights(recipe.name, f"those of {recipe.name} in the package")
    raise ZooError(
        f"no weights ship for {recipe.name!r}, and {trained} does not exist: give a file with -w, "
        f"or train it; shipped: {', '.join(shipped)}"
    )
