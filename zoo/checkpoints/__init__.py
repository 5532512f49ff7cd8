"""Loading, saving and converting weights, in our format and in the authors' formats.

Our format is safetensors with the recipe in the metadata, so a file describes itself. The authors'
state dicts are recognised by their keys; the key map of each release is in its own module.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.blocks import SS2D, CrossScaleMixer, HeadScan
from zoo.checkpoints.eamamba import EAMambaFormat
from zoo.checkpoints.evidence import Evidence, difference
from zoo.checkpoints.files import read_state, write_pickled, write_safetensors
from zoo.checkpoints.keymap import KeyMap, MissingKeyError, fit
from zoo.checkpoints.mair import MaIRFormat
from zoo.checkpoints.mambacsr import MambaCSRFormat
from zoo.checkpoints.mambair import MambaIRFormat, MambaIRUNetFormat
from zoo.checkpoints.vmambair import VmambaIRFormat
from zoo.checkpoints.wavemamba import WaveMambaFormat
from zoo.command import package_version
from zoo.errors import CheckpointError, MisfitError, RecipeError, nearest, shown
from zoo.networks import Network
from zoo.plain_data import read_json
from zoo.recipe import Recipe, build, list_models, load_recipe, self_contained
from zoo.scans import ScanOrder

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
"""Folder of the weights that ship with the package."""


class OfficialFormat(Protocol):
    """One official release: recognises its files, describes its network, and maps its keys."""

    name: str
    wrapper: str
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
    MambaCSRFormat(),
    MaIRFormat(),
    VmambaIRFormat(),
    EAMambaFormat(),
    WaveMambaFormat(),
)


def shipped_weights() -> list[str]:
    """Return the sorted names of the models with weights in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def load(
    source: str | Path,
    *,
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    **overrides: Any,
) -> Network:
    """Build a network and load its weights.

    Args:
        source: the name of a model with weights in the package, or a file: our format
            (``.safetensors``), or a state dict of the authors (``.pth``), recognised by its keys.
        recipe: the recipe to build, instead of the recipe in the file or the recognised one.
        overrides: options of the network by dotted path, as for :func:`zoo.build`. For an authors'
            MambaCSR file without ``recipe``, ``scan_size`` is an option too, because the tensors do
            not show it.

    Returns:
        The network in evaluation mode, float32, on the CPU.

    Raises:
        CheckpointError: if the file cannot be read, is not recognised, has a recipe with unknown
            parts or options, or does not match the network.
        RecipeError: if ``recipe`` or an override is wrong.
    """
    path = _locate(source)
    state, metadata = read_state(path)
    release = next((f for f in OFFICIAL if f.recognises(state)), None)
    if recipe is None:
        told = release.facts if release else ()
        facts = {name: overrides.pop(name) for name in told if name in overrides}
        recipe = _recipe_of(path, state, metadata, release, facts)
        network = _build_from_file(path, recipe, overrides)
    else:
        network = build(recipe, **overrides)
    if release is not None:
        state = _to_ours(state, release.key_map(network.recipe.network))
    try:
        load_state(network, state, str(path))
    except MisfitError as error:
        hint = difference(read_state(path)[0], (release,)) if release else None
        raise MisfitError(f"{error}; {hint}" if hint else str(error)) from error
    return network.eval()


def model_in(path: Path) -> str | None:
    """Return the name of the model that a file in our format is for, or None if it does not say.

    Raises:
        CheckpointError: if the file cannot be read.
    """
    metadata = read_state(path)[1]
    if "recipe" not in metadata:
        return None
    name = _recipe_in(path, metadata).get("name")
    return name if isinstance(name, str) else None


def load_state(network: Network, state: Mapping[str, Tensor], what: str) -> None:
    """Load a state dict with our key names into a network; all keys must match.

    Args:
        network: the network to load into.
        state: tensors by our key names.
        what: name of the state dict, such as its file, for error messages.

    Raises:
        CheckpointError: if keys are missing, unexpected or of the wrong size; the message lists
            them.
    """
    network.load_state_dict(fit(state, network.state_dict(), what))


def save(network: Network, path: str | Path, **metadata: str) -> None:
    """Write a network's weights and recipe as safetensors; the file appears whole or not at all.

    Args:
        network: a network that was built from a recipe.
        path: file to write, ``.safetensors``.
        metadata: further metadata to store, such as ``step="20000"``.

    Raises:
        CheckpointError: if the network has no recipe, or the suffix is not ``.safetensors``.
        WriteError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: the suffix must be .safetensors")
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
    write_safetensors(path, network.state_dict(), {**facts, **metadata})


def save_official(network: Network, path: str | Path) -> None:
    """Write a network's weights in the authors' format.

    Args:
        network: a network that the authors' code has too.
        path: file to write, ``.pth``.

    Raises:
        CheckpointError: if the authors' code does not have this network or its scan orders.
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
        f"{path}: the authors' code does not have this network; save it as .safetensors instead"
    )


