"""What the authors' files cannot hold: settings that change the output and show in no tensor.

The authors' code has its own values for them. So the network that would be read from a file is
built without tensors, and compared with the one that is saved, module by module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.blocks import CrossScaleMixer, DropPath, Router, WindowAttention
from zoo.checkpoints.releases import OfficialFormat
from zoo.checkpoints.trainers import bare_name, named_modules
from zoo.errors import CheckpointError, ZooError, shown
from zoo.networks import Extension, Network
from zoo.networks.contract import Normalise
from zoo.recipe import build
from zoo.scans import ScanOrder

_PLAIN = (bool, int, float, str, tuple, ScanOrder, type(None))
_OPTIONS = ((CrossScaleMixer, "compat"), (Router, "routing"), (Normalise, "img_range"))
"""Attributes that the authors' code has, too, as options of its own."""
_LEFT_OUT = ((nn.Module, "training"), (WindowAttention, "alternates"), *_OPTIONS)
"""Attributes that change no output, and those options."""


def check_held(network: Network, release: OfficialFormat, state: Mapping[str, Tensor]) -> None:
    """Raise an error if the network that is read from an authors' file computes something else.

    Args:
        network: the network that is saved.
        release: the release.
        state: its tensors by the authors' names, as they are written.

    Raises:
        CheckpointError: if it does; the message is the second half of a sentence.
    """
    _compare(network, _network_read(network, release, state), release.name)


def computes_the_same(network: Network, other: Network) -> bool:
    """Whether two networks have the same modules with the same settings."""
    try:
        _compare(network, other, "")
    except CheckpointError:
        return False
    modules = dict(named_modules(other))
    return all(
        vars(module)[option] == vars(modules[place])[option]
        for place, module in named_modules(network)
        for kind, option in _OPTIONS
        if isinstance(module, kind)
    )


def _compare(network: Network, theirs: Network, name: str) -> None:
    """Raise an error if a network computes something else than that of a release."""
    ours_by_place, theirs_by_place = _settings(network), _settings(theirs)
    for place, their in theirs_by_place.items():
        ours = ours_by_place.get(place, their)
        if ours == their:
            continue
        if isinstance(their, ScanOrder) and isinstance(ours, ScanOrder):
            what = place.removesuffix(".scan")
            raise CheckpointError(
                f"{what} scans {ours}, but the authors' {name} would scan {their}"
            )
        raise CheckpointError(
            f"{place} is {shown(ours)}, but the authors' {name} has {shown(their)}"
        )
    own, held = (_places(one) for one in (network, theirs))
    for place in {**own, **held}:
        if (place in own) != (place in held):
            which = "has no" if place in own else "also has"
            raise CheckpointError(f"the authors' {name} {which} {place}")
        if own[place] != held[place]:
            raise CheckpointError(
                f"{place} is {own[place]}, but {held[place]} in the authors' {name}"
            )


def walks_of(network: Network) -> dict[str, ScanOrder]:
    """Return the scan order of each mixer, by its place."""
    found = {name: vars(module).get("scan") for name, module in named_modules(network)}
    return {name: scan for name, scan in found.items() if isinstance(scan, ScanOrder)}


def told_of(network: Network) -> dict[str, Any]:
    """Return the options that a user must give again when an authors' file is read."""
    found: dict[str, Any] = {}
    for module in network.modules():
        if isinstance(module, Router) and module.routing == "sample":
            found["block.mixer.routing"] = "sample"
        if isinstance(module, Normalise) and module.img_range != 1:
            found["img_range"] = module.img_range
    return found


def _network_read(
    network: Network, release: OfficialFormat, state: Mapping[str, Tensor]
) -> Network:
    """Build the network that a file with these tensors is read as, without tensors."""
    try:
        described = release.network(state, release.facts_of(walks_of(network)))
        with torch.device("meta"):
            return build({"name": release.name, "network": described})
    except (ArithmeticError, LookupError, ValueError, ZooError) as error:
        raise CheckpointError(f"the authors' {release.name} does not have this network") from error


def _settings(network: Network) -> dict[str, Any]:
    """Return the plain attributes of all modules and the extension of images, by their place."""
    found: dict[str, Any] = {"out_channels": network.out_channels}
    for name, module in named_modules(network):
        if isinstance(module, DropPath):  # for training only
            continue
        extensions = [value for value in vars(module).values() if isinstance(value, Extension)]
        found |= {f"{name}.padding".lstrip("."): str(extension) for extension in extensions}
        found |= {
            f"{name}.{key}".lstrip("."): value
            for key, value in vars(module).items()
            if isinstance(value, _PLAIN)
            and not key.startswith("_")
            and not any(isinstance(module, kind) and key == left for kind, left in _LEFT_OUT)
        }
    return found


def _places(network: Network) -> dict[str, str]:
    """Return the shape of each tensor and the class of each module, by their place."""
    found = {
        bare_name(place): f"of shape {tuple(value.shape)}"
        for place, value in network.state_dict().items()
    }
    modules = dict(named_modules(network))
    return found | {
        place: f"of class {type(module).__name__}"
        for place, module in modules.items()
        if place and not isinstance(module, DropPath)
    }
