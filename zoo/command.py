"""What all commands share: common options, the version, loading the user's parts, error messages.

:func:`run_command` runs every command of the project: ``zoo``, ``recipes/*.py``,
``python -m export.*``, ``python -m zoo.data.*`` and ``python -m trt_plugins.build``.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

ENTRY_POINTS = "zoo.parts"
"""Entry-point group in which installed packages list their modules that register parts."""

COMPAT = "reproduce the authors' outputs, including an error in their code (cross-scale MambaCSR)"
"""Help of the option ``--compat`` of the commands that load weights."""

BAD_INPUT, INTERRUPTED = 2, 130
"""Exit codes for an error that the user can fix, and for Ctrl-C."""


def package_version() -> str:
    """Return the version of the installed package; it is also ``zoo.__version__``.

    The version is set in ``pyproject.toml``. Without an installation, it is "0+unknown".
    """
    try:
        return version("mamba-restoration-zoo")
    except PackageNotFoundError:
        return "0+unknown"


def add_common_options(parser: argparse.ArgumentParser, **settings: Any) -> None:
    """Add ``--import MODULE`` and ``--debug``, which :func:`run_command` reads, to a parser."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        metavar="MODULE",
        help="Python module that registers your own parts; may be repeated",
        **settings,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks", **settings)


def parse_size(text: str, unit: str) -> tuple[int, int]:
    """Parse the height and width of ``--size HxW``.

    Args:
        text: value of the option.
        unit: unit of both numbers, for the error message.

    Raises:
        ZooError: if the text is not two integers of at least 1 with an "x" between.
    """
    height, times, width = text.partition("x")
    if not (times and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ZooError(f"--size {text!r}: write height x width in {unit}, such as 16x24")
    return int(height), int(width)


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None = None,
    *,
    prog: str | None = None,
    intermixed: bool = False,
) -> int:
    """Parse the arguments, import the user's parts, run the command, and return the exit code.

    An error that the user can fix is printed as one line on standard error. ``--debug`` shows its
    traceback instead.

    Args:
        parser: parser of the command. The options ``--import`` and ``--debug`` are added to it.
        run: runs the command and returns the exit code; None means 0.
        arguments: words of the command line; None for ``sys.argv``.
        prog: name of the command in the usage and in errors; None for the parser's ``prog``.
        intermixed: whether options may be between positional arguments.

    Returns:
        The exit code of ``run``, 2 for an error that the user can fix, or 130 after Ctrl-C.
    """
    parser.prog = prog or parser.prog
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
        name = parser.prog.removeprefix("python ").removeprefix("-m ")
        print(f"{name}: error: {error}", file=sys.stderr)  # noqa: T201
        return BAD_INPUT


def _is_mendable(error: Exception) -> bool:
    """Return whether the error comes from the input and not from a bug in the package."""
    # The operator does not import the rest of the package, so its error is not a ZooError.
    from zoo.ops.scan import BackendError

    return isinstance(error, (ZooError, BackendError, OSError))


def import_parts(modules: Sequence[str]) -> None:
    """Import the given modules, and the modules that installed packages list as entry points.

    Modules in the current folder are found too, as with ``python -m``.

    Raises:
        ZooError: if a module cannot be imported; the message names it.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except (ImportError, AttributeError) as error:
            package = entry.dist.name if entry.dist else "an installed package"
            raise ZooError(
                f"{package} lists parts in {entry.value!r}, which cannot be imported: {error}; "
                "repair or uninstall it"
            ) from error
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ZooError(
                f"--import {module}: no module {error.name!r}; give the name, without .py, of a "
                "module that is in this folder or installed"
            ) from error
