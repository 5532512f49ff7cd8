"""The areas that are fuzzed, by name. They are imported on demand."""

from __future__ import annotations

import importlib
from typing import cast

from tests.fuzz.frame import Area

AREAS: tuple[str, ...] = ("operator", "images", "bursts", "kills", "recipes", "weights")
"""Modules of this package."""

SLOW: tuple[str, ...] = ("kills_of_exports",)
"""Modules that are too slow for a slice in the default suite."""


def load(name: str) -> Area:
    """Import an area."""
    return cast(Area, importlib.import_module(f"tests.fuzz.{name}"))
