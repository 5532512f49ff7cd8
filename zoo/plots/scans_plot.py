"""``zoo scans plot``: draws a scan order."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoo.checkpoints.choose import choose_network
from zoo.command import parse_size, run_command
from zoo.data.images import read_photo
from zoo.data.pixels import to_tensor, with_channels
from zoo.errors import ZooError
from zoo.plots.class_order import plot_classes
from zoo.plots.scan_order import plot_order
from zoo.recipe import parse_overrides
from zoo.scans import SCANS
from zoo.schema import resolve_part


def main(arguments: Sequence[str] | None = None, prog: str = "zoo scans plot") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Draw a scan order as a PNG file.",
        epilog="examples: %(prog)s window size=4 'directions=[row, column]' --size 8x12 -o a.png; "
        "%(prog)s by_class --image photo.png -w MambaIRv2_light_x4.pth -o b.png",
        allow_abbrev=False,
    )
    parser.add_argument("name", help="scan order; see 'zoo list --parts scan'")
    parser.add_argument(
        "options",
        nargs="*",
        default=[],
        metavar="key=value",
        help="options of the scan order, such as size=8",
    )
    parser.add_argument(
        "--size", metavar="HxW", help="height x width in tokens [16x16, or that of the image]"
    )
    parser.add_argument(
        "--image", type=Path, metavar="FILE", help="photo, for an order that depends on the image"
    )
    parser.add_argument("-w", "--weights", type=Path, metavar="FILE", help="weights for --image")
    parser.add_argument("-n", "--model", metavar="NAME", help="model for --image, if not in -w")
    parser.add_argument(
        "--random-weights", action="store_true", help="use an untrained network, for tests"
    )
    parser.add_argument(
        "--block", type=int, metavar="N", help="mixer to draw, counted from 0 [the last one]"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG file to write")
    return run_command(parser, _run, arguments, intermixed=True)


def _run(options: argparse.Namespace) -> None:
    settings = {"type": options.name, **parse_overrides(options.options, "size=8")}
    if options.name == "window":
        settings.setdefault("size", 8)
    order = resolve_part(SCANS, settings, options.name)()
    if order.by_content:
        _plot_photo(options)
    else:
        _refuse(
            {
                "--image": options.image is not None,
                "-w": options.weights is not None,
                "-n": options.model is not None,
                "--random-weights": options.random_weights,
                "--block": options.block is not None,
            },
            f"the order {options.name!r} does not depend on it; use --size",
        )
        height, width = parse_size("16x16" if options.size is None else options.size, "tokens")
        plot_order(order, height, width, options.output)
    print(f"wrote {options.output}")  # noqa: T201


def _plot_photo(options: argparse.Namespace) -> None:
    if options.image is None:
        raise ZooError(
            f"the order {options.name!r} depends on the image: give a photo with --image, and "
            "weights of MambaIRv2 with -w"
        )
    _refuse(
        {"--size": options.size is not None},
        f"the photo sets the size of the order {options.name!r}; leave it out",
    )
    _refuse(
        {option.partition("=")[0]: True for option in options.options},
        f"the network sets the options of the order {options.name!r}; leave it out",
    )
    network = choose_network(options.model, options.weights, random_weights=options.random_weights)
    color_HWC = with_channels(read_photo(options.image).color_HWC, network.channels)
    plot_classes(network, to_tensor(color_HWC), options.output, block=options.block)


def _refuse(given: dict[str, bool], reason: str) -> None:
    """Raise a ZooError for the first option that is given."""
    for option, there in given.items():
        if there:
            raise ZooError(f"{option}: {reason}")
