"""The Triton kernels: in Triton's interpreter, and as the compiler sees them for a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import zoo
from tests.helpers.scan_cases import TOLERANCE, Case, make_inputs
from zoo.ops import selective_scan
from zoo.ops.scan import BackendError
from zoo.ops.scan.triton.configurations import DEFAULT

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
INTERPRETED, COMPILED = "tests.helpers.triton_interpreted", "tests.helpers.triton_compiled"
KERNELS = {"pack_rows", "chunk_states", "carry_states", "outputs", "gradients"}

SPILLED = {"gradients": 160, "outputs": 16}
"""Bytes of a lane that may be spilled. On an H100, twelve programs of 168 registers that spill a
little are a fifth faster than eight of 250 that spill nothing."""

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is installed on Linux alone"
)


def interpret(*words):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", INTERPRETED, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def compile_for(*words):
    """Facts of every kernel that a GPU of a compute capability would be given."""
    command = [sys.executable, "-W", "ignore", "-m", COMPILED, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(results):
    for case, dtype, deviations in results:
        for index, deviation in enumerate(deviations):
            assert deviation <= TOLERANCE[getattr(torch, dtype)], (case, dtype, index)


@needs_triton
def test_small_cases_match_and_wrong_entries_are_nan_in_the_interpreter():
    """Nothing is read for an entry that is no token, and the rest of its path is NaN.

    Nor is memory read before it is written; and each program has scratch memory of its own.
    """
    words = ("small", "long-chunks", "hostile", "tiny", "norms")
    *results, memory, spoilt, tiny, norms = interpret(*words)
    assert norms == [None] * 6
    assert len(results) == 7
    check(results)
    assert spoilt == [[4, 5], [4, 5], [4, 5], []]
    # A row has room for eight numbers: B, C and two of low rank, for eleven steps and three more.
    rows = [[1, 2, 14, 8], 2 * 14 * 2]
    state, total, scratch = [[1, 2, 1, 2, 5], 0], [[1, 2, 2, 5], 0], [[2, 4, 3, 2, 4], 0]
    runs, fails, idle = tiny
    assert runs is None and "Error: " in fails and idle == "it adds wrongly"
    assert memory == [rows, state, total, rows, state, state, total, scratch]


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "cases"),
    [("float32", 17), ("float32-fixed", 17), ("bfloat16", 12), ("float16-fixed", 12)],
)
def test_every_case_matches_the_reference_in_the_interpreter(part, cases):
    results = interpret(part)
    assert len(results) == cases
    check(results)


@needs_triton
@pytest.mark.slow
def test_random_cases_match_the_reference_in_the_interpreter():
    results = interpret("random")
    assert len({case for case, _, _ in results}) == 20
    check(results)


@needs_triton
def test_every_kernel_compiles_for_a_gpu():
    found = compile_for("90")
    names = [line["kernel"] for line in found]
    assert set(names) == KERNELS | {"burn"}
    # Forward and backward differ in two of them.
    assert names.count("chunk_states") == names.count("carry_states") == 2
    assert all(line["stack"] <= SPILLED.get(line["kernel"], 0) for line in found), found
    assert {line["warps"] for line in found if line["kernel"] in KERNELS} == {1}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["75", "80", "90", "120"])
def test_every_kind_of_call_compiles_without_spills(architecture):
    found = compile_for("--full", architecture)
    calls = {(line["E"], line["dtype"]) for line in found if line["kernel"] == "gradients"}
    assert len(calls) == 15
    # Registers hold 16 states; 32 are allowed to spill, and Turing may trade registers for warps.
    held = [line for line in found if line.get("N", 0) <= 16 and architecture != "75"]
    spilled = [line for line in held if line["stack"] > SPILLED.get(line["kernel"], 0)]
    assert not spilled, spilled
    # Shared memory of one program, of the 64 KiB that Turing has.
    assert all(line["shared"] <= 16384 for line in found)


@pytest.mark.slow
@pytest.mark.parametrize("marker", ["gpu and not slow", "gpu and slow"])
def test_the_tests_for_a_gpu_are_right_themselves(marker):
    """They rarely meet a GPU; here they run on the CPU, with another backend in Triton's place."""
    command = [sys.executable, "-m", "pytest", "tests/gpu", "--rehearse", "-m", marker]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    # Skipped are CUDA graphs, memory, and mamba-ssm where it is missing.
    assert "no tests ran" not in done.stdout and " passed" in done.stdout


def test_sizes_are_those_that_were_measured():
    """A change needs a measurement: ``benchmarks/gpu.py --tune``."""
    assert asdict(DEFAULT) == {
        **{"tile": 1024, "gradient_tile": 512, "carry_block": (32, 16)},
        **{"shortest": 32, "longest": 256, "warps": 8, "registers": 152},
        **{"gradient_longest": 64, "gradient_steps": 1, "summary_registers": 128},
        **{"gradient_registers": 168, "gradient_warps": 12},
    }


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
