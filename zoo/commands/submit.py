"""``zoo submit``: denoises the photos of a benchmark and writes the files that its server takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.checkpoints.choose import choose_network
from zoo.command import run_command
from zoo.data.pixels import to_array, to_tensor
from zoo.distributed import DEVICE, checked_device, default_device
from zoo.errors import ZooError
from zoo.evaluation.submission import submit_dnd, submit_sidd
from zoo.inference import RestoreSettings, restore_tensor
from zoo.ops.precision import DTYPES

BENCHMARKS = {"sidd": submit_sidd, "dnd": submit_dnd}


def main(arguments: Sequence[str] | None = None, prog: str = "zoo submit") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Denoise the photos of a benchmark whose clean images are not public, and "
        "write the files that its server takes. Run the same command again to go on where it "
        "stopped.",
        epilog="examples: %(prog)s sidd BenchmarkNoisyBlocksSrgb.mat -o SubmitSrgb.csv "
        "-n mambair_realdn -w FILE; %(prog)s dnd DND -o submission -n mambair_realdn -w FILE",
        allow_abbrev=False,
    )
    parser.add_argument("benchmark", choices=list(BENCHMARKS), help="the benchmark")
    parser.add_argument(
        "input", type=Path, help="sidd: its MATLAB file of noisy blocks; dnd: its folder"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="sidd: a .csv file for its server, or a .mat file for the authors' script; dnd: a "
        "folder",
    )
    parser.add_argument("-n", "--model", help="model; see 'zoo list'")
    parser.add_argument("-w", "--weights", type=Path, help="weights file, .safetensors or .pth")
    parser.add_argument(
        "--precision", choices=list(DTYPES), default="fp32", help="precision of the layers [fp32]"
    )
    parser.add_argument("--device", default=default_device(), **DEVICE)
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    network = choose_network(options.model, options.weights).to(checked_device(options.device))
    sizes = network.scale, network.channels, network.out_channels
    if sizes != (1, 3, 3) or network.takes_burst or network.guides:
        raise ZooError(
            f"{options.benchmark} needs a network that denoises RGB photos; {network.recipe.name} "
            "is for something else"
        )
    settings = RestoreSettings(tile=0, precision=options.precision)

    def denoise(noisy_HW3: np.ndarray) -> np.ndarray:
        found_1IHW = restore_tensor(network, to_tensor(noisy_HW3)[None], settings)
        return to_array(found_1IHW[0].clamp(0, 1))

    weights = options.weights
    stamp = weights.stat().st_mtime_ns if weights is not None else ""
    of = f"{network.recipe.name}, {weights} of {stamp}, {options.precision}, {options.input}"
    BENCHMARKS[options.benchmark](denoise, options.input, options.output, of)
    print(f"wrote {options.output}")
