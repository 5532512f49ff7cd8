"""Operator, networks and restoring on an NVIDIA GPU: ``pytest -m gpu tests/gpu``.

``--rehearse`` runs these tests on a CPU, so that they themselves are right when a GPU is at hand.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from tests.helpers.scan_cases import CASES, TOLERANCE, Case, make_inputs, random_case, relative, run
from tests.helpers.tape import Tape
from zoo.commands.gpu_probes import captured
from zoo.inference import RestoreSettings, graphs, recordable, restore_tensor
from zoo.inference.device_memory import CudaMemory
from zoo.inference.graph_check import ON_A_GPU
from zoo.inference.graph_recording import CudaRecording
from zoo.ops import selective_scan

pytestmark = pytest.mark.gpu

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Where tests run: on a GPU in full, or in rehearsal on a CPU with less of everything."""

    device: str = "cuda"
    backend: str = "triton"
    shapes: int = 1000
    longest: int = 700
    steps: int = 200
    compiler: str = "inductor"
    record: type = CudaRecording
    recordable: str = "triton"
    """The backend whose scans can be recorded."""

    def put(self, tensors):
        return [None if t is None else t.to(self.device) for t in tensors]


REHEARSAL = Stage(device="cpu", backend="chunked", shapes=20, longest=30, steps=2,
                  compiler="aot_eager", record=Tape, recordable="native")  # fmt: skip


@pytest.fixture
def stage(request):
    if request.config.getoption("--rehearse"):
        return REHEARSAL
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    return Stage()


def needs_gpu(stage):
    if stage is REHEARSAL:
        pytest.skip("nothing on a CPU stands for this")


def check(stage, case, dtype, backend, seed=0):
    inputs = make_inputs(case, dtype, seed)
    exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
    found = run(stage.put(inputs), case, backend)
    for index, (ours, theirs) in enumerate(zip(found, run(exact, case, "chunked"), strict=True)):
        if ours.numel():
            assert relative(ours.cpu(), theirs) <= TOLERANCE[dtype], (case, dtype, index)


def test_triton_is_there(stage):
    status = {s.name: s for s in zoo.backends()}[stage.backend]
    assert status.available, status.note
    inputs = stage.put(make_inputs(Case(), torch.float32))
    y = selective_scan(*inputs, reduce=True, backend=stage.backend)
    assert y.device.type == stage.device


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(case, dtype, stage):
    check(stage, case, dtype, stage.backend)


@pytest.mark.parametrize("case", [case for case in CASES if case.B], ids=str)
def test_mamba_ssm_conformance(case, stage):
    """In float32: it writes half-precision outputs and steps before they are summed."""
    status = {s.name: s for s in zoo.backends()}["mamba_ssm"]
    if not status.available:
        pytest.skip(status.note)
    check(stage, case, torch.float32, "mamba_ssm")


@pytest.mark.parametrize("part", range(20))
def test_a_thousand_random_shapes(part, stage):
    """In parts, because most shapes compile kernels of their own: ``-n`` shares them out."""
    draw = random.Random(part)
    for seed in range(stage.shapes // 20):
        case = random_case(draw, B=3, L=stage.longest, K=8, E=200, R=12, N=33)
        check(stage, case, draw.choice(DTYPES), stage.backend, 1000 * part + seed)


SANITIZER = """#!/bin/sh
# Stands for compute-sanitizer: calls of CUDA that fail are errors, too, unless one says otherwise.
case "$*" in
"--tool "*" --report-api-errors no --error-exitcode 9 "*) shift 6; exec "$@" ;;
esac
echo "Program hit cudaErrorInvalidValue (error 1) on CUDA API call"
exit 9
"""


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool, stage, tmp_path, monkeypatch):
    """The conformance cases once more, in a process that NVIDIA's tool watches.

    It watches the kernels alone: libraries try calls of CUDA that may fail, and go on.
    """
    tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-k", "test_conformance", __file__]
    if stage is REHEARSAL:
        stand_in, tests = tmp_path / "compute-sanitizer", [*tests, "--rehearse"]
        stand_in.write_text(SANITIZER)
        stand_in.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    elif not shutil.which("compute-sanitizer"):
        pytest.skip("compute-sanitizer, of the CUDA toolkit, is not on the PATH")
    sanitizer = ["compute-sanitizer", "--tool", tool]
    sanitizer += ["--report-api-errors", "no", "--error-exitcode", "9"]
    # Without PyTorch's cache of memory every tensor has bounds of its own.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*sanitizer, *tests], env=environment, cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{len(CASES) * len(DTYPES)} passed" in done.stdout


