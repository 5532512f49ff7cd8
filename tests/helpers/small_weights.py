"""A small network that an official release has too, and its weights under the authors' names."""

from __future__ import annotations

import torch
from torch import Tensor

import zoo
from zoo.checkpoints.releases import OFFICIAL, key_map_of
from zoo.networks import Network


def small_network(**options: object) -> Network:
    """A MambaIR of one block, x2."""
    narrow = {"block.mixer": {"d_state": 2}, "block.branch": {"compress": 2, "squeeze": 4}}
    return zoo.build("mambair_light_x2", **{"dim": 8, "depths": [1], **narrow, **options}).eval()


def their_names(network: Network) -> dict[str, Tensor]:
    """The tensors of a network under the names of the first release that has all of them."""
    for release in OFFICIAL:
        state = key_map_of(release, network).state_to_theirs(network.state_dict())
        if state is not None:
            return state
    raise AssertionError("no release has this network")


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with a prefix before their names."""
    return {prefix + key: tensor for key, tensor in state.items()}


def holds(network: Network, state: dict[str, Tensor]) -> bool:
    """Whether a network has the values of an authors' state dict."""
    found = their_names(network)
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)
