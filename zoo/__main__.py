"""``python -m zoo`` and the command ``zoo``: the command line of :mod:`zoo.cli`."""

import sys


def main() -> int:
    """Run a command and return its exit code."""
    from zoo.cli import main as run

    return run()


if __name__ == "__main__":  # a process that loads data may import this module again
    sys.exit(main())
