"""Exports that are killed, as :mod:`tests.fuzz.kills` does it: too slow for the default suite."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest import mock

from hypothesis.strategies import SearchStrategy

import export.onnx
import export.serve  # noqa: F401 - a process that forks has both
from tests.fuzz.kills import SECONDS, Case, attempt, cases_of

__all__ = ["COUNT", "SECONDS", "SLICE", "attempt", "cases", "planted"]

COUNT, SLICE = 24, 2


def cases() -> SearchStrategy[Case]:
    return cases_of("export_onnx", "export_serve")


def planted() -> AbstractContextManager[object]:
    """What killed processes left is not removed."""
    return mock.patch("zoo.files.temporary.remove_leftovers", lambda folder: None)
