"""What tests of the C++ library share: its instruction sets, and which passes have run."""

from __future__ import annotations

from zoo.ops.passes import library
from zoo.ops.scan import native

BUILT = native.LIBRARY.exists()
LEVELS = [n for n in native.LEVELS if BUILT and native.library().zoo_scan_level(n.encode())]
"""The instruction sets that run here, best first."""


def passes_that_run(monkeypatch):
    """A list that gets the name of each pass that runs from now on."""
    names, run = [], library.run

    def spied(function, *arguments):
        names.append(function)
        run(function, *arguments)

    monkeypatch.setattr(library, "run", spied)
    return names
