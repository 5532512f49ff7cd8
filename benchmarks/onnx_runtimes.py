"""Which runtimes run our ONNX files, and whether they agree with PyTorch: a table with dates.

    python benchmarks/onnx_runtimes.py                      # all runtimes and all networks
    python benchmarks/onnx_runtimes.py --only openvino      # runtimes with this word in the name
    python benchmarks/onnx_runtimes.py --speed              # time at 128x128 beside PyTorch instead

Each runtime gets an environment of its own in ``.runtimes``, made once, which needs pip, and npm
for those of JavaScript. Files are exported to ``.runtimes/files``, again if weights change. Delete
the folder to get newest versions and new files. Prints the table of docs/onnx.md.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from measure import best_times, machine, table
from onnx_files import with_realistic_weights
from runtimes import CACHE, Case, Result, Runtime, run_cases

import zoo
from export.model import facts_in, facts_of
from export.onnx import export
from export.precision import prepared
from export.shape import input_shape
from zoo.integrations.onnxruntime import open_session
from zoo.networks import Network
from zoo.ops.passes.conditions import ENVIRONMENT

ALLOWED = {"onnxconverter-common float16": 1e-2}
"""Largest error over the range of PyTorch's output for what rounds; 1e-5 for all others."""

SIZE = (1, 29, 35)
"""Batch, height and width: odd, and not the sizes of the trace."""

SHORT = 160
"""Most characters of an error in the table."""

NOISE = re.compile(r"Exception from \S+ |Check '.*?' failed at \S+ |\[ONNXRuntimeError\] : ")
"""Parts of errors that say nothing of the cause."""


UNET = {"dim": 30, "depths": [1, 1, 1, 1], "refinement": 0, "block.branch.squeeze": 6}
NETWORKS: dict[str, Callable[[], Network]] = {
    "mambair_tiny_x2": lambda: zoo.load("mambair_tiny_x2"),
    "mambacsr_tiny_x2": lambda: zoo.load("mambacsr_tiny_x2"),
    "qmambabsr_tiny": lambda: zoo.load("qmambabsr_tiny"),
    "mambairv2_tiny_x2": lambda: with_realistic_weights("mambairv2_tiny_x2"),
    "mambair_light_x4": lambda: with_realistic_weights("mambair_light_x4"),
    "mambair_realdn, narrow": lambda: with_realistic_weights("mambair_realdn", **UNET),
}

NUMPY_1, NUMPY_2 = "numpy==1.26.4", "numpy==2.2.6"
TOOLS = ("onnx", "onnxruntime", "onnxslim", "onnxsim", "onnxconverter-common")
OPENVINO = ("openvino-telemetry", NUMPY_2)


@dataclass(frozen=True)
class Row:
    """A row of the table: a runtime, and whether it is given the inlined file."""

    runtime: Runtime
    inline: bool = False


def rows() -> list[Row]:
    """All rows. A runtime without a version is the newest."""
    old, new = ("1.17.3", "1.18.1"), ("1.20.1", "1.22.1", "1.24.4")
    found = [Row(Runtime("onnxruntime", (f"onnxruntime=={v}", NUMPY_1))) for v in old]
    found += [Row(Runtime("onnxruntime", (f"onnxruntime=={v}", NUMPY_2))) for v in new]
    found.append(Row(Runtime("onnxruntime", ("onnxruntime", NUMPY_2))))
    found.append(Row(Runtime("onnxruntime-node", ("onnxruntime-node",))))
    for version in ("@1.18.0", "@1.22.0", ""):
        found.append(Row(Runtime("onnxruntime-web", (f"onnxruntime-web{version}",))))
    for version in ("==2025.4.1", ""):
        runtime = Runtime("openvino", (f"openvino{version}", *OPENVINO))
        found += [Row(runtime), Row(runtime, inline=True)]
    for tool in ("onnxslim", "onnxsim", "onnx.inliner", "onnx.reference"):
        found.append(Row(Runtime(tool, TOOLS, whole=True)))
    for tool in ("onnxslim", "onnxsim", "onnx.version_converter", "onnxconverter-common float16"):
        found.append(Row(Runtime(tool, TOOLS, whole=True), inline=True))
    return found


