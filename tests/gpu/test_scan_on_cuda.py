"""The operator on an NVIDIA GPU: ``pytest -m gpu tests/gpu``; also under compute-sanitizer."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from conformance import CASES, Case, make_inputs, run
from test_conformance import TOLERANCE, relative

import zoo
from zoo.inference import RestoreSettings, restore_tensor
from zoo.ops import selective_scan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ON_CUDA = [s.name for s in zoo.backends() if s.available and s.name in ("triton", "mamba_ssm")]


def on(device, inputs):
    return [None if t is None else t.to(device) for t in inputs]


def check(case, dtype, backend, seed=0):
    inputs = make_inputs(case, dtype, seed)
    exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
    found = run(on("cuda", inputs), case, backend)
    for index, (ours, theirs) in enumerate(zip(found, run(exact, case, "chunked"), strict=True)):
        if ours.numel():
            assert relative(ours.cpu(), theirs) <= TOLERANCE[dtype], (case, dtype, index)


def test_triton_serves_on_cuda():
    assert "triton" in ON_CUDA
    y = selective_scan(*on("cuda", make_inputs(Case(), torch.float32)), reduce=True)
    assert y.is_cuda


@pytest.mark.parametrize("backend", ON_CUDA)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(case, dtype, backend):
    # mamba-ssm writes half-precision outputs and steps before they are summed.
    if backend == "mamba_ssm" and (dtype != torch.float32 or case.B == 0):
        pytest.skip("compared in float32")
    check(case, dtype, backend)


def test_a_thousand_random_shapes():
    draw = random.Random(0)
    for seed in range(1000):
        case = Case(
            B=draw.randint(1, 3), L=draw.randint(1, 700), K=draw.randint(1, 8),
            E=draw.randint(1, 200), R=draw.randint(1, 12), N=draw.randint(1, 33),
            order=draw.choice(["full", "padded", "skipping", "short"]),
            low_rank=draw.random() < 0.7, reduce=draw.random() < 0.6,
        )  # fmt: skip
        check(case, draw.choice(DTYPES), "triton", seed)


def test_deterministic_runs_are_equal():
    case = Case(B=2, L=900, K=4, E=200, N=16)
    inputs = on("cuda", make_inputs(case, torch.float32))
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (run(inputs, case, "triton") for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_cuda_graph_replays_it():
    inputs = on("cuda", make_inputs(Case(B=1, L=300, K=4, E=72, N=16), torch.float32))
    expected = selective_scan(*inputs, reduce=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        selective_scan(*inputs, reduce=True)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = selective_scan(*inputs, reduce=True)
    inputs[0].mul_(2)
    graph.replay()
    assert relative(y, selective_scan(*inputs, reduce=True)) <= TOLERANCE[torch.float32]
    assert relative(y, expected) > 0.1


def test_compile_agrees():
    case = Case(B=1, L=300, K=4, E=72, N=16)
    inputs = on("cuda", make_inputs(case, torch.float32))
    compiled = torch.compile(lambda *given: selective_scan(*given, reduce=True) * 2)
    assert relative(compiled(*inputs), 2 * selective_scan(*inputs, reduce=True)) <= 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("model", ["mambair_tiny_x2", "mambacsr_tiny_x2", "qmambabsr_tiny"])
def test_two_hundred_steps_in_half_precision_stay_finite(model, dtype):
    network = zoo.build(model).cuda().train()
    optimizer = torch.optim.Adam(network.parameters(), 2e-4)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    frames = (8, 4) if model.startswith("qmambabsr") else (3,)
    image = torch.rand(2, *frames, 32, 32, device="cuda")
    for _ in range(200):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype):
            found = network(image)
        loss = (found.float() - 0.5).abs().mean()
        assert loss.isfinite()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert all(p.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_restoring_equals_the_cpu(precision):
    network = zoo.load("mambair_tiny_x2")
    image = torch.rand(1, 3, 50, 61)
    expected = restore_tensor(network, image)
    found = restore_tensor(network.cuda(), image, RestoreSettings(precision=precision))
    assert (found - expected).abs().max() <= (1e-4 if precision == "fp32" else 3e-2)


def test_an_unvisited_token_is_zero():
    case = dataclasses.replace(Case(), order="skipping", K=1, reduce=False)
    inputs = make_inputs(case, torch.float32)
    y = selective_scan(*on("cuda", inputs), backend="triton").cpu()
    visited = torch.zeros(case.L, dtype=torch.bool)
    visited[inputs[-1][inputs[-1] >= 0].long()] = True
    assert (y[:, ~visited] == 0).all() and (y[:, visited] != 0).all()
