"""The official releases, and the key maps between their names and ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor

from zoo.checkpoints.dvmsr import DVMSRFormat
from zoo.checkpoints.eamamba import EAMambaFormat, EAMambaSRFormat
from zoo.checkpoints.keymap import KeyMap, chained, pattern_of
from zoo.checkpoints.mair import MaIRFormat
from zoo.checkpoints.mambacsr import MambaCSRFormat
from zoo.checkpoints.mambair import MambaIRFormat, MambaIRUNetFormat
from zoo.checkpoints.mambairv2 import MambaIRv2Format
from zoo.checkpoints.trainers import named_modules
from zoo.checkpoints.vmambair import VmambaIRFormat
from zoo.checkpoints.wavemamba import WaveMambaFormat
from zoo.key_rules import Rule
from zoo.networks import Network
from zoo.registry import nearest_entry
from zoo.scans import ScanOrder


class OfficialFormat(Protocol):
    """One official release: recognises its files, describes its network, and maps its keys."""

    name: str
    wrapper: str
    """Key under which a file holds the tensors; empty if the file holds nothing else."""
    published: str
    """Name of a published recipe of the release."""
    every_key: KeyMap
    """Key map of all variants of the network."""
    facts: tuple[str, ...]
    """Names of the settings that ``network`` needs and the tensors do not show."""

    def recognises(self, state: Mapping[str, Tensor]) -> bool: ...

    def network(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]: ...

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]: ...

    def key_map(self, network: Mapping[str, Any]) -> KeyMap: ...


OFFICIAL: tuple[OfficialFormat, ...] = (
    MambaIRFormat(),
    MambaIRUNetFormat(),
    MambaIRv2Format(),
    MambaCSRFormat(),
    MaIRFormat(),
    VmambaIRFormat(),
    EAMambaFormat(),
    EAMambaSRFormat(),
    WaveMambaFormat(),
    DVMSRFormat(),
)


def release_of(state: Mapping[str, Tensor]) -> OfficialFormat | None:
    """Return the release that a state dict is recognised as, or None."""
    return next((release for release in OFFICIAL if release.recognises(state)), None)


def key_map_of(release: OfficialFormat, network: Network, keys: Iterable[Rule] = ()) -> KeyMap:
    """Return the key map between a release's names and those of a network.

    Args:
        release: the release; its rules come last.
        network: the network; the key rules of its parts come second.
        keys: rules that come first.
    """
    described = {} if network.recipe is None else network.recipe.network
    key_map = release.key_map(described)
    first = [*keys, *rules_of_parts(network, release.every_key.rows)]
    return key_map.preceded_by(first) if first else key_map


def rules_of_parts(network: Network, rows: Iterable[tuple[str, str]]) -> list[Rule]:
    """Return the key rules that are registered with the parts of a network, for each place.

    Args:
        network: the network.
        rows: starts of the names of blocks, as pairs (theirs, ours).
    """
    found = []
    patterns = [(pattern_of(ours), theirs) for theirs, ours in rows]
    registered: dict[type, tuple[Rule, ...]] = {}
    for place, module in named_modules(network):
        kind = type(module)
        if kind not in registered:
            entry = nearest_entry(kind)
            registered[kind] = () if entry is None else entry.keys
        if not registered[kind]:
            continue
        ours = f"{place}." if place else ""
        starts = ((pattern.match(ours), theirs) for pattern, theirs in patterns)
        block = next((theirs.format(**m.groupdict()) for m, theirs in starts if m), "")
        found += chained([(block, ours)], registered[kind])
    return found
