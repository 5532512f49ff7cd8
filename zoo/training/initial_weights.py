"""Fine-tuning: start from weights of another training, also where not all of them fit."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor

from zoo.checkpoints import load
from zoo.checkpoints.files import read_state
from zoo.errors import CheckpointError
from zoo.networks import Network

logger = logging.getLogger("zoo.train")


def load_initial_weights(network: Network, source: str) -> None:
    """Copy the weights that fit by name and shape, and log those that do not.

    Args:
        network: where to.
        source: a file of ours or of the authors, or a model whose weights ship; of another scale
            or task, as long as most of it fits.

    Raises:
        CheckpointError: if it cannot be read, or if nothing fits.
    """
    if Path(source).suffix and not Path(source).is_file():
        raise CheckpointError(
            f"train.initial: {source} does not exist; train that model first, or give "
            "initial=null to start from random weights"
        )
    given = _state(source)
    own = network.state_dict()
    fitting = {
        key: value for key, value in given.items() if key in own and own[key].shape == value.shape
    }
    if not fitting:
        raise CheckpointError(
            f"train.initial: nothing of {source} fits the network; it is of another family"
        )
    network.load_state_dict(fitting, strict=False)
    left = sorted(set(own) - set(fitting))
    logger.info("started from %s: %d of %d tensors fit", source, len(fitting), len(own))
    if left:
        logger.info("random as before: %s%s", ", ".join(left[:8]), ", ..." if left[8:] else "")


def _state(source: str) -> dict[str, Tensor]:
    try:
        return dict(load(source).state_dict())
    except CheckpointError:
        # Weights whose network is not known by itself can still fit by name.
        if Path(source).is_file():
            return dict(read_state(Path(source))[0])
        raise
