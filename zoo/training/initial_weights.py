"""Fine-tuning: start from the weights of another training, even if only some of them match."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor

from zoo.checkpoints import load, state_for
from zoo.errors import CheckpointError
from zoo.networks import Network

logger = logging.getLogger("zoo.train")


def load_initial_weights(network: Network, source: str) -> None:
    """Copy the weights with matching name and shape, and log the other tensors of the network.

    Args:
        network: the network to load into.
        source: a weights file in our format or in the authors', or a model with weights in the
            package. It may have another scale or task.

    Raises:
        CheckpointError: if the source cannot be read, or no tensor matches.
    """
    if Path(source).suffix and not Path(source).is_file():
        raise CheckpointError(
            f"train.initial: {source} does not exist; train that model first, or give "
            "initial=null to start from random weights"
        )
    given = _state(network, source)
    own = network.state_dict()
    fitting = {
        key: value for key, value in given.items() if key in own and own[key].shape == value.shape
    }
    if not fitting:
        raise CheckpointError(
            f"train.initial: no tensor of {source} matches the network; it is another kind of model"
        )
    network.load_state_dict(fitting, strict=False)
    left = sorted(set(own) - set(fitting))
    logger.info("loaded %d of %d tensors from %s", len(fitting), len(own), source)
    if left:
        logger.info("left at random values: %s%s", ", ".join(left[:8]), ", ..." if left[8:] else "")


def _state(network: Network, source: str) -> dict[str, Tensor]:
    try:
        return dict(load(source).state_dict())
    except CheckpointError:
        # If the network of the weights is unknown, their names may still match.
        if Path(source).is_file():
            return state_for(network, source)
        raise
