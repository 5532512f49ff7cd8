"""The TensorRT plugin's kernel on an NVIDIA GPU, without TensorRT, compared with our backends.

    python benchmarks/tensorrt_plugin.py [--quick]
    python benchmarks/tensorrt_plugin.py --dry-run      # on a CPU, by the shim; measures nothing

It first compares the plugin with the definition and stops if they differ. Then it prints a table
for the forward operator, measured as in ``benchmarks/gpu.py``. Like the other paths, ``plugin``
includes the time in which PyTorch allocates the output and the workspace.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    sys.path.insert(0, str(Path(__file__).parent))
from gpu import TOLERANCE, Rows, compare, floor, inputs_on, scan_path
from gpu_rig import DryRun, Gpu, Rig

from trt_plugins.build import architectures_here, build
from trt_plugins.harness import Harness
from zoo.errors import ZooError
from zoo.ops.precision import DTYPES
from zoo.ops.scan.names import SUM


def inputs_of(rig: Rig, length: int, channels: int, dtype: torch.dtype) -> list[Tensor]:
    """Make the inputs for a scan, contiguous as in TensorRT."""
    return [tensor.contiguous() for tensor in inputs_on(rig, length, channels, dtype)]


def check(rig: Rig, library: Path) -> None:
    """Stop unless the plugin agrees with the definition in float64."""
    sizes = [(1024, 72), (256, 360)] if rig.device == "cuda" else [(40, 8)]
    for (length, channels), dtype in itertools.product(sizes, TOLERANCE):
        inputs = inputs_of(rig, length, channels, dtype)
        exact = [t if t.dtype == torch.int32 else t.double() for t in inputs]
        expected: Any = scan_path(rig, exact, "chunked", False)()
        with Harness(library, SUM, inputs) as harness:
            found = harness(inputs).double()
        deviation = float((found - expected).norm() / expected.norm())
        if not deviation <= TOLERANCE[dtype]:
            raise SystemExit(f"the plugin deviates by {deviation:.1e} at {length}, {dtype}")
    print("the plugin agrees with the definition in every dtype\n")


def rows(rig: Rig, library: Path) -> Rows:
    """For each size, yield the paths to compare and the floor in milliseconds."""
    rate, bandwidth = rig.exponentials(), rig.bandwidth()
    for (width, channels), length, (precision, dtype) in itertools.product(
        rig.sizes.widths.items(), rig.sizes.lengths, DTYPES.items()
    ):
        inputs = inputs_of(rig, length, channels, dtype)
        with Harness(library, SUM, inputs) as harness:
            functions = {n: scan_path(rig, inputs, n, False) for n in rig.names if n != "plugin"}
            functions["plugin"] = functools.partial(harness, inputs)
            yield [width, length, precision], functions, floor(inputs, rate, bandwidth)


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size only")
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each path [20]")
    parser.add_argument(
        "--dry-run", action="store_true", help="run all code on a CPU, to find errors; no results"
    )
    options = parser.parse_args(arguments)
    rig: Rig
    if not options.dry_run and not torch.cuda.is_available():
        print("this PyTorch sees no NVIDIA GPU; nothing was measured", file=sys.stderr)
        return 1
    rig = DryRun() if options.dry_run else Gpu()
    try:
        library = build(shim=True) if options.dry_run else build(architectures_here())
    except ZooError as error:
        print(f"the plugin cannot be measured: {error}", file=sys.stderr)
        return 2
    if options.quick:
        rig.sizes = dataclasses.replace(rig.sizes, lengths=rig.sizes.lengths[:1])
    rig.names = ["plugin", *rig.names]
    print(f"{rig.title()}\n")
    check(rig, library)
    text, _ = compare(rig, ["width", "L", "tokens"], rows(rig, library), options.rounds)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