def convert(source: str | Path, target: str | Path, **overrides: Any) -> Network:
    """Convert a weights file to our format (``.safetensors``) or to the authors' (``.pth``).

    Args:
        source: file to read, in either format.
        target: file to write; its suffix selects the format.
        overrides: ``recipe`` and options of the network, as for :func:`load`.

    Returns:
        The network that was read.

    Raises:
        CheckpointError: if the source cannot be loaded, or its network does not exist in the target
            format.
        WriteError: if the target cannot be written.
    """
    target = Path(target)
    if target.suffix not in (".safetensors", ".pth"):
        raise CheckpointError(
            f"{target}: the suffix must be .safetensors (our format) or .pth (the authors' format)"
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
            f"no weights ship for {name!r}: pass a weights file, or use zoo.build({name!r}) for a "
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
        return _recipe_in(path, metadata)
    hint = difference(state, OFFICIAL)
    if release is None:
        known = ", ".join(f.name for f in OFFICIAL)
        raise CheckpointError(
            f"{path}: these weights are not recognised (first key "
            f"{shown(next(iter(state), 'none'))}); "
            + (hint or f"known are our own files and {known}; for others, pass recipe=...")
        )
    evidence = Evidence(state)
    try:
        network = release.network(evidence, facts)
    except MissingKeyError as error:
        fault = f"{error}; {hint}" if hint else str(error)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ArithmeticError, IndexError, ValueError):
        fault = evidence.fault()
    else:
        logger.info("recognised %s as %s; img_range is 1, as published", path.name, release.name)
        return {"name": path.stem, "network": network}
    raise CheckpointError(f"{path}: looks like {release.name}, but {fault}")


def _recipe_in(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the recipe in the metadata of a file, as data that name no path."""
    try:
        return self_contained(read_json(metadata["recipe"]))
    except KeyError as error:
        raise CheckpointError(f"{path}: the file has no recipe; pass recipe=...") from error
    except RecipeError as error:
        raise CheckpointError(
            f"{path}: the recipe in the file is damaged ({error}); pass recipe=..."
        ) from error


def _build_from_file(
    path: Path, recipe: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Network:
    try:
        return build(recipe, **overrides)
    except RecipeError as wrong:
        try:
            load_recipe(recipe)
        except RecipeError as error:
            fault = str(error).removeprefix("recipe: ")
            raise CheckpointError(
                f"{path}: its recipe has {fault}; if the part is yours, add --import MODULE"
            ) from error
        if overrides:
            raise  # the recipe is right, so an override is wrong
        raise CheckpointError(f"{path}: its recipe cannot be built: {wrong}") from wrong


def _check_walks(
    network: Network, release: OfficialFormat, state: Mapping[str, Tensor], path: str | Path
) -> None:
    """Raise a CheckpointError if the authors' code would use other scan orders.

    The tensors do not show the scan orders, so the authors' code would silently use its own.
    """
    walks = _walks(network)
    with torch.device("meta"):
        theirs = _walks(build({"network": release.network(state, release.facts_of(walks))}))
    for place, their in theirs.items():
        ours = walks.get(place, "something else")
        if ours != their:
            raise CheckpointError(
                f"{path}: {place} scans {ours}, but the authors' {release.name} would scan "
                f"{their}; save it as .safetensors instead"
            )


def _walks(network: Network) -> dict[str, ScanOrder]:
    mixers = (SS2D, CrossScaleMixer, HeadScan)
    return {name: m.scan for name, m in network.named_modules() if isinstance(m, mixers)}


def _to_ours(state: Mapping[str, Tensor], keys: KeyMap) -> dict[str, Tensor]:
    # A key that we have no name for is kept, so that the error lists it as unexpected.
    used = {key: value for key, value in state.items() if not keys.is_unused(key)}
    return {keys.to_ours(key) or key: value for key, value in used.items()}


def _to_theirs(state: Mapping[str, Tensor], keys: KeyMap) -> dict[str, Tensor] | None:
    renamed = {}
    for key, value in state.items():
        theirs = keys.to_theirs(key)
        if theirs is None:
            return None
        if theirs.endswith((".A_logs", ".Ds", ".Ac_logs", ".Dsc")):
            value = value.flatten(0, 1).clone()
        elif keys.is_kernel(key):
            value = value[..., None, None]
        renamed[theirs] = value
    return renamed


__all__ = [
    "OFFICIAL",
    "convert",
    "load",
    "load_state",
    "model_in",
    "save",
    "save_official",
    "shipped_weights",
]
