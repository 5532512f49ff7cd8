"""``python -m zoo`` runs the command ``zoo``."""

import sys

from zoo.cli import main

if __name__ == "__main__":  # a process that loads data may import this module again
    sys.exit(main())
