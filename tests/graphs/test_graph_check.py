"""The self-check of CUDA graphs, on a CPU: recordings that are wrong in several ways are found."""

from __future__ import annotations

import os

import pytest
import torch

from tests.helpers import tape
from zoo.inference import graph_check, graphs
from zoo.inference.graph_check import ON_A_GPU, GraphCheck
from zoo.inference.graph_recording import CudaRecording
from zoo.ops.scan.self_check import decision, machine, processes
from zoo.ops.scan.self_check.verdicts import Verdict

CPU = torch.device("cpu")
MODELS = [group[0].model for group in ON_A_GPU]
RIGHT, CRASHING = (f"{tape.__name__}:{name}" for name in ("RIGHT", "CRASHING"))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small images; and no passes, which a tape sees through."""
    monkeypatch.setattr(graph_check, "_SIZES", ((12, 16), (10, 9)))
    monkeypatch.setattr(graph_check, "_FRAMES", 2)
    monkeypatch.setattr(graph_check, "_LITTER", range(7, 10))
    monkeypatch.setenv("ZOO_CPU_PASSES", "0")


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Nothing is known of this machine, and its CPU stands for a GPU."""
    monkeypatch.setenv("ZOO_SELF_CHECK", "1")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(decision, "_known", {})
    monkeypatch.setattr(machine, "of_gpu", lambda device: {"device": "a stand-in"})
    return tmp_path


def test_families_and_precisions_that_are_checked():
    assert [[str(check) for check in group] for group in ON_A_GPU] == [
        [f"{model} in {precision}" for precision in ("fp32", "bf16")]
        for model in ("mambair_tiny_x2", "mambairv2_tiny_x2", "mambacsr_tiny_x2", "qmambabsr_tiny")
    ]
    assert all(check.record is CudaRecording for group in ON_A_GPU for check in group)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", MODELS)
def test_networks_run_without_python(model, precision):
    """Nothing in them waits for values, and nothing that Python computes depends on the image."""
    assert GraphCheck(model=model, precision=precision, record=tape.Tape).fault(CPU, 2) is None


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("Stale", "replay 1 of 12 x 16 pixels: it deviates by"),
        (
            "WrongAtOnce",
            "it could not be recorded: a replay was wrong: it deviates by 6.0e-02, and",
        ),
        ("Forgetful", "pixels: it deviates by nan"),
        ("Refusing", "it could not be recorded: RuntimeError: operation not permitted"),
        ("Waiting", "it could not be recorded: it waits for the device"),
    ],
)
def test_wrong_recordings_are_found(kind, said):
    found = GraphCheck(model="mambair_tiny_x2", precision="fp32", record=tape.WRONG[kind]).fault(
        CPU, 3
    )
    assert found is not None and said in found


def test_a_recording_that_hides_a_change_of_weights_is_found(monkeypatch):
    """It is compared after the change, too."""

    class Frozen(tape.Tape):
        def __init__(self, run, inputs, own, before):
            super().__init__(run, inputs, own, before)
            for number, (func, args, kwargs, out) in enumerate(self.calls):
                copied = [a.clone() if isinstance(a, torch.nn.Parameter) else a for a in args]
                self.calls[number] = (func, copied, kwargs, out)

    monkeypatch.setattr(graphs, "state_of", lambda network: ([], []))
    found = GraphCheck(model="mambair_tiny_x2", precision="fp32", record=Frozen).fault(CPU, 1)
    assert found is not None and "after a change of weights: it deviates" in found


def test_the_environment_is_what_it_was(monkeypatch):
    monkeypatch.delenv("ZOO_CUDA_GRAPHS")
    monkeypatch.setenv("ZOO_SCAN_BACKEND", "chunked")
    GraphCheck(model="mambair_tiny_x2", precision="fp32", record=tape.Refusing).fault(CPU, 1)
    assert os.environ["ZOO_SCAN_BACKEND"] == "chunked" and "ZOO_CUDA_GRAPHS" not in os.environ


def serves():
    return decision.part_serves_on_gpu(graphs.NAME, graphs.PLAN, CPU, "kernels are launched singly")


