"""Which runs of a network may be recorded as a CUDA graph, and what a recording depends on."""

from __future__ import annotations

import os
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zoo.blocks.joined import is_plain
from zoo.inference.evaluation_mode import pauses_training
from zoo.ops.passes.conditions import is_watched
from zoo.ops.precision import tf32_settings
from zoo.ops.scan.dispatch import asked_for

ENVIRONMENT = "ZOO_CUDA_GRAPHS"

PIXELS = 256 * 256
"""Images of more pixels are not recorded: the GPU, not Python, bounds their time, and a recording
keeps the memory of a run."""

_PACKAGES = ("zoo.", "torch.nn.modules.", "torch.nn.utils.parametrize")
"""Modules of others may do in Python what a replay would leave out."""

_PLAIN_TENSORS = (Tensor, nn.Parameter)

_paused = threading.local()
"""Its ``blocks`` counts the blocks of :func:`unrecorded` that a thread is in."""


def is_on() -> bool:
    """Whether the user wants networks to be recorded."""
    return os.environ.get(ENVIRONMENT) == "1"


def is_made_of_known_parts(network: nn.Module) -> bool:
    """Whether running the network runs nothing but modules of this package, in PyTorch."""
    if not getattr(network, "runs_in_torch", True):
        return False
    modules = list(network.modules())
    return all(map(_is_known, {type(module) for module in modules})) and all(
        is_plain(module)
        and getattr(module, "_compiled_call_impl", None) is None
        and not any(isinstance(value, _FUNCTIONS) for value in module.__dict__.values())
        for module in modules
    )


_FUNCTIONS = (types.FunctionType, types.MethodType)


def _is_known(kind: type[nn.Module]) -> bool:
    """Whether a class is of this package or PyTorch, and nobody has replaced its methods."""
    if not f"{kind.__module__}.".startswith(_PACKAGES):
        return False
    functions = [value for value in vars(kind).values() if isinstance(value, types.FunctionType)]
    return all(f"{function.__module__}.".startswith(("zoo.", "torch.")) for function in functions)


def state_of(network: nn.Module) -> tuple[list[object], list[object]]:
    """What differs if the network may compute otherwise than before, and what that refers to.

    These are the place and the version of each tensor, and the identity of each attribute of a
    module. The attributes must be kept, or others could get their identities.
    """
    state: list[object] = []
    holds: list[object] = []
    for module in network.modules():
        attributes = list(module.__dict__.values())
        state.append(tuple(map(id, attributes)))
        holds.append(attributes)
    for tensor in tensors_of(network):
        version = 0 if tensor.is_inference() else tensor._version
        state.append((tensor.data_ptr(), version, tensor.shape, tensor.stride(), tensor.dtype))
    return state, holds


def tensors_of(network: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of a network."""
    return [*network.parameters(), *network.buffers()]


def may_be_recorded(network: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether a run of a network on these inputs may be recorded here and now."""
    paused = bool(getattr(_paused, "blocks", None))
    if not is_on() or paused or network.training or is_watched():
        return False
    image = inputs[0]
    if image.numel() // image.shape[-3] > PIXELS or not _is_ordinary_stream(image.device):
        return False
    # A network that trains on needs the memory, and changes before it restores again.
    return (
        not pauses_training(network)
        and all(type(t) in _PLAIN_TENSORS for t in (*tensors_of(network), *inputs))
        and is_made_of_known_parts(network)
    )


def _is_ordinary_stream(device: torch.device) -> bool:
    """A recording is replayed in one stream: in another one it would overwrite its own memory."""
    if device.type != "cuda":
        return True
    return torch.cuda.current_stream(device) == torch.cuda.default_stream(device)


def surroundings() -> tuple[object, ...]:
    """Settings outside the network that change which kernels run."""
    return (
        asked_for(None),
        tf32_settings(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
    )


@contextmanager
def unrecorded() -> Iterator[None]:
    """In the block, this thread runs networks without recordings, as to measure their memory."""
    _paused.blocks = (getattr(_paused, "blocks", None) or 0) + 1
    try:
        yield
    finally:
        _paused.blocks -= 1
