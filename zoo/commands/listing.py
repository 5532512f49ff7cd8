"""``zoo list``: the models, or the parts that they are made of.

The models are listed without PyTorch, so that this is fast. The parts need it: they are classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from zoo.command import run_command
from zoo.errors import ZooError, nearest
from zoo.interrupts import quiet_imports
from zoo.recipe_files import summary_of
from zoo.shipped import list_models, shipped_weights


def main(arguments: Sequence[str] | None = None, prog: str = "zoo list") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="List models, or with --parts the parts they are made of.",
        epilog="examples: zoo list '*light*'; zoo list --parts; zoo list --parts scan",
        allow_abbrev=False,
    )
    parser.add_argument("pattern", nargs="?", default="*", help="shell-style pattern of names [*]")
    parser.add_argument(
        "--parts", nargs="?", const="", metavar="KIND", help="list parts, of KIND or of all kinds"
    )
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    if options.parts is None:
        _list_models(options.pattern)
    else:
        _list_parts(options.parts or None, options.pattern)


def _list_models(pattern: str) -> None:
    names, shipped = list_models(pattern), shipped_weights()
    if not names:
        raise ZooError(f"no model matches {pattern!r}{nearest(pattern, list_models())}")
    width = max(map(len, names))
    for name in names:
        mark = "*" if name in shipped else " "
        print(f"{name:<{width}} {mark} {summary_of(name)}")
    print("\n* weights ship with the package")


def _list_parts(kind: str | None, pattern: str) -> None:
    with quiet_imports():
        from zoo.description import list_parts

    print("\n".join(list_parts(kind, pattern)))
