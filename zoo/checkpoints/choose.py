"""Choosing the network of a command: by model name, by weights file, or by both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zoo.blocks import ScaleFusion
from zoo.checkpoints import load
from zoo.checkpoints.hub import SUFFIXES
from zoo.errors import ZooError
from zoo.networks import Network
from zoo.recipe import build
from zoo.shipped import list_models, shipped_weights

logger = logging.getLogger(__name__)


def choose_network(
    model: str | None,
    weights: Path | None,
    *,
    scale: int | None = None,
    random_weights: bool = False,
    overrides: dict[str, Any] | None = None,
) -> Network:
    """Build the network that the options ``-n``, ``-w``, ``-s`` and ``--random-weights`` select.

    Args:
        model: a published model or a recipe file; None to use the recipe in the weights file.
        weights: a weights file; None for the weights in the package.
        scale: scale of the model, if its name lacks it: "mambair_light" with scale 2 is
            "mambair_light_x2".
        random_weights: whether to return an untrained network if no weights are given and the
            package has none.
        overrides: options of the network by dotted path.

    Raises:
        ZooError: if neither model nor weights are given, the model is unknown or has no weights,
            or its scale is not ``scale``.
    """
    options = overrides or {}
    return with_compat(
        lambda: _chosen(model, weights, scale, random_weights, options), options, model or weights
    )


def with_compat(make: Callable[[], Network], overrides: Mapping[str, Any], name: object) -> Network:
    """Return the network that a function makes with these overrides.

    Args:
        make: makes the network.
        overrides: options of the network by dotted path.
        name: what the user calls the network, for the message.

    Raises:
        ZooError: if the overrides have ``compat`` and the network has no such option, or if it
            changes nothing; and whatever ``make`` raises.
    """
    try:
        network = make()
    except ZooError as error:
        if "network.compat: unknown option" in str(error):
            raise _no_compat(name) from error
        raise
    if "compat" in overrides and not compat_matters(network):
        raise _no_compat(name)
    return network


def _no_compat(what: object) -> ZooError:
    return ZooError(
        f"--compat has no effect on {what}: it is for cross-scale MambaCSR; leave it out"
    )


def _chosen(
    model: str | None,
    weights: Path | None,
    scale: int | None,
    random_weights: bool,
    overrides: dict[str, Any],
) -> Network:
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


def compat_matters(network: Network) -> bool:
    """Return whether the option ``--compat`` changes what a network computes."""
    return any(isinstance(module, ScaleFusion) for module in network.modules())


def check_scale(network: Network, scale: int | None, name: str) -> None:
    """Raise a ZooError if ``scale`` is given and is not the network's scale."""
    if scale is not None and network.scale != scale:
        raise ZooError(f"-s {scale}: the scale of {name} is {network.scale}")


def _named_network(
    model: str, weights: Path | None, random_weights: bool, overrides: dict[str, Any]
) -> Network:
    if random_weights and (weights is not None or model in shipped_weights()):
        logger.warning("--random-weights has no effect: there are weights, and they are loaded")
    if Path(model).suffix.lower() in SUFFIXES and Path(model).is_file():
        raise ZooError(f"-n {model}: it is a file of weights; name it with -w")
    if weights is not None:
        return load(weights, recipe=model, **overrides)
    if model in shipped_weights():
        return load(model, **overrides)
    network = build(model, **overrides)  # first, so that an unknown model is an error in any case
    if random_weights:
        logger.warning("%s has random weights, so its output is meaningless", model)
        return network
    raise ZooError(
        f"no weights ship for {model!r}: give a file with -w, or run it untrained with "
        f"--random-weights; models with weights: {', '.join(shipped_weights())}"
    )