def inputs_of(network: Network, size: tuple[int, int, int]) -> dict[str, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    shape = input_shape(network).concrete(*size)
    found = {"input": torch.rand(shape, generator=generator)}
    if network.takes_flow:
        found["flow"] = torch.rand(shape[0], shape[1], 2, *shape[-2:], generator=generator) - 0.5
    return {name: value.numpy() for name, value in found.items()}


def file_of(name: str, network: Network, *, inline: bool) -> Path:
    """Export a network unless a file with its weights is there."""
    path = CACHE / "files" / f"{name.replace(', ', '_')}{'_inlined' if inline else ''}.onnx"
    wanted = facts_of(network, "")["weights_sha256"]
    if not path.exists() or facts_in(onnx.load(path)).get("weights_sha256") != wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        export(network, path, inline=inline)
    return path


def expected_of(network: Network, inputs: dict[str, np.ndarray]) -> np.ndarray:
    reference = prepared(network, input_shape(network), "fp32")
    with torch.inference_mode():
        image, *extra = map(torch.from_numpy, inputs.values())
        return np.asarray(reference(image, extra).numpy())


def cell(result: Result, expected: np.ndarray, allowed: float) -> str:
    """The error over the range of PyTorch's output, or why there is none."""
    if result.output is None:
        return NOISE.sub("", result.error)[:SHORT].replace("|", "/")
    if result.output.shape != expected.shape:
        return f"shape {result.output.shape}"
    error = float(np.abs(result.output - expected).max() / np.ptp(expected))
    return f"{error:.1e}" if error <= allowed else f"WRONG {error:.1e}"


def agreement(chosen: list[Row], names: list[str]) -> int:
    networks = {name: NETWORKS[name]().eval() for name in names}
    inputs = {name: inputs_of(network, SIZE) for name, network in networks.items()}
    expected = {name: expected_of(networks[name], inputs[name]) for name in names}
    lines: list[list[str]] = []
    for row in chosen:
        cases = [
            Case(file_of(n, network, inline=row.inline), inputs[n])
            for n, network in networks.items()
        ]
        try:
            version, results = run_cases(row.runtime, cases)
        except RuntimeError as error:
            version, results = "not installed", [Result(error=str(error))] * len(cases)
        allowed = ALLOWED.get(row.runtime.name, 1e-5)
        cells = [cell(r, expected[n], allowed) for n, r in zip(names, results, strict=True)]
        if len(set(cells)) == 1 and results[0].output is None:
            cells = [cells[0], *["same"] * (len(cells) - 1)]
        form = "inlined" if row.inline else "default"
        lines.append([row.runtime.name, version, form, *cells])
        print(*lines[-1], sep=" | ", file=sys.stderr, flush=True)
    print(f"{time.strftime('%Y-%m-%d')}, images of {'x'.join(map(str, SIZE))}, {machine()}\n")
    print(table(["runtime", "version", "file", *names], lines))
    return any("WRONG" in word for line in lines for word in line)


def speed(names: list[str], side: int, turn: float) -> None:
    """Print the time of one image in PyTorch and in ONNX Runtime, with and without our operator.

    PyTorch also runs without our joined passes, which ONNX Runtime does not have.
    """
    torch.set_num_threads(1)
    lines = []
    for name in names:
        network = NETWORKS[name]().eval()
        inputs = inputs_of(network, (1, side, side))
        tensors = [torch.from_numpy(value) for value in inputs.values()]
        path = file_of(name, network, inline=False)
        paths: dict[str, Callable[[], Any]] = {
            "PyTorch": partial(network, *tensors),
            "without passes": partial(without_passes, network, *tensors),
        }
        for runs, own in (("our operator", True), ("the function", False)):
            session = open_session(path, operator=own, threads=1)
            paths[runs] = partial(session.run, None, inputs)
        with torch.inference_mode():
            best = best_times(paths, turn, time.process_time)
        passes, plain, operator, function = (seconds * 1e3 for seconds in best.values())
        ratios = [f"{x / y:.2f}" for x in (operator, function) for y in (passes, plain)]
        lines.append([name, f"{passes:.0f}", f"{plain:.0f}", *ratios])
    print(f"{time.strftime('%Y-%m-%d')}, images of 1x{side}x{side}, {machine()}\n")
    head = ["network", "PyTorch, ms", "without passes, ms"]
    head += [
        f"{runs} / {beside}"
        for runs in ("our operator", "the function")
        for beside in ("PyTorch", "without passes")
    ]
    print(table(head, lines))


def without_passes(network: Network, *tensors: torch.Tensor) -> torch.Tensor:
    """Call a network without our joined passes on the CPU."""
    before = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = "0"
    try:
        return network(*tensors)
    finally:
        if before is None:
            del os.environ[ENVIRONMENT]
        else:
            os.environ[ENVIRONMENT] = before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", default="", help="runtimes whose name has this text [all]")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--speed", action="store_true", help="time PyTorch and ONNX Runtime here")
    parser.add_argument("--side", type=int, default=128, help="with --speed: pixels [128]")
    parser.add_argument("--seconds", type=float, default=5, help="with --speed: for each path [5]")
    options = parser.parse_args()
    if options.speed:
        speed(options.networks, options.side, options.seconds)
        return 0
    chosen = [row for row in rows() if options.only in f"{row.runtime.name} {row.runtime.packages}"]
    return agreement(chosen, options.networks)


if __name__ == "__main__":
    sys.exit(main())
