"""``zoo analyse lam``: local attribution maps, as pictures and numbers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from zoo.analysis import Attribution, diffusion_index, local_attribution
from zoo.analysis.attribution import STEPS
from zoo.command import run_command, whole
from zoo.commands.analysing import (
    Part,
    add_options,
    check_outputs,
    chosen_network,
    parse_place,
    parts_of,
    read_beside,
    shown_progress,
    write_outputs,
)
from zoo.errors import ZooError
from zoo.plots.analysis import figure_of_attribution

SIDE = 64
"""Side in pixels of the part of the photo that is used by default: that of the method's authors."""


def main(arguments: Sequence[str] | None = None, prog: str = "zoo analyse lam") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Show the local attribution map: which input pixels the detail of a square of "
        "the result comes from, and how widely they are spread (diffusion index).",
        epilog="example: %(prog)s mambair_tiny_x2 photo.png --at 40,64 -o lam.png",
        allow_abbrev=False,
    )
    add_options(parser, side=SIDE, several=False)
    parser.add_argument(
        "--at",
        metavar="ROW,COLUMN",
        help="upper left pixel of the square, in pixels of the photo [so that it is in the middle]",
    )
    parser.add_argument(
        "--side",
        type=whole("--side", 1, 4096),
        default=8,
        help="side of the square in pixels of the photo [8]",
    )
    parser.add_argument(
        "--steps",
        type=whole("--steps", 1, 10000),
        default=STEPS,
        help="steps from the blurred photo to the sharp one [50]",
    )
    parser.add_argument("--title", help="title of the row [the name of the model]")
    parser.add_argument(
        "--beside",
        action="append",
        type=Path,
        metavar="FILE",
        help="numbers (.npz) of an earlier picture of this photo, to draw above; may be repeated",
    )
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    check_outputs(options.output, [options.weights, options.photo, *(options.beside or ())])
    network = chosen_network(options)
    at = None if options.at is None else parse_place("--at", options.at)
    [part] = parts_of(
        network, [options.photo], size=options.size, side=SIDE, at=at, covers=options.side
    )
    maps = dict(_earlier(path, part, options.side) for path in options.beside or ())
    title = options.title or Path(options.name).stem
    if title in maps:
        raise ZooError(f"--title {title}: a map of --beside has it too; give another")
    with shown_progress("steps", options.steps) as bar:
        found = local_attribution(
            network,
            part.image_IHW,
            at=(part.row, part.column),
            side=options.side,
            steps=options.steps,
            seen=bar.update,
        )
    maps[title] = found
    for name, told in maps.items():
        print(f"{name}: diffusion index {diffusion_index(told.magnitude):.2f}")
    arrays = {
        "map": found.map_IHW,
        "target": [found.row, found.column, found.side],
        "detail": [found.blurred_detail, found.detail],
        "output": found.output_IHW,
        "image": part.image_IHW,
        "title": title,
    }
    write_outputs(options.output, figure_of_attribution(part.image_IHW, maps), arrays)


def _earlier(path: Path, part: Part, side: int) -> tuple[str, Attribution]:
    """Return the title and the map of an earlier analysis, of the same target of the same photo."""
    found = read_beside(path, ("map", "target", "detail", "output", "image", "title"))
    size, target = tuple(part.image_IHW.shape[1:]), [part.row, part.column, side]
    map_IHW, output_IHW = (torch.from_numpy(found[name].copy()) for name in ("map", "output"))
    if tuple(map_IHW.shape[1:]) != size:
        raise ZooError(
            f"--beside {path}: its map has {tuple(map_IHW.shape[1:])} pixels and this part of the "
            f"photo {size}; use the same photo, --at and --size"
        )
    image_IHW = torch.from_numpy(found["image"].copy())
    # A network of gray photos has seen the same photo with other channels.
    is_other = image_IHW.shape == part.image_IHW.shape and not torch.equal(
        image_IHW, part.image_IHW
    )
    if is_other or found["target"].tolist() != target:
        raise ZooError(
            f"--beside {path}: it shows another {'part or photo' if is_other else 'target'}, "
            "so the maps cannot be compared; use the same photo, --at and --side"
        )
    row, column, _ = target
    lowest, detail = found["detail"].tolist()
    map_ = Attribution(map_IHW, row, column, side, detail, lowest, output_IHW)
    return str(found["title"]), map_
