"""The TensorRT plugin's kernel on an NVIDIA GPU, without TensorRT, beside PyTorch's backends.

    python benchmarks/tensorrt_plugin.py [--quick]

Checks the plugin against the definition first and stops if it differs. Then prints one table of the
forward operator, measured as in ``benchmarks/gpu.py``; the plugin's own memory is its workspace.
"""

from __future__ import annotations

import argparse
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
from gpu import (
    DTYPES,
    LENGTHS,
    TOLERANCE,
    WIDTHS,
    compare,
    copy_bandwidth,
    exponential_rate,
    floor,
    gpu,
    on_gpu,
    paths,
    scan_path,
)

from trt_plugins.build import architectures_here, build
from trt_plugins.harness import SUM, Harness
from zoo.errors import ZooError

PRECISIONS = {**DTYPES, "fp16": torch.float16}


def inputs_of(length: int, channels: int, dtype: torch.dtype) -> list[Tensor]:
    """As TensorRT has them: contiguous."""
    return [tensor.contiguous() for tensor in on_gpu(length, channels, dtype)]


def check(library: Path) -> None:
    """Stop unless the plugin agrees with the definition in float64."""
    for (length, channels), dtype in itertools.product([(1024, 72), (256, 360)], TOLERANCE):
        inputs = inputs_of(length, channels, dtype)
        exact = [t if t.dtype == torch.int32 else t.double() for t in inputs]
        expected: Any = scan_path(exact, "chunked", False)()
        with Harness(library, SUM, inputs) as harness:
            found = harness(inputs).double()
        deviation = float((found - expected).norm() / expected.norm())
        if not deviation <= TOLERANCE[dtype]:
            raise SystemExit(f"the plugin deviates by {deviation:.1e} at {length}, {dtype}")
    print("the plugin agrees with the definition in every dtype\n")


def rows(library: Path, names: list[str], lengths: tuple[int, ...]) -> Any:
    """For each size the ways to compute it, and the time that none can beat."""
    rate, bandwidth = exponential_rate(), copy_bandwidth()
    for (width, channels), length, (kind, dtype) in itertools.product(
        WIDTHS.items(), lengths, PRECISIONS.items()
    ):
        inputs = inputs_of(length, channels, dtype)
        with Harness(library, SUM, inputs) as harness:
            functions = {name: scan_path(inputs, name, False) for name in names}
            functions["plugin"] = functools.partial(harness, inputs)
            yield [width, length, kind], functions, floor(inputs, rate, bandwidth)


def main() -> int:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size only")
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each path [20]")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("this PyTorch sees no NVIDIA GPU; nothing was measured", file=sys.stderr)
        return 1
    try:
        library = build(architectures_here())
    except ZooError as error:
        print(f"the plugin cannot be measured: {error}", file=sys.stderr)
        return 2
    check(library)
    names = paths()
    if "triton" not in names:
        return 1
    lengths = LENGTHS[:1] if options.quick else LENGTHS
    cases = rows(library, names, lengths)  # each harness lives as long as its row is measured
    text, _ = compare(["width", "L", "tokens"], cases, [*names, "plugin"], options.rounds)
    print(f"{gpu()}\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
