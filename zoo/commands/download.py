"""``zoo download``: get the weights that the authors of a model have released."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoo.checkpoints.released import PAGE, RELEASED, download, is_there
from zoo.command import run_command
from zoo.errors import ZooError

EXAMPLES = """examples:
  zoo download --list
  zoo download mambairv2_light_x4
  zoo restore photo.png -o big.png -w mambairv2_light_x4.pth"""


def main(arguments: Sequence[str] | None = None, prog: str = "zoo download") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Get the weights that the authors of a model have released.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", help="model; see --list")
    parser.add_argument("-o", "--output", type=Path, help="file to write [NAME.pth]")
    parser.add_argument("--list", action="store_true", help="list the models with released weights")
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    if options.list:
        print("\n".join(sorted(RELEASED)))
        print(f"\nThe authors' page: {PAGE}")
        return
    if options.name is None:
        raise ZooError("name a model; zoo download --list shows those with released weights")
    target = options.output or Path(f"{options.name}.pth")
    if is_there(options.name, target):
        print(f"{target} is there already")
    elif target.is_dir():
        raise ZooError(f"{target} is a folder; name a file: -o {target / options.name}.pth")
    elif target.exists():
        raise ZooError(f"{target} exists, and is not what was downloaded; move it, or give -o")
    else:
        print(f"{target}: from {download(options.name, target)}")
    print(f"zoo restore photo.png -o restored.png -w {target}")
