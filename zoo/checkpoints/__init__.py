"""Weights in and out: our own files, the authors' releases, and the way between them.

Our format is safetensors with the recipe in its metadata, so that a file says what it is. The
authors' state dicts are recognised by their keys; a release is one key map in its own module.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.blocks import SS2D, CrossScaleMixer
from zoo.checkpoints.files import read_state, write_pickled, write_safetensors
from zoo.checkpoints.keymap import KeyMap, fit
from zoo.checkpoints.mambacsr import MambaCSRFormat
from zoo.checkpoints.mambair import MambaIRFormat, MambaIRUNetFormat
from zoo.command import package_version
from zoo.errors import CheckpointError, nearest
from zoo.networks import Network
from zoo.recipe import Recipe, build, list_models
from zoo.scans import ScanOrder

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
"""Folder of the weights that ship with the package."""


class OfficialFormat(Protocol):
    """One official release: how to tell it, what network it is, and its names."""

    name: str
    wrapper: str
    facts: tuple[str, ...]
    """Names of what its tensors do not tell and ``network`` is told."""

    def recognises(self, state: Mapping[str, Tensor]) -> bool: ...

    def network(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]: ...

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]: ...

    def key_map(self, network: Mapping[str, Any]) -> KeyMap: ...


OFFICIAL: tuple[OfficialFormat, ...] = (MambaIRFormat(), MambaIRUNetFormat(), MambaCSRFormat())


def shipped_weights() -> list[str]:
    """Names of the models whose weights ship with the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def load(
    source: str | Path,
    *,
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    **overrides: Any,
) -> Network:
    """Build a network and load its weights.

    Args:
        source: a model whose weights ship with the package, or a file: ours (``.safetensors``),
            or a state dict of the authors (``.pth``), recognised by its keys.
        recipe: the recipe to build, where the file's own or the recognised one is not wanted.
        overrides: options of the network by dotted path, as for :func:`zoo.build`; of an authors'
            MambaCSR file without ``recipe`` also ``scan_size``, which its tensors do not tell.

    Returns:
        The network in evaluation mode, float32, on the CPU.

    Raises:
        CheckpointError: if the file cannot be read, is not recognised, or does not fit.
        RecipeError: if the recipe or an override is wrong.
    """
    path = _locate(source)
    state, metadata = read_state(path)
    release = next((f for f in OFFICIAL if f.recognises(state)), None)
    if recipe is None:
        told = release.facts if release else ()
        facts = {name: overrides.pop(name) for name in told if name in overrides}
        recipe = _recipe_of(path, state, metadata, release, facts)
    network = build(recipe, **overrides)
    if release is not None:
        state = _to_ours(state, release.key_map(network.recipe.network))
    load_state(network, state, str(path))
    return network.eval()


def load_state(network: Network, state: Mapping[str, Tensor], what: str) -> None:
    """Copy a state dict with our names into a network, strictly.

    Args:
        network: where to.
        state: tensors by our names.
        what: what the state is, for messages.

    Raises:
        CheckpointError: listing missing, unexpected and misshapen keys.
    """
    network.load_state_dict(fit(state, network.state_dict(), what))


