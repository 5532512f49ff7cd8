"""The recipe of a network as one more tensor in its file, for tools that read tensors alone.

Such tools pass on neither metadata nor the name of the file (spandrel, and with it ComfyUI and
chaiNNer). If the tensors show all of a recipe, as published, the file has no such tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.checkpoints.trainers import State
from zoo.errors import CheckpointError

KEY = "zoo.recipe"
"""Name of the tensor; no module of a network has such a name."""

MOST_BYTES = 1_000_000
"""Longest text of a recipe in such a tensor; a published one has about a thousand bytes."""


def embedded(recipe: str) -> State:
    """Return a recipe, as JSON, as a state dict of one uint8 tensor."""
    return {KEY: torch.frombuffer(bytearray(recipe.encode()), dtype=torch.uint8)}


def without_recipe(state: State, what: str) -> tuple[State, str | None]:
    """Split a state dict into its other tensors and the text of the recipe in it, or None.

    Args:
        state: tensors by their names.
        what: name of the file, for error messages.

    Raises:
        CheckpointError: if the tensor of the recipe is damaged.
    """
    if not any(map(_is_recipe, state)):
        return state, None
    others = {name: tensor for name, tensor in state.items() if not _is_recipe(name)}
    return others, _text(state[KEY], what) if KEY in state else None


def _is_recipe(name: str) -> bool:
    return name == KEY or name.endswith(f".{KEY}")  # a trainer or a wrapper may put names above it


def _text(tensor: Tensor, what: str) -> str:
    try:
        if tensor.dim() != 1 or tensor.numel() > MOST_BYTES:
            raise ValueError
        # A tool that casts a whole file to half precision keeps the bytes: each is below 256.
        return bytes(tensor.cpu().to(torch.int16).tolist()).decode()
    except ValueError as error:
        raise CheckpointError(
            f"{what}: the recipe in its tensor {KEY!r} is damaged; pass recipe=..."
        ) from error
