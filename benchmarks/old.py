"""Paths that this version and earlier ones can run; see ``turns.OtherVersion``.

Only what every version has is used without care.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import nn

import zoo

_until_the_end = contextlib.ExitStack()
"""What holds until the process ends; a context that nobody refers to would be left at once."""


def forward(model: str, size: int, batch: int = 1) -> Callable[[], float]:
    """A forward pass; the time of the CPU in seconds."""
    torch.set_num_threads(1)
    network = zoo.build(model).eval()
    # Versions before guides have no example_inputs.
    inputs = getattr(network, "example_inputs", lambda *sides: (network.example(*sides),))
    inputs = [torch.cat([tensor] * batch) for tensor in inputs(size, size)]

    def run() -> float:
        start = time.process_time()
        with torch.inference_mode():
            network(*inputs)
        return time.process_time() - start

    return run


def step(model: str, batch: int, patch: int) -> Callable[[], float]:
    """A training step as the trainer of this version does it: loss, gradients, Adam, average."""
    from zoo.training import EMA

    try:
        from recipes.train import kept_memory
    except ImportError:  # earlier trainers gave all memory back to the system
        pass
    else:
        _until_the_end.enter_context(kept_memory())
    torch.set_num_threads(1)
    network = zoo.build(model).train()
    image = torch.rand(batch, 3, patch, patch)
    target = torch.rand(batch, 3, network.scale * patch, network.scale * patch)
    optimizer, average = _optimizer(network), EMA(network, 0.999)
    # Earlier averages did not count the steps.
    steps = (1000,) if signature(average.update).parameters else ()

    def run() -> float:
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        (network(image) - target).abs().mean().backward()
        optimizer.step()
        average.update(*steps)
        return time.process_time() - start

    return run


def _optimizer(network: nn.Module) -> Any:
    try:
        from zoo.training import make_optimizer
        from zoo.training.settings import OptimizerSettings
    except ImportError:  # earlier versions built it in the trainer
        return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.9, 0.99))
    return make_optimizer(network, OptimizerSettings())
