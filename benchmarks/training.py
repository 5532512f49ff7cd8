"""A training step on a CPU: the native kernel compared with the chunked backend.

    python benchmarks/training.py [MODEL] [--seconds 20]

Measures forward, loss, backward and optimiser step with the recipe's patch and batch, in turns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import zoo
from zoo.recipe import load_recipe

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent))
from measure import best_times, machine, table


def make_step(model: str, backend: str, batch: int, patch: int) -> Callable[[], object]:
    network = zoo.build(model).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    image = torch.rand(batch, network.channels, patch, patch)

    def step() -> object:
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
    steps = {name: make_step(options.model, name, batch, patch) for name in ("native", "chunked")}
    for step in steps.values():
        step()
    best = best_times(steps, options.seconds)
    print(f"{machine()}\n\n{options.model}, a training step, batch {batch}, patch {patch}\n")
    rows = [[n, f"{s * 1e3:.0f}", f"{s / best['native']:.1f}"] for n, s in best.items()]
    print(table(["backend", "milliseconds", "/ native"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
