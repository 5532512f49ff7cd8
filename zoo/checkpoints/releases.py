"""The official releases, and the key maps between their names and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from zoo.checkpoints.dvmsr import DVMSRFormat
from zoo.checkpoints.eamamba import EAMambaFormat
from zoo.checkpoints.keymap import KeyMap, Rule
from zoo.checkpoints.mair import MaIRFormat
from zoo.checkpoints.mambacsr import MambaCSRFormat
from zoo.checkpoints.mambair import MambaIRFormat, MambaIRUNetFormat
from zoo.checkpoints.mambairv2 import MambaIRv2Format
from zoo.checkpoints.vmambair import VmambaIRFormat
from zoo.checkpoints.wavemamba import WaveMambaFormat
from zoo.scans import ScanOrder

Keys: TypeAlias = Sequence[tuple[str, str]]
"""Pairs of the authors' name and our name of a tensor."""


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
    WaveMambaFormat(),
    DVMSRFormat(),
)


def key_map_of(release: OfficialFormat, described: Mapping[str, Any], keys: Keys) -> KeyMap:
    """Return the key map of a release for a ``network`` section, with rules that come first."""
    key_map = release.key_map(described)
    return key_map.preceded_by(Rule(*pair) for pair in keys) if keys else key_map
