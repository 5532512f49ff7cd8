"""``python -m zoo`` runs the command ``zoo``."""

import sys

from zoo.cli import main

sys.exit(main())
