"""The network to export, its weights, and the metadata of an exported file."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from zoo.checkpoints import load, model_in, shipped_weights
from zoo.command import package_version
from zoo.errors import MisfitError, ZooError
from zoo.networks import Network
from zoo.recipe import build
from zoo.registry import capabilities_of

if TYPE_CHECKING:
    from onnx import ModelProto

logger = logging.getLogger(__name__)

RANDOM = "random"


@dataclass(frozen=True)
class Source:
    """A network and the origin of its weights: a file name, "shipped" or "random"."""

    network: Network
    weights: str


def network_of(model: str, weights: Path | None) -> Source:
    """Build the network that a command names.

    Args:
        model: name of a published model, or a recipe file.
        weights: a weights file; None for the weights that ship with the package. If none ship, the
            weights are random, with a warning.

    Raises:
        RecipeError: if the model is unknown.
        CheckpointError: if the weights cannot be read or do not fit.
    """
    if weights is not None:
        try:
            return Source(load(weights, recipe=model), weights.name)
        except MisfitError as error:
            raise MisfitError(_fix(error, model, weights)) from error
    if model in shipped_weights():
        return Source(load(model), "shipped")
    network = build(model).eval()
    logger.warning(
        "WARNING: no weights ship for %s and none were given with -w: the file gets RANDOM weights "
        "and is only good for tests",
        model,
    )
    return Source(network, RANDOM)


def _fix(error: MisfitError, model: str, weights: Path) -> str:
    """Say which model the weights are for, if the file names it, or else what does not fit."""
    held = model_in(weights) or model
    if held == model:
        return f"{error}; give weights of {model} with -w"
    return (
        f"{weights} contains weights of {held}, which do not fit {model}: "
        f"export {held} with -n, or give weights of {model} with -w"
    )


def facts_of(network: Network, weights: str) -> dict[str, str]:
    """The metadata that an exported file stores about its network, as text by name."""
    recipe = network.recipe
    colours = {1: "gray", 3: "rgb", 4: "planes R, Gr, Gb, B"}
    facts = {
        "zoo_version": package_version(),
        "torch_version": torch.__version__,
        "model": "custom" if recipe is None else recipe.name,
        "input": "burst" if network.takes_burst else "image",
        "scale": str(network.scale),
        "channels": str(network.channels),
        "out_channels": str(network.out_channels),
        "colour": colours.get(network.channels, f"{network.channels} channels"),
        "range": "0..1",
        "size_multiple": str(capabilities_of(network).size_multiple),
        "size_rule": "any height and width from 1 pixel; multiples of size_multiple are not padded",
        "weights": weights,
        "weights_sha256": _hash(network),
    }
    if network.takes_burst:
        facts["frames"] = str(network.burst)
    if network.guides:
        facts["guides"] = json.dumps(
            {name: [guide.channels, guide.scale] for name, guide in network.guides.items()}
        )
    if recipe is not None:
        facts["recipe"] = json.dumps(recipe.data())
    return facts


def facts_in(model: ModelProto) -> dict[str, str]:
    """Read the metadata of a graph: see :func:`facts_of`, plus shape, precision and opset."""
    return {entry.key: entry.value for entry in model.metadata_props}


def check_no_guides(guides: Iterable[str], what: str) -> None:
    """Raise an error where networks with guides are not supported.

    Args:
        guides: names of the network's guides.
        what: what takes no guides, for the error message.

    Raises:
        ZooError: if there is a guide.
    """
    for name in guides:
        raise ZooError(
            f"{what}: not for a network with guides, such as {name}; zoo export onnx writes an "
            "input for each"
        )


def _hash(network: Network) -> str:
    """SHA-256 of names and values of all weights, before any rounding."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.cpu().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
