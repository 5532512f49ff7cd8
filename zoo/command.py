"""What every command has in common: options, version, the user's own parts, one-line errors.

Each command line of the project (``zoo``, ``recipes/*.py``, ``python -m export.*``,
``python -m zoo.data.*``, ``python -m trt_plugins.build``) is run by :func:`run_command`.
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
"""Entry-point group by which installed packages announce modules that register parts."""

COMPAT = "reproduce the authors' outputs where their code errs (MambaCSR with cross-scale)"
"""Help of the option ``--compat`` of the commands that load weights."""

BAD_INPUT, INTERRUPTED = 2, 130
"""Exit codes: an error that the user can mend, and Ctrl-C."""


def package_version() -> str:
    """Version of the installed package, which ``pyproject.toml`` states; also ``zoo.__version__``.

    It is "0+unknown" in a checkout that is not installed.
    """
    try:
        return version("mamba-restoration-zoo")
    except PackageNotFoundError:
        return "0+unknown"


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


def parse_size(text: str, unit: str) -> tuple[int, int]:
    """Read the height and width of ``--size HxW``.

    Raises:
        ZooError: for anything but two whole numbers from 1.
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
    """Read the arguments, import the user's parts, do the work, and return the exit code.

    Errors that the user can mend are one line on standard error; ``--debug`` shows the traceback.

    Args:
        parser: of the command. It gets the options ``--import`` and ``--debug``.
        run: the work. It returns the exit code; None means 0.
        arguments: words of the command line; None for those of this process.
        prog: how the user called the command, where that differs from the parser's ``prog``; it is
            shown in the usage and in errors.
        intermixed: allow options between positional arguments.

    Returns:
        What ``run`` returned, 2 for an error that the user can mend, or 130 after Ctrl-C.
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
        try:
            entry.load()
        except (ImportError, AttributeError) as error:
            package = entry.dist.name if entry.dist else "an installed package"
            raise ZooError(
                f"{package} announces parts in {entry.value!r}, which cannot be imported: {error}; "
                "repair or uninstall it"
            ) from error
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ZooError(
                f"--import {module}: no module {error.name!r}; give a module's name, without .py, "
                "in this folder or installed"
            ) from error
