"""Loading, saving and converting weights, in our format and in the authors' formats.

Our format is safetensors with the recipe in the metadata, so a file describes itself. The authors'
state dicts are recognised by their keys; the key map of each release is in its own module.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from zoo.blocks import SS2D, Attentive, CrossScaleMixer, HeadScan, Router, WindowAttention
from zoo.checkpoints.dvmsr import DVMSRFormat
from zoo.checkpoints.eamamba import EAMambaFormat
from zoo.checkpoints.evidence import Evidence, difference
from zoo.checkpoints.files import read_state, write_pickled, write_safetensors
from zoo.checkpoints.keymap import KeyMap, MissingKeyError, Rule, fit
from zoo.checkpoints.mair import MaIRFormat
from zoo.checkpoints.mambacsr import MambaCSRFormat
from zoo.checkpoints.mambair import MambaIRFormat, MambaIRUNetFormat
from zoo.checkpoints.mambairv2 import MambaIRv2Format
from zoo.checkpoints.named_recipe import differences
from zoo.checkpoints.vmambair import VmambaIRFormat
from zoo.checkpoints.wavemamba import WaveMambaFormat
from zoo.command import package_version
from zoo.errors import CheckpointError, MisfitError, RecipeError, nearest, shown
from zoo.networks import Network, SingleImage
from zoo.plain_data import read_json
from zoo.recipe import Recipe, build, list_models, load_recipe, self_contained
from zoo.scans import ScanOrder

logger = logging.getLogger(__name__)

Keys: TypeAlias = Sequence[tuple[str, str]]
"""Pairs of the authors' name and our name of a tensor."""

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
"""Folder of the weights that ship with the package."""


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


def shipped_weights() -> list[str]:
    """Return the sorted names of the models with weights in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def load(
    source: str | Path,
    *,
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    keys: Keys = (),
    **overrides: Any,
) -> Network:
    """Build a network and load its weights.

    Args:
        source: the name of a model with weights in the package, or a file: our format
            (``.safetensors``), or a state dict of the authors (``.pth``), recognised by its keys.
        recipe: the recipe to build, instead of the recipe in the file or the recognised one. A log
            line says where it differs from the recipe in the file.
        keys: names of the tensors of parts of your own in a file of the authors' code, as pairs
            (their key, our key): ``("layers.{i}.residual_group.blocks.{j}.mine.{rest}",
            "groups.{i}.blocks.{j}.mine.{rest}")``. A field is the same number in both, or the same
            text if its name ends in "rest". All other keys follow the rules of the release. Pass
            ``recipe`` too.
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
    named = recipe is not None
    release = next((f for f in OFFICIAL if f.recognises(state)), None)
    if recipe is None:
        told = release.facts if release else ()
        facts = {name: overrides.pop(name) for name in told if name in overrides}
        recipe = _recipe_of(path, state, metadata, release, facts)
        network = _build_from_file(path, recipe, overrides)
    else:
        network = build(recipe, **overrides)
    if keys and release is None:
        release = MambaIRFormat()  # its names around the blocks are those of most releases
    if release is not None:
        state = _key_map(release, network.recipe.network, keys).state_to_ours(state)
    try:
        load_state(network, state, str(path))
    except MisfitError as error:
        hint = difference(read_state(path)[0], (release,)) if release else None
        raise MisfitError(f"{error}; {hint}" if hint else str(error)) from error
    if named and "recipe" in metadata:
        _tell_differences(path, metadata, network, overrides)
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


def save_official(network: Network, path: str | Path, keys: Keys = ()) -> None:
    """Write a network's weights in the authors' format.

    Args:
        network: a network that the authors' code has too.
        path: file to write, ``.pth``.
        keys: names of the tensors of parts of your own, as for :func:`load`. That the authors' code
            computes the same is not checked then.

    Raises:
        CheckpointError: if the authors' code does not have this network or its scan orders.
        WriteError: if the file cannot be written.
    """
    if network.recipe is not None:
        described = network.recipe.network
        for release in OFFICIAL:
            key_map = _key_map(release, described, keys)
            state = key_map.state_to_theirs(network.state_dict())
            if state is not None and (keys or release.recognises(state)):
                if not keys:
                    _check_walks(network, release, state, path)
                write_pickled(Path(path), {release.wrapper: state} if release.wrapper else state)
                _tell_routing(network, path)
                return
    raise CheckpointError(
        f"{path}: the authors' code does not have this network; save it as .safetensors instead"
    )


def convert(
    source: str | Path, target: str | Path, *, keys: Keys = (), **overrides: Any
) -> Network:
    """Convert a weights file to our format (``.safetensors``) or to the authors' (``.pth``).

    Args:
        source: file to read, in either format.
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
    if target.suffix not in (".safetensors", ".pth"):
        raise CheckpointError(
            f"{target}: the suffix must be .safetensors (our format) or .pth (the authors' format)"
        )
    network = load(source, keys=keys, **overrides)
    if target.suffix == ".pth":
        save_official(network, target, keys)
    else:
        save(network, target)
    return network


def _key_map(release: OfficialFormat, described: Mapping[str, Any], keys: Keys) -> KeyMap:
    key_map = release.key_map(described)
    return key_map.preceded_by(Rule(*pair) for pair in keys) if keys else key_map


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


def _tell_differences(
    path: Path, metadata: Mapping[str, str], network: Network, overrides: Mapping[str, Any]
) -> None:
    """Log where the recipe in a file differs from the one that was named and counts."""
    try:
        held = _recipe_in(path, metadata).get("network")
    except CheckpointError:
        return  # to name a recipe is the way around a damaged one
    assert network.recipe is not None
    found = differences(network.recipe.network, held if isinstance(held, dict) else {}, overrides)
    if found is not None:
        name = network.recipe.name
        logger.warning("%s has another recipe than %s, which is used: %s", path, name, found)


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
    return {name: m.scan for name, m in network.named_modules() if isinstance(m, mixers)}


_HIDDEN = ((Attentive, "prompt"), (WindowAttention, "shift"), (SingleImage, "mirror_pad"))
"""Settings that change the output and that the tensors do not show."""


def _hidden_settings(network: Network) -> dict[str, Any]:
    return {
        f"{name}.{setting}".lstrip("."): getattr(module, setting)
        for name, module in network.named_modules()
        for kind, setting in _HIDDEN
        if isinstance(module, kind)
    }


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
