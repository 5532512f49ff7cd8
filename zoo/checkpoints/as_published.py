"""The recipe of tensors alone, where all that they do not show is as published.

Tensors show the sizes of a network, but neither its scan orders nor how it pads. Under the authors'
names these are nearly always the published ones; under our names, any order may have been trained.
So nothing is assumed here unless a caller asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from zoo.checkpoints.evidence import Evidence
from zoo.checkpoints.mair import most_alike
from zoo.checkpoints.mambairv2 import ALL_HEADS, BRANCHES
from zoo.checkpoints.releases import OFFICIAL, OfficialFormat
from zoo.errors import CheckpointError, ZooError
from zoo.networks import Network
from zoo.recipe import build

State = Mapping[str, Tensor]


def published_facts(release: OfficialFormat, state: State) -> dict[str, Any]:
    """Return the published values of the settings that the tensors of a release do not show.

    Args:
        release: the release.
        state: tensors by the authors' names.
    """
    if release.name == "MambaCSR":
        return {"scan_size": 8}
    if release.name == "MaIR":
        return {"scan_len": most_alike(state)[1]}
    return {}


def network_of_our_names(state: State) -> Network | None:
    """Return the network, without its tensors, that tensors by our names show; None if none does.

    Args:
        state: tensors by our names.
    """
    shapes = {key: value.shape for key, value in state.items()}
    for release, theirs in _under_official_names(state):
        try:
            network = release.network(Evidence(theirs), published_facts(release, theirs))
            with torch.device("meta"):
                built = build({"name": "custom", "network": network})
        except (ArithmeticError, LookupError, ValueError, ZooError):
            continue  # of another release, or of a part of the user's own
        if {key: value.shape for key, value in built.state_dict().items()} == shapes:
            return built
    return None


def _under_official_names(state: State) -> Iterator[tuple[OfficialFormat, State]]:
    """Yield each release that has all tensors, with the tensors by its names."""
    # A head that only adds comes before one that enlarges, here by 1: they have the same tensors.
    heads = sorted(ALL_HEADS, key=lambda head: head != "residual")
    seen = set()
    for release, head, branch in product(OFFICIAL, heads, BRANCHES):
        key_map = release.key_map({"head": {"type": head}, "block": {"branch": branch}})
        try:
            theirs = key_map.state_to_theirs(state)
        except CheckpointError:
            continue
        if theirs is None or (names := frozenset(theirs)) in seen:
            continue
        seen.add(names)
        if release.recognises(theirs):
            yield release, theirs