def save(network: Network, path: str | Path, **metadata: str) -> None:
    """Write a network's weights and recipe as safetensors; the file appears whole or not at all.

    Args:
        network: a network that a recipe built.
        path: file to write, ``.safetensors``.
        metadata: more facts to store, such as ``step="20000"``.

    Raises:
        CheckpointError: if the network has no recipe or the suffix is another.
        WriteError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: weights are saved as .safetensors; change the suffix")
    if network.recipe is None:
        raise CheckpointError(
            f"{type(network).__name__} was not built from a recipe, so its file could not say what "
            "it is; build it with zoo.build, or save its state_dict yourself"
        )
    facts = {
        "format": "zoo",
        "recipe": json.dumps(network.recipe.data()),
        "zoo_version": package_version(),
        "torch_version": torch.__version__,
    }
    write_safetensors(path, network.state_dict(), {**facts, **metadata})


def save_official(network: Network, path: str | Path) -> None:
    """Write a network's weights as the authors' code reads them.

    Raises:
        CheckpointError: if the network is none of the authors', or walks its tokens as theirs
            cannot.
        WriteError: if the file cannot be written.
    """
    if network.recipe is not None:
        described = network.recipe.network
        for release in OFFICIAL:
            state = _to_theirs(network.state_dict(), release.key_map(described))
            if state is not None and release.recognises(state):
                _check_walks(network, release, state, path)
                write_pickled(Path(path), {release.wrapper: state})
                return
    raise CheckpointError(
        f"{path}: no official code has this network; save it as .safetensors instead"
    )


def convert(source: str | Path, target: str | Path, **overrides: Any) -> Network:
    """Read weights of either format and write the other: ``.safetensors`` ours, ``.pth`` theirs.

    Args:
        source: file to read.
        target: file to write.
        overrides: ``recipe`` and options of the network, as for :func:`load`.

    Returns:
        The network that was read.

    Raises:
        CheckpointError: if the source cannot be loaded or has no such format.
        WriteError: if the target cannot be written.
    """
    target = Path(target)
    if target.suffix not in (".safetensors", ".pth"):
        raise CheckpointError(
            f"{target}: the suffix says the format: .safetensors for ours, .pth for the authors'"
        )
    network = load(source, **overrides)
    if target.suffix == ".pth":
        save_official(network, target)
    else:
        save(network, target)
    return network


def _locate(source: str | Path) -> Path:
    path = Path(source)
    name = str(source)
    if path.suffix or path.is_file():
        return path
    if name in shipped_weights():
        return WEIGHTS / f"{name}.safetensors"
    if name in list_models():
        raise CheckpointError(
            f"no weights ship for {name!r}: pass a file of weights, or zoo.build({name!r}) for a "
            f"randomly initialised network; shipped: {', '.join(shipped_weights()) or 'none'}"
        )
    raise CheckpointError(f"unknown model or file {name!r}{nearest(name, list_models())}")


def _recipe_of(
    path: Path,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    release: OfficialFormat | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    if metadata.get("format") == "zoo":
        try:
            data = json.loads(metadata["recipe"])
        except (KeyError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{path}: its recipe is damaged; pass recipe=...") from error
        if not isinstance(data, dict):
            raise CheckpointError(f"{path}: its recipe is damaged; pass recipe=...")
        return data
    if release is None:
        known = ", ".join(f.name for f in OFFICIAL)
        raise CheckpointError(
            f"{path}: these weights are not recognised (first key {next(iter(state), 'none')!r}); "
            f"known are our own files and the authors' {known}: pass recipe=... for others"
        )
    try:
        network = release.network(state, facts)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyError, StopIteration, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{path}: looks like {release.name} but lacks the key {error}; "
            "the file may be incomplete"
        ) from error
    logger.info("%s recognised as %s; assumed img_range=1, as published", path.name, release.name)
    return {"name": path.stem, "network": network}


def _check_walks(
    network: Network, release: OfficialFormat, state: Mapping[str, Tensor], path: str | Path
) -> None:
    """Tensors do not tell the scan orders: the authors' code would walk its own, unasked."""
    walks = _walks(network)
    with torch.device("meta"):
        theirs = _walks(build({"network": release.network(state, release.facts_of(walks))}))
    for place, their in theirs.items():
        ours = walks.get(place, "in a way of its own")
        if ours != their:
            raise CheckpointError(
                f"{path}: {place} walks {ours}, where the authors' {release.name} would walk "
                f"{their}; save it as .safetensors instead"
            )


def _walks(network: Network) -> dict[str, ScanOrder]:
    mixers = (SS2D, CrossScaleMixer)
    return {name: m.scan for name, m in network.named_modules() if isinstance(m, mixers)}


def _to_ours(state: Mapping[str, Tensor], keys: KeyMap) -> dict[str, Tensor]:
    # A key without a name of ours keeps its own, so that it is listed as unexpected.
    return {keys.to_ours(key) or key: value for key, value in state.items()}


def _to_theirs(state: Mapping[str, Tensor], keys: KeyMap) -> dict[str, Tensor] | None:
    renamed = {}
    for key, value in state.items():
        theirs = keys.to_theirs(key)
        if theirs is None:
            return None
        flat = theirs.endswith((".A_logs", ".Ds"))
        renamed[theirs] = value.flatten(0, 1).clone() if flat else value
    return renamed


__all__ = [
    "OFFICIAL",
    "convert",
    "load",
    "load_state",
    "save",
    "save_official",
    "shipped_weights",
]
