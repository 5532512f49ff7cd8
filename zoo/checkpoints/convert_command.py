"""``zoo convert``: convert weights from our format to the authors' and back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoo.checkpoints import convert
from zoo.checkpoints.choose import compat_matters
from zoo.command import COMPAT, run_command


def main(arguments: Sequence[str] | None = None, prog: str = "zoo convert") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Convert weights between our format and the authors'.",
        epilog="example: %(prog)s light_x4.pth -o light_x4.safetensors",
        allow_abbrev=False,
    )
    parser.add_argument("input", type=Path, help="weights file, .safetensors or .pth")
    parser.add_argument(
        "-n",
        "--model",
        help="model of the input; needed for the authors' MambaCSR files [recognised by its keys]",
    )
    parser.add_argument("--compat", choices=["official"], help=COMPAT)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="file to write: .safetensors for our format, .pth for the authors'",
    )
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    overrides = {} if options.compat is None else {"compat": options.compat}
    network = convert(options.input, options.output, recipe=options.model, **overrides)
    print(f"wrote {options.output}: {network.recipe.name}, x{network.scale}")  # noqa: T201
    if overrides and not compat_matters(network):
        print("--compat has no effect on this network")  # noqa: T201
