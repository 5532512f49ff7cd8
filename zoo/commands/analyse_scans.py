"""``zoo analyse scans``: how far each direction of a scan remembers, as pictures and numbers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from zoo.analysis import scan_decays
from zoo.command import run_command, whole
from zoo.commands.analysing import (
    add_options,
    check_outputs,
    chosen_network,
    parts_of,
    write_outputs,
)
from zoo.errors import ZooError
from zoo.plots.analysis import figure_of_decay

SIDE = 64
"""Side in pixels of the part of the photo that is used by default."""


def main(arguments: Sequence[str] | None = None, prog: str = "zoo analyse scans") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Show how much of a token each direction of a scan still holds after a "
        "distance, along the path and in the photo.",
        epilog="example: %(prog)s mambair_tiny_x2 photo.png --block 0 -o decay.png",
        allow_abbrev=False,
    )
    add_options(parser, side=SIDE, several=False)
    parser.add_argument(
        "--block",
        type=whole("--block", 0),
        metavar="N",
        help="mixer to draw, counted from 0 [the last one]",
    )
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    check_outputs(options.output, [options.weights, options.photo])
    network = chosen_network(options)
    [part] = parts_of(network, [options.photo], size=options.size, side=SIDE)
    found = scan_decays(network, part.image_IHW)
    number = len(found) - 1 if options.block is None else options.block
    if number >= len(found):
        raise ZooError(f"--block {number}: the network has the blocks 0 to {len(found) - 1}")
    arrays: dict[str, Any] = {}
    for decay in found:
        halves = [decay.half_life(k) for k in range(len(decay.directions))]
        told = ", ".join(
            f"{name}: {'more than the path has' if half is None else half}"
            for name, half in zip(decay.directions, halves, strict=True)
        )
        print(f"{decay.place}: tokens after which half of the state is gone: {told}")
        arrays[f"{decay.place}/distance"] = decay.distance_D
        arrays[f"{decay.place}/kept"] = decay.kept_KD
        arrays[f"{decay.place}/directions"] = list(decay.directions)
        if decay.kept_KHW is not None and decay.weight_KHW is not None:
            arrays[f"{decay.place}/kept_map"] = decay.kept_KHW
            arrays[f"{decay.place}/weight_map"] = decay.weight_KHW
    write_outputs(options.output, figure_of_decay(found[number]), arrays)
