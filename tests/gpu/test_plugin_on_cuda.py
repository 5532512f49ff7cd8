"""The TensorRT plugin's kernels on an NVIDIA GPU, without TensorRT: ``pytest -m gpu tests/gpu``.

For memory errors and races, of which the CPU shim sees only some:
``compute-sanitizer --tool racecheck --report-api-errors no python -m pytest -m gpu
tests/gpu/test_plugin_on_cuda.py``, and the same with memcheck, initcheck and synccheck. Without the
option it also reports calls that PyTorch and Triton try and that may fail.
"""

from __future__ import annotations

import random

import pytest
import torch

from tests.helpers.plugin_checks import (
    DTYPES,
    SIZES,
    SPECIAL,
    STATES,
    TOLERANCE,
    check_case,
    expected,
    make,
    scan,
)
from tests.helpers.scan_cases import CASES, Case, relative
from trt_plugins.build import BuildError, architectures_here, build
from trt_plugins.harness import Harness
from zoo.ops.scan.names import EACH, SUM

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

LONG = [
    *(case for case in CASES if case.low_rank and case.N <= 32 and case.L >= 100),
    Case(B=1, L=4100, K=4, E=360, R=12, N=16, order="padded"),
    Case(B=3, L=777, K=2, E=180, R=20, N=10, order="skipping"),
]


@pytest.fixture(scope="module")
def library():
    try:
        return build(architectures_here())
    except BuildError as error:
        pytest.skip(f"the plugin is not compiled: {error}")


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", [*SIZES, *STATES, *LONG], ids=str)
def test_sizes(case, dtype, library):
    check_case(library, case, dtype, "cuda")


@pytest.mark.parametrize("check", SPECIAL, ids=lambda check: check.__name__)
def test_special(check, library):
    check(library, "cuda")


def test_random_shapes(library):
    draw = random.Random(0)
    for seed in range(300):
        case = Case(
            B=draw.randint(1, 3), L=draw.randint(1, 400), K=draw.randint(1, 8),
            E=draw.randint(1, 400), R=draw.randint(1, 40), N=draw.randint(1, 32),
            order=draw.choice(["full", "padded", "skipping", "short"]),
        )  # fmt: skip
        check_case(library, case, draw.choice(DTYPES), "cuda", seed)


@pytest.mark.parametrize("summed", [False, True], ids=["each", "sum"])
def test_runs_are_equal_to_the_bit(summed, library):
    inputs = make(Case(B=2, L=3000, K=4, E=200, N=16), torch.float32, "cuda")
    first = scan(library, inputs, summed)
    assert all(torch.equal(scan(library, inputs, summed), first) for _ in range(5))


@pytest.mark.parametrize("name", [EACH, SUM])
def test_a_cuda_graph_replays_it(name, library):
    inputs = make(Case(B=1, L=300, K=4, E=72, N=16), torch.float16, "cuda")
    with Harness(library, name, inputs) as harness:
        y = harness.empty_output(inputs)
        workspace = torch.empty(harness.workspace, dtype=torch.uint8, device="cuda")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            harness.run(inputs, y, workspace)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            harness.run(inputs, y, workspace)
        inputs[0].mul_(2)
        y.fill_(7)
        graph.replay()
        assert relative(y.cpu(), expected(inputs, name == SUM)) <= TOLERANCE[torch.float16]
        graph.reset()


def test_it_runs_on_the_stream_that_it_is_given(library):
    """What was queued before on that stream is seen, though it takes long."""
    inputs = make(Case(B=1, L=500, K=2, E=64, N=16), torch.float32, "cuda")
    right = expected(inputs, True)
    with Harness(library, SUM, inputs) as harness:
        harness(inputs)
        torch.cuda.synchronize()
        late = [t.clone() for t in inputs]
        late[0].zero_()
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(100_000_000)
            late[0].copy_(inputs[0])
            found = harness(late)
            assert relative(found.cpu(), right) <= TOLERANCE[torch.float32]
