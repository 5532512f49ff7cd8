"""Whole networks on a CPU, compared with the limit of this machine, one thread, float32.

    python benchmarks/network_limits.py [MODEL ...] [--size 64] [--seconds 5]

The limit is the time of the products and of the exponentials alone: products at the rate of one
large matrix product, exponentials at the rate of the scan's own loop on data in the L1 cache. It
leaves out everything that only moves memory, and is therefore below what any program can reach.
Everything is measured in turns, in one process, in time of the CPU. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo.ops import passes
from zoo.ops.scan.contract import SCHEMA, ScanInputs, axis_sizes

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent))
from measure import best_times, machine, table
from operator_cpu import STATES, limit

MODELS = ("mambair_light_x4", "mambair_classic_x4", "mambacsr_final", "mambair_realdn")
SIDE = 2048
"""Side of the matrices of the product that measures the machine."""
LENGTH, CHANNELS = 4096, 360
"""Size of the scan whose exponentials measure the machine. Both take about as long as a network, so
that all paths take turns to the end."""


class Work(NamedTuple):
    """What a forward pass cannot do without.

    Attributes:
        products: floating-point operations of matrix products and convolutions.
        exponentials: exponentials of the scans, N + 1 for each step and channel.
    """

    products: int
    exponentials: int


class _Exponentials(TorchDispatchMode):
    """Counts the exponentials of all scans within the context."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.ops.zoo.selective_scan.default:
            n = axis_sizes(ScanInputs(*args[: len(SCHEMA)]))
            self.total += n["B"] * n["K"] * n["S"] * n["E"] * (n["N"] + 1)
        return func(*args, **(kwargs or {}))


def work_of(network: nn.Module, image: Tensor) -> Work:
    """Count the work of a forward pass of a network on an image."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _Exponentials() as exponentials, counter:
        network(image)
    counted = counter.get_flop_counts()["Global"]
    products = sum(
        count for operator, count in counted.items() if operator is not torch.ops.zoo.selective_scan
    )
    return Work(products, exponentials.total)


def forward(network: nn.Module, image: Tensor, with_passes: bool) -> Callable[[], object]:
    def run() -> object:
        os.environ[passes.ENVIRONMENT] = str(int(with_passes))
        with torch.inference_mode():
            return network(image)

    return run


def measure(model: str, size: int, seconds: float) -> list[object]:
    """Measure one row of the table."""
    network = zoo.build(model).eval()
    image = torch.rand(1, network.channels, size, size)
    a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    paths = {
        "product": lambda: a @ b,
        "exponentials": limit(LENGTH, CHANNELS),
        "joined": forward(network, image, True),
        "apart": forward(network, image, False),
    }
    best = best_times(paths, seconds, time.process_time)
    work = work_of(network, image)
    of_products = work.products * best["product"] / (2 * SIDE**3)
    many = LENGTH * 4 * CHANNELS * (STATES + 1)
    of_exponentials = work.exponentials * best["exponentials"] / many
    least = of_products + of_exponentials
    return [
        model,
        f"{size} x {size}",
        *(f"{t * 1e3:.0f}" for t in (of_products, of_exponentials, best["joined"], best["apart"])),
        f"{best['joined'] / least:.2f}",
        f"{best['apart'] / least:.2f}",
        f"{best['joined'] / best['apart']:.2f}",
    ]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS, help=f"models [{', '.join(MODELS)}]")
    parser.add_argument("--size", type=int, default=64, help="side of the image, pixels [64]")
    parser.add_argument("--seconds", type=float, default=5.0, help="time of each path [5]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}\n\nMilliseconds, and ratios to the limit\n")
    head = ["model", "input", "products", "exponentials", "passes", "no passes"]
    head += ["passes / limit", "no passes / limit", "passes / no passes"]
    rows = [measure(model, options.size, options.seconds) for model in options.models]
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
