"""An area whose cases crash, hang or raise: it tests the fuzzer and is not in ``AREAS``.

The environment variable FAULTY names the fault.
"""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

COUNT, SLICE = 4, 4
SECONDS = 0.05


def cases() -> SearchStrategy[str]:
    return st.sampled_from(["fine", os.environ["FAULTY"]])


def attempt(case: str, folder: Path) -> str:
    if case == "crash":
        ctypes.string_at(0)
    if case == "hang":
        time.sleep(60)
    if case == "raise":
        raise KeyError("width")
    return case


def planted() -> AbstractContextManager[object]:
    return nullcontext()
