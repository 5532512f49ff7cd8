"""``python -m zoo`` and the command ``zoo``: the command line of :mod:`zoo.cli`."""

import sys

from zoo.interrupts import quiet_imports


def main() -> int:
    """Run a command and return its exit code."""
    with quiet_imports():
        from zoo.cli import main as run
    return run()


if __name__ == "__main__":  # a process that loads data may import this module again
    sys.exit(main())
