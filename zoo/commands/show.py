"""``zoo show``: the description of a model or a part."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from zoo.checkpoints import detect
from zoo.checkpoints.hub import SUFFIXES
from zoo.command import parse_size, run_command
from zoo.description import ModelDescription, describe
from zoo.recipe import load_recipe


def main(arguments: Sequence[str] | None = None, prog: str = "zoo show") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Describe a model (size, operations), a file of weights or a part (options).",
        epilog="examples: zoo show mambair_light_x4 --size 180x320; zoo show light_x4.pth; "
        "zoo show block/rssb",
        allow_abbrev=False,
    )
    parser.add_argument(
        "name",
        help="a model, a recipe file (.yaml), a file of weights, or a part (KIND/NAME); see "
        "'zoo list'",
    )
    parser.add_argument(
        "--size",
        default="64x64",
        metavar="HxW",
        help="height x width in pixels of the input for counting operations [64x64]",
    )
    parser.add_argument(
        "--count",
        choices=["flops", "macs"],
        default="flops",
        help="count all operations, or multiply-adds as the papers' tables do [flops]",
    )
    parser.add_argument("--recipe", action="store_true", help="print the model's whole recipe too")
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    height, width = parse_size(options.size, "pixels")
    path = Path(options.name)
    is_weights = path.suffix.lower() in SUFFIXES and path.is_file()
    name = detect(path) if is_weights else options.name
    found = describe(name, height=height, width=width)
    print(found.text(options.count) if isinstance(found, ModelDescription) else found)
    if isinstance(found, ModelDescription) and options.recipe:
        print()
        print(yaml.safe_dump(load_recipe(name).data(), sort_keys=False), end="")