def test_deterministic_runs_are_equal(stage):
    case = Case(B=2, L=stage.longest, K=4, E=200, N=16)
    inputs = stage.put(make_inputs(case, torch.float32))
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (run(inputs, case, stage.backend) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("built_in_inference_mode", [False, True])
def test_a_cuda_graph_replays_it(built_in_inference_mode, stage):
    needs_gpu(stage)
    inputs = stage.put(make_inputs(Case(B=1, L=300, K=4, E=72, N=16), torch.float32))
    with torch.inference_mode():
        if built_in_inference_mode:
            inputs[-1] = inputs[-1].clone()
        scan = functools.partial(selective_scan, *inputs, reduce=True, backend=stage.backend)
        expected = scan()
        replay, y = captured(scan)
        inputs[0].mul_(2)
        replay()
        assert relative(y, scan()) <= TOLERANCE[torch.float32]
    assert relative(y, expected) > 0.1


@pytest.mark.parametrize("model", ["mambair_tiny_x2", "mambacsr_tiny_x2"])
def test_a_cuda_graph_replays_a_network(model, stage):
    needs_gpu(stage)
    network = zoo.build(model).eval().to(stage.device)
    image = torch.rand(1, network.channels, 32, 32, device=stage.device)
    with torch.inference_mode(), zoo.use_backend(stage.backend):
        network(image)  # builds its orders
        replay, found = captured(lambda: network(image))
        image.copy_(image.flip(3) * 0.5)
        replay()
        torch.testing.assert_close(found, network(image), atol=1e-4, rtol=1e-3)


def test_compile_agrees(stage):
    case = Case(B=1, L=300, K=4, E=72, N=16)
    *tensors, order = stage.put(make_inputs(case, torch.float32))
    leaves = [t.detach().requires_grad_() for t in tensors]

    def loss(*given):
        y = selective_scan(*given, order, reduce=True, backend=stage.backend)
        return (2 * y).square().mean()

    compiled = torch.compile(loss, fullgraph=True, backend=stage.compiler)
    found, expected = (
        [value, *torch.autograd.grad(value, leaves)] for value in (compiled(*leaves), loss(*leaves))
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) <= TOLERANCE[torch.float32]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mambair_tiny_x2", "mambacsr_tiny_x2"])
def test_a_compiled_network_agrees(model, stage):
    network = zoo.build(model).eval().to(stage.device)
    image = torch.rand(1, network.channels, 24, 32, device=stage.device)
    with torch.no_grad(), zoo.use_backend(stage.backend):
        found = torch.compile(network, backend=stage.compiler)(image)
        torch.testing.assert_close(found, network(image), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("model", ["mambair_tiny_x2", "mambacsr_tiny_x2", "qmambabsr_tiny"])
def test_two_hundred_steps_in_half_precision_stay_finite(model, dtype, stage):
    network = zoo.build(model).to(stage.device).train()
    optimizer = torch.optim.Adam(network.parameters(), 2e-4)
    scaler = torch.amp.GradScaler(stage.device, enabled=dtype == torch.float16)
    frames = (8, network.channels) if model.startswith("qmambabsr") else (network.channels,)
    image = torch.rand(2, *frames, 32, 32, device=stage.device)
    with zoo.use_backend(stage.backend):
        for _ in range(stage.steps):
            optimizer.zero_grad()
            with torch.autocast(stage.device, dtype):
                found = network(image)
            loss = (found.float() - 0.5).abs().mean()
            assert loss.isfinite()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert all(p.isfinite().all() for p in network.parameters())
    # The scale starts at 65536 and halves where a gradient overflows: it must have settled.
    assert dtype != torch.float16 or scaler.get_scale() >= 1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_restoring_equals_the_cpu(precision, stage):
    network = zoo.load("mambair_tiny_x2")
    image = torch.rand(1, 3, 50, 61)
    expected = restore_tensor(network, image)
    with zoo.use_backend(stage.backend):
        found = restore_tensor(
            network.to(stage.device), image, RestoreSettings(precision=precision)
        )
    # Rounding to 8 mantissa bits in a few layers.
    assert (found - expected).abs().max() <= (1e-4 if precision == "fp32" else 3e-2)


@pytest.mark.parametrize("group", ON_A_GPU, ids=lambda group: group[0].model)
def test_recorded_networks_pass_their_self_check(group, stage, monkeypatch):
    monkeypatch.setenv("ZOO_CPU_PASSES", "0")  # which a stand-in for graphs sees through
    for check in group:
        if stage is REHEARSAL and check.precision == "bf16":
            continue  # the stand-in runs other kernels, which round otherwise
        check = dataclasses.replace(check, record=stage.record)
        assert check.fault(torch.device(stage.device), 3) is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["mambair_tiny_x2", "mambacsr_tiny_x2"])
def test_small_photos_by_cuda_graphs_equal_those_without(model, precision, stage, monkeypatch):
    monkeypatch.setenv("ZOO_CPU_PASSES", "0")
    monkeypatch.setattr("zoo.inference.runner.GPU", stage.device)
    network = zoo.load(model).to(stage.device)
    monkeypatch.setenv(recordable.ENVIRONMENT, "1")
    recorder = graphs.Recorder(stage.record, is_trusted=lambda device: True)
    monkeypatch.setattr(graphs, "recorder", recorder)
    settings = RestoreSettings(precision=precision)
    images = [torch.rand(1, 3, *size) for size in [(48, 33), (20, 64), (48, 33)] for _ in range(6)]
    with zoo.use_backend(stage.recordable):
        for image in images:
            with recordable.unrecorded():
                one = restore_tensor(network, image, settings)
            found = restore_tensor(network, image, settings)
            # Sums of several programs are added in no fixed order.
            assert (found - one).abs().max() <= (1e-4 if precision == "fp32" else 3e-2)
            _ = [torch.rand(2**n, device=stage.device) for n in range(7, 22)]  # overwrites memory
    assert not recorder.refusal and recorder.recorded == 2


def test_restoring_stays_within_free_memory(stage):
    """Most memory is taken away; a photo that would not fit is restored without running out."""
    needs_gpu(stage)
    network = zoo.build("mambair_tiny_x2").to(stage.device)
    memory = CudaMemory(torch.device(stage.device))
    torch.cuda.empty_cache()
    taken = torch.empty(max(0, memory.free() - 2**30), dtype=torch.uint8, device=stage.device)
    torch.cuda.reset_peak_memory_stats()
    with zoo.use_backend(stage.backend):
        found = restore_tensor(network, torch.rand(1, 3, 1500, 1400))
    assert found.shape == (1, 3, 3000, 2800)
    assert torch.cuda.memory_stats().get("num_ooms", 0) == 0
    del taken


def test_an_unvisited_token_is_zero(stage):
    case = dataclasses.replace(Case(), order="skipping", K=1, reduce=False)
    inputs = make_inputs(case, torch.float32)
    y = selective_scan(*stage.put(inputs), backend=stage.backend).cpu()
    visited = torch.zeros(case.L, dtype=torch.bool)
    visited[inputs[-1][inputs[-1] >= 0].long()] = True
    assert (y[:, ~visited] == 0).all() and (y[:, visited] != 0).all()


@pytest.mark.parametrize("per_image", [False, True])
def test_an_order_is_followed_without_waiting_and_wrong_entries_are_nan(stage, per_image):
    """On the CPU a wrong order is an error; a GPU would have to be waited for to find it."""
    case = Case(B=2, L=9, K=3, E=4, N=3, per_image=per_image)
    inputs = make_inputs(case, torch.float32)
    wrong = inputs[-1].clone()
    wrong[..., 1, 4] = 50_000_000
    for backend in (stage.backend, "chunked"):
        if stage is REHEARSAL:
            with pytest.raises(ValueError, match="is 50000000"):
                selective_scan(*inputs[:-1], wrong, backend=backend)
            continue
        *given, order, bad = stage.put([*inputs, wrong])
        selective_scan(*given, order, backend=backend)  # compiles
        torch.cuda.set_sync_debug_mode("error")
        try:
            right = selective_scan(*given, order, backend=backend)
            found = selective_scan(*given, bad, backend=backend)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert found[:, :, 1].isnan().any()
        torch.testing.assert_close(found[:, :, [0, 2]], right[:, :, [0, 2]])
