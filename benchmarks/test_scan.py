"""Benchmarks of the selective scan with pytest-benchmark, to compare two versions of the code.

pytest benchmarks -o addopts= --benchmark-only --benchmark-autosave
pytest benchmarks -o addopts= --benchmark-only --benchmark-compare
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from operator_cpu import CHANNELS, make_inputs, ours, with_backward

BACKENDS = ["native", "chunked"]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("length", [1024, 4096])
def test_forward(benchmark: Callable[..., Any], length: int, channels: int, backend: str) -> None:
    inputs = make_inputs(length, channels)
    with torch.no_grad():
        benchmark(ours, inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("length", [1024, 4096])
def test_forward_and_backward(
    benchmark: Callable[..., Any], length: int, channels: int, backend: str
) -> None:
    benchmark(with_backward(lambda given: ours(given, backend), make_inputs(length, channels)))
