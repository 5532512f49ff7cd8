"""``zoo analyse erf``: effective receptive fields, as pictures and numbers."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from zoo.analysis import ReceptiveField, effective_receptive_field, extents
from zoo.command import run_command
from zoo.commands.analysing import (
    add_options,
    check_outputs,
    chosen_network,
    parse_place,
    parts_of,
    photo_paths,
    read_beside,
    shown_progress,
    write_outputs,
)
from zoo.errors import ZooError
from zoo.plots.analysis import figure_of_fields

SIDE = 96
"""Side in pixels of the part of a photo that is used by default."""


def main(arguments: Sequence[str] | None = None, prog: str = "zoo analyse erf") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Show the effective receptive field: how much each input pixel moves the "
        "output in the middle, as a mean over photos.",
        epilog="examples: %(prog)s mambair_tiny_x2 photos -o mambair.png; %(prog)s mambacsr_final "
        "-w mine.safetensors photos --beside mambair.npz -o both.png",
        allow_abbrev=False,
    )
    add_options(parser, side=SIDE, several=True)
    parser.add_argument("--at", metavar="ROW,COLUMN", help="the pixel in each photo [the middle]")
    parser.add_argument("--title", help="title of the panel [the name of the model]")
    parser.add_argument(
        "--beside",
        action="append",
        type=Path,
        metavar="FILE",
        help="numbers (.npz) of an earlier picture, to draw left of this one; may be repeated",
    )
    return run_command(parser, _run, arguments, intermixed=True)


def _run(options: argparse.Namespace) -> None:
    paths = photo_paths(options.photos)
    check_outputs(
        options.output, [options.weights, *options.photos, *paths, *(options.beside or ())]
    )
    fields = dict(_earlier(path) for path in options.beside or ())
    title = options.title or Path(options.name).stem
    if title in fields:
        raise ZooError(f"--title {title}: a field of --beside has it too; give another")
    network = chosen_network(options)
    at = None if options.at is None else parse_place("--at", options.at)
    parts = parts_of(network, paths, size=options.size, side=SIDE, at=at)
    places = {(part.row, part.column) for part in parts}
    if len(places) > 1:
        raise ZooError(f"--at {options.at}: too near to the border of some photos for this --size")
    with shown_progress("photos", len(parts)) as bar:
        images = (part.image_IHW for part in parts)
        field = effective_receptive_field(network, images, at=places.pop(), seen=bar.update)
    fields[title] = field
    for name, found in fields.items():
        told = ", ".join(
            f"{e.fraction:.0%} within {e.side} px ({percent(e.area)})" for e in extents(found)
        )
        print(f"{name}: {told}")
    arrays = {"field": field.field_HW, "at": [field.row, field.column], "title": title}
    write_outputs(options.output, figure_of_fields(fields), arrays)


def percent(share: float) -> str:
    """Return a share above 0 in percent, with one decimal, or as many as show two digits."""
    places = max(1, 1 - math.floor(math.log10(100 * share)))
    return f"{share:.{places}%}"


def _earlier(path: Path) -> tuple[str, ReceptiveField]:
    found = read_beside(path, ("field", "at", "title"))
    field_HW = torch.from_numpy(found["field"].astype("float64"))
    row, column = found["at"].tolist()
    return str(found["title"]), ReceptiveField(field_HW, row, column)
