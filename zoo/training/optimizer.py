"""Building optimisers, and which parameters lose weight to weight decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from zoo.training.settings import OptimizerSettings

_STATES = ("A_log", "D")
"""What the scan's state decays by and what it passes on: matrices that are no weights."""

_FUSED = ("cpu", "cuda")
"""Devices on which one kernel updates all parameters, or on a CPU each, in one pass over memory."""


def make_optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return the optimiser of a network's parameters.

    Args:
        network: the network.
        settings: type, rate, betas and weight decay; see :class:`OptimizerSettings`.
    """
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.type]
    named = list(network.named_parameters())
    groups: list[dict[str, Any]] = [{"params": [parameter for _, parameter in named]}]
    if settings.weight_decay and settings.decay == "weights":
        others = [parameter for name, parameter in named if not is_weight(name, parameter)]
        groups = [
            {"params": [parameter for name, parameter in named if is_weight(name, parameter)]},
            {"params": others, "weight_decay": 0.0},
        ]
    filled = [group for group in groups if group["params"]]
    return kind(
        filled,
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        # PyTorch's own choice is slower: several passes on a GPU, one by one on a CPU.
        fused=True if all(p.device.type in _FUSED for p in network.parameters()) else None,
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimiser of the same network.

    How the parameters are updated is the optimiser's own choice: the state may be of another
    device, or of an earlier version.

    Raises:
        ValueError: if it is of another network; PyTorch does not check the shapes.
    """
    fused = {"fused": optimizer.defaults["fused"]}
    groups = [{**group, **fused} for group in state["param_groups"]]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, slots in optimizer.state.items():
        if any(value.shape not in (parameter.shape, ()) for value in slots.values()):
            raise ValueError("the optimizer's state has other shapes than the network")


def is_weight(name: str, parameter: nn.Parameter) -> bool:
    """Return whether a parameter is a matrix or a kernel, which weight decay may shrink.

    All others are not: biases, factors of norms and skips, and of the scan ``A_log``, ``D`` and the
    bias of the step, as in Mamba's own training. A part can exempt a parameter of its own with the
    attribute ``_no_weight_decay``, as Mamba's code does.

    Args:
        name: name of the parameter in its network.
        parameter: the parameter.
    """
    leaf = name.rpartition(".")[2]
    if getattr(parameter, "_no_weight_decay", False) or leaf in _STATES or "bias" in leaf:
        return False
    return parameter.ndim >= 2 and parameter.numel() > 1
