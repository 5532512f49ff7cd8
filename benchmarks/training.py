"""A training step on a CPU: the native kernel with joined passes, without them, and ``chunked``.

    python benchmarks/training.py [MODEL] [--seconds 20]

Measures forward, loss, backward and the recipe's optimiser with its patch and batch, in turns, on
one thread, in time of the CPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import zoo
from zoo.ops import passes
from zoo.recipe import load_recipe
from zoo.training import make_optimizer
from zoo.training.settings import OptimizerSettings

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent))
from measure import best_times, machine, table

PATHS = {"native": ("native", "1"), "no passes": ("native", "0"), "chunked": ("chunked", "1")}
"""The backend of each path, and whether it has joined passes."""


def make_step(model: str, path: str, batch: int, patch: int) -> Callable[[], object]:
    backend, with_passes = PATHS[path]
    network = zoo.build(model).train()
    optimizer = make_optimizer(network, OptimizerSettings())
    image = torch.rand(batch, network.channels, patch, patch)

    def step() -> object:
        os.environ[passes.ENVIRONMENT] = with_passes
        with zoo.use_backend(backend):
            optimizer.zero_grad()
            network(image).mean().backward()
            return optimizer.step()

    return step


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "model", nargs="?", default="mambair_tiny_x2", help="model [mambair_tiny_x2]"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each path [20]")
    options = parser.parse_args()
    data = load_recipe(options.model).train["data"]
    batch, patch = data["batch"], data["patch"]
    torch.set_num_threads(1)
    steps = {name: make_step(options.model, name, batch, patch) for name in PATHS}
    for step in steps.values():
        step()
    best = best_times(steps, options.seconds, time.process_time)
    print(f"{machine()}\n\n{options.model}, a training step, batch {batch}, patch {patch}\n")
    rows = [[n, f"{s * 1e3:.0f}", f"{s / best['native']:.1f}"] for n, s in best.items()]
    print(table(["path", "milliseconds", "/ native"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
