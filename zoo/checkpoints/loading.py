"""Loading weights into the network that they belong to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.checkpoints.evidence import Evidence, difference
from zoo.checkpoints.files import read_state
from zoo.checkpoints.keymap import MissingKeyError, fit
from zoo.checkpoints.mambair import MambaIRFormat
from zoo.checkpoints.named_recipe import differences
from zoo.checkpoints.releases import OFFICIAL, Keys, OfficialFormat, key_map_of
from zoo.errors import CheckpointError, MisfitError, RecipeError, shown
from zoo.networks import Network
from zoo.plain_data import read_json
from zoo.recipe import Recipe, build, load_recipe, self_contained
from zoo.shipped import located

logger = logging.getLogger(__name__)


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
    path = located(source)
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
        state = key_map_of(release, network.recipe.network, keys).state_to_ours(state)
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
