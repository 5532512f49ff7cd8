"""What every command has in common: its options, the user's own parts, and one-line errors.

Each command line of the project (``zoo``, ``recipes/*.py``, ``python -m export.*``,
``python -m zoo.data.*``, ``python -m trt_plugins.build``) is run by :func:`run_command`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

ENTRY_POINTS = "zoo.parts"
"""Entry-point group by which installed packages announce modules that register parts."""

BAD_INPUT, INTERRUPTED = 2, 130
"""Exit codes: an error that the user can mend, and Ctrl-C."""


def add_common_options(parser: argparse.ArgumentParser, **settings: Any) -> None:
    """Add ``--import MODULE`` and ``--debug`` to a parser; :func:`run_command` reads them."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        metavar="MODULE",
        help="Python module that registers parts of your own; may be repeated",
        **settings,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks", **settings)


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None = None,
    *,
    intermixed: bool = False,
) -> int:
    """Read the arguments, import the user's parts, do the work, and return the exit code.

    Errors that the user can mend are one line on standard error; ``--debug`` shows the traceback.

    Args:
        parser: of the command. It gets the options ``--import`` and ``--debug``.
        run: the work. It returns the exit code; None means 0.
        arguments: words of the command line; None for those of this process.
        intermixed: allow options between positional arguments.

    Returns:
        What ``run`` returned, 2 for an error that the user can mend, or 130 after Ctrl-C.
    """
    add_common_options(parser)
    read = parser.parse_intermixed_args if intermixed else parser.parse_args
    options = read(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        import_parts(options.imports or ())
        return run(options) or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if options.debug or not _is_mendable(error):
            raise
        name = parser.prog.removeprefix("python -m ")
        print(f"{name}: error: {error}", file=sys.stderr)  # noqa: T201
        return BAD_INPUT


def _is_mendable(error: Exception) -> bool:
    """Whether the input caused the error, rather than a defect of the package."""
    # The operator imports nothing of the package, so its error is no ZooError.
    from zoo.ops.scan import BackendError

    return isinstance(error, (ZooError, BackendError, OSError))


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
