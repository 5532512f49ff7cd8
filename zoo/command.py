"""What every command does around its work: logging, Ctrl-C, and mistakes as one line."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from zoo.errors import ZooError


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    arguments: Sequence[str] | None = None,
) -> int:
    """Read the arguments, do the work, and return the exit code: 2 for bad input, 130 for Ctrl-C.

    Args:
        parser: of the command; gets the option ``--debug``.
        run: the work; returns the exit code.
        arguments: words of the command line; None for those of this process.
    """
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        return run(options)
    except KeyboardInterrupt:
        return 130
    except (ZooError, OSError) as error:
        if options.debug:
            raise
        name = parser.prog.removeprefix("python -m ")
        print(f"{name}: error: {error}", file=sys.stderr)  # noqa: T201
        return 2