def test_a_verdict_is_kept_and_told(place, monkeypatch, caplog):
    caplog.set_level("INFO")
    asked = []

    def examine(place, device, plan):
        asked.append((place, plan))
        return Verdict(passed=len(asked) == 1, case="a case", error="wrong")

    monkeypatch.setattr(processes, "examine", examine)

    assert serves() and serves()
    decision._known.clear()
    assert serves() and asked == [("zoo.inference.graph_check", graphs.PLAN)]
    assert caplog.messages == ["checking the recording of networks on a stand-in, once"]
    monkeypatch.setenv("ZOO_SELF_CHECK", "force")
    decision._known.clear()
    caplog.clear()
    assert not serves() and len(asked) == 2
    assert caplog.messages[-1].startswith(
        "the recording of networks on a stand-in has failed its self-check, so kernels are "
        "launched singly instead, which is right: case a case: wrong; to report it"
    )


def test_nothing_is_trusted_unchecked(place, monkeypatch, caplog):
    monkeypatch.setenv("ZOO_SELF_CHECK", "0")
    assert not decision.part_serves_on_gpu(
        graphs.NAME, graphs.PLAN, CPU, "kernels are launched one by one"
    )
    assert not caplog.messages


def test_another_version_of_the_package_is_checked_again(place, monkeypatch):
    monkeypatch.setattr(processes, "examine", lambda *given: Verdict(passed=True))
    assert serves()
    decision._known.clear()
    monkeypatch.setattr(machine, "package_code", lambda: "another")
    monkeypatch.setattr(processes, "examine", lambda *given: Verdict(passed=False))
    assert not serves()


def test_a_process_that_ends_is_a_fault():
    right = processes.examine(tape.__name__, CPU, RIGHT)
    assert right.passed, right
    crashed = processes.examine(tape.__name__, CPU, CRASHING)
    assert not crashed.passed and crashed.kept and crashed.case == "mambair_tiny_x2 in fp32"
    assert "ended with code -6" in crashed.error


@pytest.mark.parametrize(
    "reason", ["no Triton", "another backend", "untrusted", "another allocator", "failed"]
)
def test_where_recording_does_not_serve(reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")
    monkeypatch.setattr(graphs, "part_serves_on_gpu", lambda *given: given[0] == graphs.NAME)
    monkeypatch.setattr(graphs, "serves_on_gpu", lambda backend, device: True)
    monkeypatch.setattr(graphs.triton, "unavailable", lambda: None)
    assert graphs.serves(CPU)
    if reason == "no Triton":
        monkeypatch.setattr(graphs.triton, "unavailable", lambda: "none")
    elif reason == "another backend":
        monkeypatch.setenv("ZOO_SCAN_BACKEND", "chunked")
    elif reason == "untrusted":
        monkeypatch.setattr(graphs, "serves_on_gpu", lambda backend, device: False)
    elif reason == "another allocator":
        monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "cudaMallocAsync")
    else:
        monkeypatch.setattr(graphs, "part_serves_on_gpu", lambda *given: False)
    assert not graphs.serves(CPU)


def test_triton_that_is_asked_for_is_not_checked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")
    monkeypatch.setattr(graphs, "part_serves_on_gpu", lambda *given: True)
    monkeypatch.setattr(graphs, "serves_on_gpu", lambda *given: 1 / 0)
    monkeypatch.setattr(graphs.triton, "unavailable", lambda: None)
    monkeypatch.setenv("ZOO_SCAN_BACKEND", "triton")
    assert graphs.serves(CPU)


def test_another_allocator_is_checked_again(place, monkeypatch):
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.setattr(processes, "examine", lambda *given: Verdict(passed=True))
    assert serves()
    decision._known.clear()
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setattr(processes, "examine", lambda *given: Verdict(passed=False))
    assert not serves()


def test_each_gpu_has_a_verdict_of_its_own(place, monkeypatch):
    asked = []

    def examine(place, device, plan):
        asked.append(device)
        return Verdict(passed=True, kept=False)

    monkeypatch.setattr(processes, "examine", examine)
    for device in (CPU, torch.device("meta"), CPU):
        assert decision.part_serves_on_gpu(graphs.NAME, graphs.PLAN, device, "")
    assert asked == [CPU, torch.device("meta")]
