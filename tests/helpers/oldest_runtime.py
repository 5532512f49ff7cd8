"""The oldest ONNX Runtime that reads our files, in an environment of its own."""

from __future__ import annotations

import os

import pytest
from runtimes import Case, Result, oldest, run_cases


def run_in_oldest_runtime(*cases: Case) -> list[Result]:
    """Run files there. If it is not installed and cannot be, the test is skipped.

    In continuous integration, where the variable ``CI`` is set, the test fails instead.
    """
    try:
        version, results = run_cases(oldest(), cases)
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the oldest ONNX Runtime cannot be installed: {error}")
    assert f"onnxruntime=={version}" == oldest().packages[0]
    return results
