"""Saving networks in our format and in the authors', and converting files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.blocks.scan_core import ScanCore
from zoo.checkpoints.as_published import network_of_our_names
from zoo.checkpoints.embedded import embedded
from zoo.checkpoints.files import SUFFIX, write_pickled, write_safetensors
from zoo.checkpoints.keymap import SameNameError
from zoo.checkpoints.loading import load
from zoo.checkpoints.releases import OFFICIAL, key_map_of, rules_of_parts
from zoo.checkpoints.source import Source
from zoo.checkpoints.trainers import State, joined
from zoo.checkpoints.unheld import check_held, computes_the_same, told_of
from zoo.command import package_version
from zoo.errors import CheckpointError
from zoo.files import is_same_file
from zoo.key_rules import Keys, checked_rules
from zoo.networks import Network

logger = logging.getLogger(__name__)


def save(network: nn.Module, path: str | Path, **metadata: str) -> None:
    """Write a network's weights and recipe as safetensors; the file appears whole or not at all.

    The recipe is in the metadata. If the tensors alone would be taken for another network, it is
    also one of the tensors, ``zoo.recipe``, because some tools read nothing but tensors.

    Args:
        network: a network that was built from a recipe; it may be wrapped by ``torch.compile`` or
            for several GPUs.
        path: file to write, ``.safetensors``.
        metadata: further metadata to store, such as ``step="20000"``.

    Raises:
        CheckpointError: if the network has no recipe, its tensors have other names than usual, or
            the suffix is not ``.safetensors``.
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
    if any(module.is_linear for module in network.modules() if isinstance(module, ScanCore)):
        raise CheckpointError(
            f"{path}: linear_projections has changed the names of the tensors, so the file could "
            "not be loaded; save the network before, or its state_dict yourself"
        )
    recipe = json.dumps(network.recipe.data())
    state = _state_of(network)
    if not _tensors_tell(network, state):
        state |= embedded(recipe)
    facts = {
        "format": "zoo",
        "recipe": recipe,
        "zoo_version": package_version(),
        "torch_version": torch.__version__,
    }
    write_safetensors(path, state, {**facts, **metadata})


def _tensors_tell(network: Network, state: State) -> bool:
    """Whether the network that the tensors show, as published, computes the same."""
    shown = network_of_our_names(state)
    return shown is not None and computes_the_same(network, shown)


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
                try:
                    check_held(network, release, state)
                except CheckpointError as error:
                    raise CheckpointError(
                        f"{path}: {error}; save it as .safetensors instead"
                    ) from error
            write_pickled(Path(path), {release.wrapper: state} if release.wrapper else state)
            _tell_options(network, path)
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
        CheckpointError: if the source cannot be loaded, its network does not exist in the target
            format, or the target would replace the source.
        WriteError: if the target cannot be written.
    """
    target = Path(target)
    if target.suffix.lower() not in (SUFFIX, ".pth"):
        raise CheckpointError(
            f"{target}: the suffix must be .safetensors (our format) or .pth (the authors' format)"
        )
    if isinstance(source, (str, Path)) and is_same_file(Path(source), target):
        raise CheckpointError(
            f"{target}: the output would replace the input, which may hold more than the network; "
            "choose another name"
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


def _tell_options(network: Network, path: str | Path) -> None:
    """Log the options that the authors' code has, too, but that its files do not hold."""
    for option, value in told_of(network).items():
        name = option.rpartition(".")[2]
        logger.warning(
            "%s does not hold %s %r: it is loaded without it unless you give %s=%s",
            *(path, name, value, option, value),
        )
