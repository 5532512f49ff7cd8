"""``zoo analyse activations``: which channels of a network's mixers are active."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from zoo.analysis import channel_activations
from zoo.command import run_command, whole
from zoo.commands.analysing import (
    add_options,
    check_outputs,
    chosen_network,
    parts_of,
    photo_paths,
    shown_progress,
    write_outputs,
)
from zoo.errors import ZooError
from zoo.plots.analysis import figure_of_activations

SIDE = 96
"""Side in pixels of the part of a photo that is used by default."""


def main(arguments: Sequence[str] | None = None, prog: str = "zoo analyse activations") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Show the activation of each channel: ReLU of a layer's output, then the mean "
        "over the photos.",
        epilog="example: %(prog)s mambair_tiny_x2 photos -o channels.png",
        allow_abbrev=False,
    )
    add_options(parser, side=SIDE, several=True)
    parser.add_argument(
        "--of",
        choices=["mixer", "block"],
        default="mixer",
        help="layers: mixers, or whole blocks [mixer]",
    )
    parser.add_argument(
        "--layer",
        type=whole("--layer", 0),
        metavar="N",
        help="layer with bars, counted from 0 [the last one]",
    )
    return run_command(parser, _run, arguments, intermixed=True)


def _run(options: argparse.Namespace) -> None:
    paths = photo_paths(options.photos)
    check_outputs(options.output, [options.weights, *options.photos, *paths])
    network = chosen_network(options)
    parts = parts_of(network, paths, size=options.size, side=SIDE)
    with shown_progress("photos", len(parts)) as bar:
        images = (part.image_IHW for part in parts)
        layers = channel_activations(network, images, layer=options.of, seen=bar.update)
    number = len(layers) - 1 if options.layer is None else options.layer
    if number >= len(layers):
        raise ZooError(f"--layer {number}: the network has the layers 0 to {len(layers) - 1}")
    for found in layers:
        print(f"{found.place}: {found.active:.0%} of {len(found.value_C)} active")
    arrays = {found.place: found.value_C for found in layers}
    write_outputs(options.output, figure_of_activations(layers, number), arrays)
