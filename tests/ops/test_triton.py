"""The Triton kernels: in Triton's interpreter, and as the compiler sees them for a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conformance import Case, make_inputs
from test_conformance import TOLERANCE

import zoo
from zoo.ops import selective_scan
from zoo.ops.scan import BackendError

SCRIPT = Path(__file__).with_name("triton_interpreted.py")

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is installed on Linux alone"
)


def interpret(*words):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), *words],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(results):
    for case, dtype, deviations in results:
        for index, deviation in enumerate(deviations):
            assert deviation <= TOLERANCE[getattr(torch, dtype)], (case, dtype, index)


@needs_triton
def test_small_cases_match_the_reference_in_the_interpreter():
    results = interpret()
    assert len(results) == 10
    check(results)


@needs_triton
@pytest.mark.slow
def test_every_case_matches_the_reference_in_the_interpreter():
    check(interpret("--full"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    status = {s.name: s for s in zoo.backends()}["triton"]
    assert not status.available
    assert "GPU" in status.note or "not installed" in status.note
    with pytest.raises(BackendError, match="triton"):
        selective_scan(*make_inputs(Case(), torch.float32), backend="triton")


@needs_triton
def test_kernels_are_not_imported_until_they_serve():
    name = "zoo.ops.scan.triton.kernels"  # PyTorch may import Triton itself
    code = f"import sys, zoo; zoo.backends(); sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
