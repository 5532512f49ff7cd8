"""The light network on a 64 x 64 image: our path against the authors', time and memory.

    python benchmarks/light_x4.py [--model NAME] [--size 64] [--rounds 3]

Each measurement is a process of its own, so that its peak memory is its own; the paths take turns,
so that a machine that slows down slows all of them. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

import zoo

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent))
from authors_scan import authors_path

AUTHORS = "authors"


def measure(model: str, size: int, path: str) -> dict[str, float]:
    """Time one forward pass after a small warm-up, in this process."""
    network = zoo.build(model).eval()
    context = authors_path() if path == AUTHORS else zoo.use_backend(path)
    with torch.inference_mode(), context:
        network(torch.rand(1, network.channels, 8, 8))
        idle = _peak_mebibytes()
        image = torch.rand(1, network.channels, size, size)
        wall, cpu = time.perf_counter(), time.process_time()
        network(image)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = _peak_mebibytes()
    return {"wall": wall, "cpu": cpu, "peak": peak, "above idle": peak - idle}


def _peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Measure all paths and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mambair_light_x4")
    parser.add_argument("--size", type=int, default=64, help="side of the input in pixels [64]")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each path [3]")
    parser.add_argument("--path", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.path:
        print(json.dumps(measure(options.model, options.size, options.path)))
        return 0
    paths = [AUTHORS, *(s.name for s in zoo.backends() if s.available and s.name != "reference")]
    results: dict[str, list[dict[str, float]]] = {path: [] for path in paths}
    words = [sys.executable, __file__, "--model", options.model, "--size", str(options.size)]
    for _ in range(options.rounds):
        for path in paths:
            done = subprocess.run([*words, "--path", path], capture_output=True, check=True)
            results[path].append(json.loads(done.stdout))
    print(f"{options.model}, 1 x {options.size} x {options.size}, float32, {_machine()}\n")
    print("| path | seconds | CPU seconds | times faster | peak MiB | above the idle network |")
    print("|---|---|---|---|---|---|")
    medians = {
        path: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        for path, rounds in results.items()
    }
    for path, m in medians.items():
        faster = medians[AUTHORS]["wall"] / m["wall"]
        print(
            f"| {path} | {m['wall']:.2f} | {m['cpu']:.2f} | {faster:.1f} | {m['peak']:.0f} "
            f"| {m['above idle']:.0f} |"
        )
    return 0


def _machine() -> str:
    return (
        f"{torch.get_num_threads()} threads of {platform.machine()} "
        f"({torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__}"
    )


if __name__ == "__main__":
    sys.exit(main())
