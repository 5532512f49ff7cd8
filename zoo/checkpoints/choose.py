"""The network that a command names, with its weights: by model, by weights file, or by both."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from zoo.checkpoints import load, shipped_weights
from zoo.errors import ZooError
from zoo.networks import Network
from zoo.recipe import build, list_models

logger = logging.getLogger(__name__)


def choose_network(
    model: str | None,
    weights: Path | None,
    *,
    scale: int | None = None,
    random_weights: bool = False,
    overrides: dict[str, Any] | None = None,
) -> Network:
    """Build the network that ``-n``, ``-w``, ``-s`` and ``--random-weights`` ask for.

    Args:
        model: a published model or a recipe file; None for what the weights file says it is.
        weights: a weights file; None for the weights that ship with the package.
        scale: of a model that is named without it: "mambair_light" and 2 are "mambair_light_x2".
        random_weights: take an untrained network where no weights are given and none ship.
        overrides: options of the network by dotted path.

    Raises:
        ZooError: where neither model nor weights are named, the model is unknown, it has no
            weights, or its scale is another one.
    """
    overrides = overrides or {}
    if model is None:
        if weights is None:
            raise ZooError("name a model with -n (see 'zoo list'), or a weights file with -w")
        network = load(weights, **overrides)
    else:
        if scale is not None and model not in list_models() and Path(model).suffix == "":
            model = f"{model}_x{scale}"
        network = _named_network(model, weights, random_weights, overrides)
    check_scale(network, scale, str(model or weights))
    return network


def check_scale(network: Network, scale: int | None, name: str) -> None:
    """Raise a ZooError where a scale is asked for that is not the network's."""
    if scale is not None and network.scale != scale:
        raise ZooError(f"-s {scale}: {name} enlarges by {network.scale}")


def _named_network(
    model: str, weights: Path | None, random_weights: bool, overrides: dict[str, Any]
) -> Network:
    if weights is not None:
        return load(weights, recipe=model, **overrides)
    if model in shipped_weights():
        return load(model, **overrides)
    network = build(model, **overrides)  # first, so that an unknown model is an error in any case
    if random_weights:
        logger.warning("%s has random weights: its output only shows that it runs", model)
        return network
    raise ZooError(
        f"no weights ship for {model!r}: give a file with -w, or run it untrained with "
        f"--random-weights; weights ship for {', '.join(shipped_weights())}"
    )
