"""Weights as a user gives them, and the tensors of a network in them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from zoo.checkpoints.embedded import without_recipe
from zoo.checkpoints.evidence import SIMILAR
from zoo.checkpoints.files import checked_state, read_state
from zoo.checkpoints.hub import check_no_web_address, fetched, is_address
from zoo.checkpoints.releases import OFFICIAL, OfficialFormat, key_map_of, release_of
from zoo.checkpoints.trainers import Found, State, network_in, without_usual_names
from zoo.errors import CheckpointError, shown
from zoo.key_rules import Rule
from zoo.networks import Network
from zoo.shipped import located

logger = logging.getLogger(__name__)

Source: TypeAlias = str | Path | Mapping[str, Any]
"""Weights: the name of a model whose weights ship, a file, here or on the Hub, or a state dict."""


@dataclass(frozen=True)
class Weights:
    """Weights as they are in a file, or were passed in place of one.

    Attributes:
        what: name of the file, for error messages.
        title: name of a model that has these weights.
        tensors: the tensors by their joined names.
        metadata: metadata of the file.
    """

    what: str
    title: str
    tensors: State
    metadata: Mapping[str, str]

    @property
    def is_ours(self) -> bool:
        """Whether the file is in our format, so that nothing in it needs to be found."""
        return self.metadata.get("format") == "zoo"

    @cached_property
    def official(self) -> tuple[Found, OfficialFormat] | None:
        """The tensors that a release recognises, and the release; None if there are none."""
        if self.is_ours:
            return None
        found = network_in(self.tensors, lambda state: release_of(state) is not None, self.what)
        release = found and release_of(found.state)
        return (found, release) if found and release else None


def opened(source: Source) -> Weights:
    """Read weights.

    Raises:
        CheckpointError: if the source is of another type, is unknown or cannot be read.
    """
    if isinstance(source, Mapping):
        what = "the state dict"
        return _weights(what, "custom", checked_state(source, what), {})
    if not isinstance(source, (str, Path)):
        raise CheckpointError(
            f"weights are the name of a model, a path or a state dict, not {type(source).__name__}"
        )
    check_no_web_address(source)
    if not is_address(source):
        path = located(source)
        return _weights(str(path), path.stem, *read_state(path))
    path, what = fetched(source), str(source)
    try:
        return _weights(what, path.stem, *read_state(path))
    except CheckpointError as error:  # it names the file in the cache, which the user did not name
        raise CheckpointError(str(error).replace(str(path), what)) from error


def _weights(what: str, title: str, state: State, metadata: Mapping[str, str]) -> Weights:
    """Return weights whose recipe, if it is one of the tensors, is in the metadata."""
    tensors, recipe = without_recipe(state, what)
    if recipe is not None and "recipe" not in metadata:
        metadata = {**metadata, "format": "zoo", "recipe": recipe}
    return Weights(what, title, tensors, metadata)


def tensors_of(
    network: nn.Module, weights: Weights, rules: Sequence[Rule] = ()
) -> tuple[Found, OfficialFormat | None]:
    """Find the tensors of a network, and the release whose names they have, if any.

    Args:
        network: the network; only our names are looked for if it is none of this package.
        weights: the weights.
        rules: key rules that come before those of the release.

    Raises:
        CheckpointError: if the network is there twice.
    """
    if weights.is_ours:
        return Found(weights.tensors), None
    if weights.official is not None:
        return weights.official
    own = network.state_dict()
    found = network_in(weights.tensors, _most_of(own.keys()), weights.what)
    if found is not None:
        return found, None
    if isinstance(network, Network):
        by_release = _under_names_of_releases(network, weights, rules)
        if by_release:
            # Releases share many names, so the one with the most of them is meant.
            _, found, release = max(by_release, key=lambda item: item[0])
            return found, release
    return Found(without_usual_names(weights.tensors)), None


def _under_names_of_releases(
    network: Network, weights: Weights, rules: Sequence[Rule]
) -> list[tuple[int, Found, OfficialFormat]]:
    """Return where a network is under the names of each release, with the number of known names."""
    by_release = []
    for release in OFFICIAL:
        key_map = key_map_of(release, network, rules)
        theirs = {key_map.to_theirs(name) or name for name in network.state_dict()}
        found = network_in(weights.tensors, _most_of(theirs), weights.what)
        if found is not None:
            by_release.append((len(theirs & found.state.keys()), found, release))
    return by_release


def _most_of(names: Set[str]) -> Callable[[State], bool]:
    """Return a function that says whether tensors have most of these names."""
    return lambda state: len(names & state.keys()) > SIMILAR * len(names)


def tell_choice(what: str, found: Found) -> None:
    """Log which weights were taken if there was a choice, and what there is to say of averages."""
    for note in found.notes:
        logger.info("%s: %s", what, note)
    if not (found.averaged or found.others):
        return
    kind = "the moving average of the weights" if found.averaged else "the weights"
    place = f" below {shown(found.place.rstrip('.'))}" if found.place else ""
    others = ", ".join(shown(other.rstrip(".")) for other in found.others[:3])
    logger.info(
        "%s: used %s%s%s", what, kind, place, f", not those below {others}" if others else ""
    )
