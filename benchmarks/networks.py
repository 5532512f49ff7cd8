"""Whole networks on a CPU: ours, compared with the authors' path and with a network without scans.

    python benchmarks/networks.py [MODEL ...] [--sizes 64 128] [--rounds 3] [--no-authors]

Each measurement runs in a separate process, so that peak memory is its own. The paths take turns,
so that a temporary slowdown of the machine affects all of them. Prints Markdown tables. The
authors' path takes minutes per image for a classic network and is measured only once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.blocks import direction_merge
from zoo.blocks.prepared import Prepared
from zoo.inference import RestoreSettings, restore_tensor

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent))
from authors_scan import authors_path
from measure import machine, own_process, peak_mebibytes, table

AUTHORS, FLOOR = "authors", "floor"


@contextlib.contextmanager
def floor_path() -> Iterator[None]:
    """Replace scans by copies of their tokens within the context: the cost of everything else."""

    def copy(u_BLE: Tensor, *given: Any, reduce: bool = False, **others: Any) -> Tensor:
        if reduce:
            return u_BLE.clone()
        _, _, _, A_KEN, *_ = given
        return u_BLE[:, :, None].expand(-1, -1, len(A_KEN), -1).clone()

    modules: list[Any] = [
        module
        for name, module in sys.modules.items()
        if name.startswith("zoo.blocks.") and hasattr(module, "selective_scan")
    ]
    scan, through = direction_merge.selective_scan, Prepared.through
    for module in modules:
        module.selective_scan = copy
    # Prepared blocks call the library by themselves.
    Prepared.through = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Prepared.through = through  # type: ignore[method-assign]
        for module in modules:
            module.selective_scan = scan


def measure(model: str, size: int, path: str, tile: int) -> dict[str, float]:
    """Measure seconds and MiB for one image in this process, after a warm-up.

    Args:
        model: name of the model.
        size: side of the image in pixels.
        path: backend, or ``AUTHORS`` or ``FLOOR``.
        tile: side of a tile in pixels; 0 for no tiles.
    """
    network = zoo.build(model).eval()
    if path == AUTHORS:
        context: Any = authors_path()
    else:
        context = floor_path() if path == FLOOR else zoo.use_backend(path)
    settings = RestoreSettings(tile=tile)
    with context:
        restore_tensor(network, torch.rand(1, network.channels, 16, 16), settings)
        idle = peak_mebibytes()
        image = torch.rand(1, network.channels, size, size)
        repeats = 1 if path == AUTHORS else max(1, (128 // size) ** 2)
        took = []
        for _ in range(repeats):
            start = time.perf_counter()
            restore_tensor(network, image, settings)
            took.append(time.perf_counter() - start)
    peak = peak_mebibytes()
    return {"seconds": min(took), "peak": peak, "above": peak - idle}


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}


def in_turns(jobs: list[tuple[Any, ...]], rounds: int) -> dict[tuple[Any, ...], dict[str, float]]:
    """Median results of each job (model, size, path, tile); the authors' path runs only once."""
    results: dict[tuple[Any, ...], list[dict[str, float]]] = {job: [] for job in jobs}
    for turn in range(rounds):
        for job in jobs:
            if turn and job[2] == AUTHORS:
                continue
            results[job].append(own_process(__file__, "--job", json.dumps(job)))
    return {job: median(found) for job, found in results.items()}


def print_paths(models: list[str], sizes: list[int], rounds: int, with_authors: bool) -> None:
    paths = [AUTHORS] * with_authors + ["chunked", "native", FLOOR]
    jobs = [(m, s, p, 0) for m in models for s in sizes for p in paths]
    # The authors' path needs a quarter of an hour and many gigabytes for a large classic image.
    jobs = [j for j in jobs if j[2] != AUTHORS or j[1] <= 64 or "light" in j[0]]
    best = in_turns(jobs, rounds)
    rows = []
    for model, size, path, tile in jobs:
        found, native = (best[model, size, p, tile] for p in (path, "native"))
        rows.append(
            [
                model,
                f"{size} x {size}",
                path,
                f"{found['seconds']:.2f}",
                f"{found['seconds'] / native['seconds']:.2f}",
                f"{found['peak']:.0f}",
                f"{found['above']:.0f}",
            ]
        )
    head = ["model", "input", "path", "seconds", "/ native", "peak MiB", "above the idle network"]
    print(f"\nWhole networks, float32\n\n{table(head, rows)}", flush=True)


def print_growth(model: str, rounds: int) -> None:
    jobs = [(model, s, "native", t) for s in (64, 128, 256, 512) for t in (0, 128) if s > t]
    best = in_turns(jobs, rounds)
    base = best[model, 128, "native", 0]["seconds"] / 128**2
    rows = [
        [
            f"{job[1]} x {job[1]}",
            job[3] or "",
            f"{found['seconds']:.2f}",
            f"{found['seconds'] / job[1] ** 2 * 1e6:.1f}",
            f"{found['seconds'] / job[1] ** 2 / base:.2f}",
            f"{found['above']:.0f}",
        ]
        for job, found in best.items()
    ]
    head = ["input", "tile", "seconds", "microseconds a pixel", "/ 128 x 128", "MiB above idle"]
    print(f"\n{model} as the image grows, native, float32\n\n{table(head, rows)}", flush=True)


def main() -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    defaults = ["mambair_light_x4", "mambair_classic_x4"]
    parser.add_argument("models", nargs="*", default=defaults, help=f"models [{defaults}]")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 128], help="sides of images, pixels [64 128]"
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each path [3]")
    parser.add_argument("--no-authors", action="store_true", help="omit the slow authors' path")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(measure(*json.loads(options.job))))
        return 0
    print(machine())
    print_paths(options.models, options.sizes, options.rounds, not options.no_authors)
    print_growth(options.models[0], options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
