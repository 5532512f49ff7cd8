"""Loading weights into the network that they belong to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.checkpoints.detection import checked_recipe, facts_known, recipe_in, recipe_of
from zoo.checkpoints.evidence import difference
from zoo.checkpoints.keymap import fit, pattern_of
from zoo.checkpoints.named_recipe import differences
from zoo.checkpoints.releases import key_map_of
from zoo.checkpoints.source import Source, Weights, opened, tell_choice, tensors_of
from zoo.checkpoints.trainers import State
from zoo.distributed import checked_device
from zoo.errors import (
    CheckpointError,
    MisfitError,
    RecipeError,
    ZooError,
    no_effect_is_told,
    shown,
)
from zoo.key_rules import Keys, Rule, checked_rules
from zoo.networks import Network
from zoo.recipe import Recipe, build
from zoo.registry import capabilities_of

logger = logging.getLogger(__name__)


def load(
    source: Source,
    *,
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    keys: Keys = (),
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    **overrides: Any,
) -> Network:
    """Build a network and load its weights.

    Args:
        source: the name of a model with weights in the package; a file, in our format
            (``.safetensors``) or of any trainer that uses the authors' names (``.pth``, ``.pt``,
            ``.ckpt``); a file on the Hugging Face Hub, ``hf:OWNER/REPO/FILE``; or a state dict. In
            a file of a trainer, the network is found below any
            names, such as ``state_dict`` or ``net_g.``. If an average of the weights is there
            (EMA), it is loaded, and a log line says so.
        recipe: the recipe to build, instead of the recipe in the file or the recognised one. A log
            line says where it differs from the recipe in the file.
        keys: names of the tensors of parts of your own in a file of the authors' code, as pairs
            (their key, our key): ``("layers.{i}.residual_group.blocks.{j}.mine.{rest}",
            "groups.{i}.blocks.{j}.mine.{rest}")``. A field is the same number in both, or the same
            text if its name ends in "rest". All other keys follow the rules of the release. Pass
            ``recipe`` too. Rules that hold for every file are better registered with the part; see
            :meth:`zoo.registry.Registry.register`.
        device: where the network goes: cpu, cuda, cuda:N or mps.
        dtype: dtype of the parameters, or its name, such as "bfloat16"; None for float32.
        overrides: options of the network by dotted path, as for :func:`zoo.build`. For an authors'
            MambaCSR file without ``recipe``, ``scan_size`` is an option too, because the tensors do
            not show it.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: if the file cannot be read, is not recognised, has a recipe with unknown
            parts or options, or does not match the network.
        RecipeError: if ``recipe``, a key rule or an override is wrong.
        ZooError: if there is no such device, or the network does not work in the dtype.
    """
    device = checked_device(str(device), "device")
    rules = checked_rules(keys, "keys")
    weights = opened(source)
    named = recipe is not None
    if recipe is None:
        told = [name for name in facts_known(weights) if name in overrides]
        facts = {name: overrides.pop(name) for name in told}
        network = _build_from_file(weights.what, recipe_of(weights, facts), overrides)
    else:
        network = build(recipe, **overrides)
    found, release = tensors_of(network, weights, rules)
    _tell_rules_without_effect(weights.what, rules, found.state if release else {})
    state = found.state
    if release is not None:
        state = key_map_of(release, network, rules).state_to_ours(state)
    try:
        load_state(network, state, weights.what)
    except MisfitError as error:
        hint = difference(found.state, (release,)) if release else None
        if hint is None and release is not None and not named:
            hint = f"pass its recipe, as it is not quite the network of {release.name}"
        raise MisfitError(f"{error}; {hint}" if hint else str(error)) from error
    tell_choice(weights.what, found)
    _tell_values_that_are_not_finite(weights.what, network)
    if named:
        _tell_differences(weights, network, overrides)
    return cast(network.eval(), dtype).to(device)


def _tell_values_that_are_not_finite(what: str, network: Network) -> None:
    """Warn of NaN and infinite weights, of which a network makes pictures of NaN."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.is_meta and not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            logger.warning(
                "%s: %d of the %d values of %s are NaN or infinite, so the network cannot restore; "
                "use an earlier checkpoint",
                *(what, bad, tensor.numel(), name),
            )
            return


def state_for(network: nn.Module, source: Source) -> State:
    """Return the tensors of weights by our names, as far as they may be those of a network.

    Nothing is checked against the network, so tensors may be missing or have other shapes.

    Args:
        network: the network; only our names are looked for if it is none of this package.
        source: weights, as for :func:`load`.

    Raises:
        CheckpointError: if the weights cannot be read.
    """
    weights = opened(source)
    found, release = tensors_of(network, weights)
    tell_choice(weights.what, found)
    if release is None or not isinstance(network, Network):
        return found.state
    return key_map_of(release, network).state_to_ours(found.state)


def model_in(path: Path) -> str | None:
    """Return the name of the model that a file in our format is for, or None if it does not say.

    Raises:
        CheckpointError: if the file cannot be read.
    """
    weights = opened(path)
    if "recipe" not in weights.metadata:
        return None
    name = recipe_in(weights).get("name")
    return name if isinstance(name, str) else None


def load_state(network: Network, state: State, what: str) -> None:
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


def cast(network: Network, dtype: str | torch.dtype | None) -> Network:
    """Return the network in a dtype; None for float32, in which it is.

    Raises:
        ZooError: if it does not work in the dtype.
    """
    if dtype is None:
        return network
    known = capabilities_of(network).dtypes
    name = str(dtype).removeprefix("torch.")
    if name not in known:
        raise ZooError(f"dtype is {shown(dtype)}; this network works in {', '.join(known)}")
    return network.to(getattr(torch, name))


def _tell_rules_without_effect(what: str, rules: Sequence[Rule], state: State) -> None:
    """Log which key rules rename no tensor of an authors' file."""
    for rule in rules:
        pattern = pattern_of(rule.theirs)
        if not any(map(pattern.fullmatch, state)):
            logger.warning(
                "%s: the key rule %s has no effect, because no tensor has such a name",
                *(what, shown(tuple(rule[:2]))),
            )


def _tell_differences(weights: Weights, network: Network, overrides: Mapping[str, Any]) -> None:
    """Log where the recipe in a file differs from the one that was named and counts."""
    try:
        recipe = recipe_in(weights)
    except CheckpointError:
        return  # to name a recipe is the way around one that is damaged or not there
    assert network.recipe is not None
    held, name = recipe.get("network"), network.recipe.name
    trained, used = _range_in(recipe), _range_in(network.recipe.data())
    if trained != used:
        logger.warning(
            "%s was trained with data.range %s, but %s, which is used, has %s; state the range",
            *(weights.what, shown(trained), name, shown(used)),
        )
    found = differences(network.recipe.network, held if isinstance(held, dict) else {}, overrides)
    if found is not None:
        logger.warning(
            "%s has another recipe than %s, which is used: %s", weights.what, name, found
        )


def _range_in(recipe: Mapping[str, Any]) -> Any:
    """The ``train.data.range`` of a recipe, whatever it is; None if there is none."""
    found: Any = recipe
    for key in ("train", "data", "range"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _build_from_file(what: str, recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> Network:
    try:
        with no_effect_is_told():
            return build(recipe, **overrides)
    except RecipeError as wrong:
        checked_recipe(what, recipe)
        if overrides:
            raise  # the recipe is right, so an override is wrong
        raise CheckpointError(
            f"{what}: the network that it seems to hold cannot be built: {wrong}; pass its recipe"
        ) from wrong
