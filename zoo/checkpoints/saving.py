"""Saving networks in our format and in the authors', and converting files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.blocks import SS2D, Attentive, CrossScaleMixer, HeadScan, Router, WindowAttention
from zoo.checkpoints.files import SUFFIX, write_pickled, write_safetensors
from zoo.checkpoints.keymap import SameNameError
from zoo.checkpoints.loading import load
from zoo.checkpoints.releases import OFFICIAL, OfficialFormat, key_map_of, rules_of_parts
from zoo.checkpoints.source import Source
from zoo.checkpoints.trainers import State, joined, named_modules
from zoo.command import package_version
from zoo.errors import CheckpointError
from zoo.key_rules import Keys, checked_rules
from zoo.networks import Network, SingleImage
from zoo.recipe import build
from zoo.scans import ScanOrder

logger = logging.getLogger(__name__)


def save(network: nn.Module, path: str | Path, **metadata: str) -> None:
    """Write a network's weights and recipe as safetensors; the file appears whole or not at all.

    Args:
        network: a network that was built from a recipe; it may be wrapped by ``torch.compile`` or
            for several GPUs.
        path: file to write, ``.safetensors``.
        metadata: further metadata to store, such as ``step="20000"``.

    Raises:
        CheckpointError: if the network has no recipe, or the suffix is not ``.safetensors``.
        WriteError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise CheckpointError(f"{path}: the suffix must be {SUFFIX}")
    network = unwrapped(network)
    if network.recipe is None:
        raise CheckpointError(
            f"{type(network).__name__} was not built from a recipe, so its file could not describe "
            "it; build it with zoo.build, or save its state_dict yourself"
        )
    facts = {
        "format": "zoo",
        "recipe": json.dumps(network.recipe.data()),
        "zoo_version": package_version(),
        "torch_version": torch.__version__,
    }
    write_safetensors(path, _state_of(network), {**facts, **metadata})


def save_official(network: nn.Module, path: str | Path, keys: Keys = ()) -> None:
    """Write a network's weights in the authors' format.

    Args:
        network: a network that the authors' code has too; it may be wrapped, as for :func:`save`.
        path: file to write, ``.pth``.
        keys: names of the tensors of parts of your own, as for :func:`load`. That the authors' code
            computes the same is not checked then, nor if a part has registered key rules.

    Raises:
        CheckpointError: if the authors' code does not have this network or its scan orders, or if
            the key rules give two tensors one name.
        RecipeError: if a key rule is wrong.
        WriteError: if the file cannot be written.
    """
    rules = checked_rules(keys, "keys")
    network = unwrapped(network)
    own = bool(rules) or bool(rules_of_parts(network, ()))
    fault = "the authors' code does not have this network; save it as .safetensors instead"
    for release in OFFICIAL if network.recipe is not None else ():
        try:
            state = key_map_of(release, network, rules).state_to_theirs(_state_of(network))
        except SameNameError as error:
            fault = f"{error}; give each tensor a name of its own" if own else fault
            continue
        if state is not None and (own or release.recognises(state)):
            if not own:
                _check_walks(network, release, state, path)
            write_pickled(Path(path), {release.wrapper: state} if release.wrapper else state)
            _tell_routing(network, path)
            return
    raise CheckpointError(f"{path}: {fault}")


def convert(source: Source, target: str | Path, *, keys: Keys = (), **overrides: Any) -> Network:
    """Convert a weights file to our format (``.safetensors``) or to the authors' (``.pth``).

    Args:
        source: weights to read, as for :func:`load`.
        target: file to write; its suffix selects the format.
        keys: names of the tensors of parts of your own, as for :func:`load`.
        overrides: ``recipe`` and options of the network, as for :func:`load`.

    Returns:
        The network that was read.

    Raises:
        CheckpointError: if the source cannot be loaded, or its network does not exist in the target
            format.
        WriteError: if the target cannot be written.
    """
    target = Path(target)
    if target.suffix.lower() not in (SUFFIX, ".pth"):
        raise CheckpointError(
            f"{target}: the suffix must be .safetensors (our format) or .pth (the authors' format)"
        )
    network = load(source, keys=keys, **overrides)
    if target.suffix.lower() == ".pth":
        save_official(network, target, keys)
    else:
        save(network, target)
    return network


def unwrapped(network: nn.Module) -> Network:
    """Return the network that ``torch.compile``, DDP or an averaged model holds."""
    inner: Any = network
    while isinstance(inner, nn.Module) and not isinstance(inner, Network):
        inner = getattr(inner, "_orig_mod", getattr(inner, "module", None))
    if not isinstance(inner, Network):
        raise CheckpointError(f"{type(network).__name__} is no network of this package")
    return inner


def _state_of(network: Network) -> State:
    """Return the tensors of a network, without the names of compiled modules in it."""
    return joined(network.state_dict(), type(network).__name__)


def _check_walks(
    network: Network, release: OfficialFormat, state: Mapping[str, Tensor], path: str | Path
) -> None:
    """Raise a CheckpointError if the authors' code would compute something else.

    The tensors do not show scan orders and some other settings, so the authors' code would silently
    use its own.
    """
    walks = _walks(network)
    with torch.device("meta"):
        theirs = build({"network": release.network(state, release.facts_of(walks))})
    for place, their in _walks(theirs).items():
        ours = walks.get(place, "something else")
        if ours != their:
            raise CheckpointError(
                f"{path}: {place} scans {ours}, but the authors' {release.name} would scan "
                f"{their}; save it as .safetensors instead"
            )
    settings = _hidden_settings(network)
    for place, their in _hidden_settings(theirs).items():
        if settings.get(place) != their:
            raise CheckpointError(
                f"{path}: {place} is {settings.get(place)!r}, but the authors' {release.name} has "
                f"{their!r}; save it as .safetensors instead"
            )


def _tell_routing(network: Network, path: str | Path) -> None:
    """Log that an authors' file does not hold ``routing: sample``."""
    if any(isinstance(m, Router) and m.routing == "sample" for m in network.modules()):
        logger.warning(
            "%s does not hold routing 'sample': the authors' code always samples, but here the "
            "file is loaded with 'argmax' unless you give block.mixer.routing=sample",
            path,
        )


def _walks(network: Network) -> dict[str, ScanOrder]:
    mixers = (SS2D, CrossScaleMixer, HeadScan, Attentive)
    return {name: m.scan for name, m in named_modules(network) if isinstance(m, mixers)}


_HIDDEN = ((Attentive, "prompt"), (WindowAttention, "shift"), (SingleImage, "padding"))
"""Settings that change the output and that the tensors do not show."""


def _hidden_settings(network: Network) -> dict[str, Any]:
    return {
        f"{name}.{setting}".lstrip("."): getattr(module, setting)
        for name, module in named_modules(network)
        for kind, setting in _HIDDEN
        if isinstance(module, kind)
    }
