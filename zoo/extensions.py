"""Parts of a user's own: modules named on the command line, and those packages announce."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from zoo.errors import ZooError

ENTRY_POINTS = "zoo.parts"
"""Entry-point group by which installed packages announce modules that register parts."""


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Give a command ``--import MODULE``; the names end up in ``imports``, for import_parts."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module with parts of your own; may be repeated",
    )


def import_parts(modules: Sequence[str]) -> None:
    """Import modules that register parts, and those that installed packages announce.

    Modules are also looked for in the current folder, as ``python -m`` does.

    Raises:
        ZooError: naming the module that cannot be imported.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ZooError(
                f"--import {module}: no module {error.name!r}; give a module's name, without .py, "
                "in this folder or installed"
            ) from error
