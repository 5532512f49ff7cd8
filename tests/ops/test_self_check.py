"""The self-check: a broken backend is found, told, and not used; a right one serves by itself."""

from __future__ import annotations

import logging
import os
import shutil
import threading

import pytest
import torch

import zoo
from tests.helpers.scan_cases import Case, make_inputs
from zoo.inference import restore_tensor
from zoo.ops import selective_scan
from zoo.ops.scan import dispatch, native
from zoo.ops.scan.self_check import decision, machine, plans, verdicts
from zoo.ops.scan.self_check.verdicts import Verdict

CPU = torch.device("cpu")


FOUND = {
    "wrong_gradient": "the gradient of A deviates by",
    "wrong_padding": "y deviates by",
    "nan_in_bfloat16": "y has 1 of",
    "race": "in run 3 of 3",
    "throws": "RuntimeError: CUDA error: an illegal memory access was encountered CUDA kernel",
    "wrong_dtype": "y has dtype torch.float32, not torch.bfloat16",
    "ignores_reduce": "y has shape (2, 9, 4, 7), not (2, 9, 7)",
    "ignores_order_per_image": "y deviates by",
    "wrong_d": "the gradient of D deviates by",
    "wrong_bias": "the gradient of delta_bias deviates by 1.0e+00, and 2.0e-05 is allowed",
    "never_equal": "the gradient of B differs from that of an equal run in deterministic mode",
}
CASE = {
    "wrong_padding": "padded",
    "nan_in_bfloat16": "bfloat16 ",
    "wrong_dtype": "bfloat16 ",
    "ignores_order_per_image": "-each",
    "wrong_bias": "-full",
    "never_equal": " deterministic",
}
"""In the name of the case at which a fault must show first."""


@pytest.mark.parametrize("name", FOUND)
def test_a_broken_backend_is_found_and_told_and_pictures_are_right(
    name, gpu, in_this_process, caplog
):
    network, image = zoo.load("mambair_tiny_x2"), torch.rand(1, 3, 12, 9)
    with zoo.use_backend("chunked"):
        expected = restore_tensor(network, image)
    backend = gpu(name)
    with caplog.at_level(logging.WARNING):
        found = restore_tensor(network, image)
    assert torch.equal(found, expected)
    [record] = [record for record in caplog.records if "self-check" in record.getMessage()]
    told = record.getMessage()
    assert record.levelname == "WARNING"
    assert told.startswith("the backend 'triton' on a stand-in has failed its self-check, so 'ch")
    assert FOUND[name] in told and CASE.get(name, "") in told
    assert "zoo doctor --gpu" in told and "ZOO_SELF_CHECK=force" in told
    calls = len(backend.served)
    restore_tensor(network, image)
    assert len(backend.served) == calls  # nor later


def test_a_right_backend_serves_by_itself(gpu, in_this_process, caplog):
    backend = gpu("right")
    with caplog.at_level(logging.WARNING):
        inputs = make_inputs(Case(), torch.float32)
        inputs[0].requires_grad_()
        y = selective_scan(*inputs, reduce=True)
        assert len(in_this_process) == len(plans.ON_A_GPU)
        backend.served.clear()
        y.sum().backward()
        selective_scan(*inputs)
    assert backend.served == ["backward", "forward"] and not caplog.records


def test_the_plan_covers_every_kind_of_call():
    *of_scans, norms = plans.ON_A_GPU
    checks = [check for group in of_scans for check in group]
    assert len(checks) == 20
    assert {norm.gated for norm in norms} == {True, False}
    seen = {
        field: {getattr(check.case, field) for check in checks}
        for field in ("order", "low_rank", "reduce", "per_image")
    }
    assert seen["order"] == {"full", "padded", "skipping", "short"}
    assert all(seen[field] == {True, False} for field in ("low_rank", "reduce", "per_image"))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        own = [check.case for check in checks if check.dtype == dtype]
        assert {case.reduce for case in own} == {case.per_image for case in own} == {True, False}
        assert any(case.order == "padded" for case in own)
    assert any(check.fixed for check in checks)


def test_a_verdict_is_read_by_later_processes_and_not_made_again(gpu, in_this_process, monkeypatch):
    gpu("right")
    for _ in range(2):
        assert decision.serves_on_gpu(dispatch.BACKENDS["triton"], CPU)
        decision._known.clear()  # as in another process
    assert len(in_this_process) == len(plans.ON_A_GPU)
    monkeypatch.setenv("ZOO_SELF_CHECK", "force")
    assert decision.serves_on_gpu(dispatch.BACKENDS["triton"], CPU)
    assert len(in_this_process) == 2 * len(plans.ON_A_GPU)


@pytest.mark.parametrize("changed", ["device", "driver"])
def test_another_machine_or_driver_is_another_verdict(gpu, in_this_process, monkeypatch, changed):
    gpu("right")
    assert decision.serves_on_gpu(dispatch.BACKENDS["triton"], CPU)
    decision._known.clear()
    known = {"device": "a stand-in", "driver": "1", changed: "other"}
    monkeypatch.setattr(machine, "of_gpu", lambda device: known)
    gpu("wrong_gradient")
    assert not decision.serves_on_gpu(dispatch.BACKENDS["triton"], CPU)


def test_what_says_nothing_about_the_backend_is_not_kept(gpu, in_this_process, caplog):
    gpu("out_of_memory")
    with caplog.at_level(logging.WARNING):
        assert not decision.serves_on_gpu(dispatch.BACKENDS["triton"], CPU)
    assert "could not be checked, so 'chunked' serves instead: OutOfMemoryError" in caplog.text
    decision._known.clear()
    gpu("right")
    assert decision.serves_on_gpu(dispatch.BACKENDS["triton"], CPU)


def test_zero_checks_nothing_and_believes_what_is_kept(gpu, in_this_process, monkeypatch, caplog):
    gpu("right")
    backend = dispatch.BACKENDS["triton"]
    monkeypatch.setenv("ZOO_SELF_CHECK", "0")
    with caplog.at_level(logging.WARNING):
        assert not decision.serves_on_gpu(backend, CPU)
    assert not in_this_process and not caplog.records
    decision._known.clear()
    verdicts.write(decision._gpu_key(backend, CPU), Verdict(passed=True))
    assert decision.serves_on_gpu(backend, CPU)
    monkeypatch.setenv("ZOO_SELF_CHECK", "yes")
    decision._known.clear()
    with pytest.raises(ValueError, match="ZOO_SELF_CHECK is 'yes'; it must be 0"):
        decision.serves_on_gpu(backend, CPU)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"key": {}, "verdict": {"passed": true}}',
        b"\xff",
        b'{"verdict": 1}',
        b'{"key": {"device": "one"}, "verdict": {"passed": 1}}',
        b"[" * 60000,
    ],
)
def test_a_damaged_file_is_no_verdict(fresh, content):
    key = {"device": "one"}
    verdicts.write(key, Verdict(passed=True))
    assert verdicts.read(key) == Verdict(passed=True)
    verdicts.path_of(key).write_bytes(content)
    assert verdicts.read(key) is None


def test_nothing_is_checked_while_a_graph_is_made(gpu, in_this_process, monkeypatch):
    gpu("right")
    backend = dispatch.BACKENDS["triton"]
    monkeypatch.setattr(decision, "_is_recorded", lambda: True)
    assert not decision.serves_on_gpu(backend, CPU)
    assert not in_this_process
    monkeypatch.setattr(decision, "_is_recorded", lambda: False)
    assert decision.serves_on_gpu(backend, CPU)  # that call decided nothing
    decision._known.clear()
    monkeypatch.setattr(decision, "_is_recorded", lambda: True)
    assert decision.serves_on_gpu(backend, CPU)  # what is kept may be read


def test_recorded_is_a_trace_or_a_capture(monkeypatch):
    assert not decision._is_recorded()
    seen = []

    def traced(x):
        seen.append(decision._is_recorded())
        return x + 1

    with pytest.warns(DeprecationWarning):
        torch.jit.trace(traced, torch.ones(1), check_trace=False)
    assert seen == [True]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert decision._is_recorded()


def test_processes_take_turns(fresh, monkeypatch):
    """A second one waits, reads what the first has found, and gives up if that takes too long."""
    key = {"device": "one"}
    monkeypatch.setattr(decision, "PATIENCE", 0.3)
    made = []

    def check():
        made.append(1)
        return Verdict(passed=True)

    with verdicts.turn(key, 0) as ours:
        assert ours
        waited = decision._in_turn(key, check)
        assert not waited.passed and not waited.kept and "another process" in waited.error
        verdicts.write(key, Verdict(passed=True))
        assert decision._in_turn(key, check).passed
    assert not made
    verdicts.path_of(key).unlink()
    assert decision._in_turn(key, check).passed and made == [1]


def test_without_a_cache_folder_each_process_checks(gpu, in_this_process, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    gpu("right")
    for _ in range(2):
        assert decision.serves_on_gpu(dispatch.BACKENDS["triton"], CPU)
        decision._known.clear()
    assert len(in_this_process) == 2 * len(plans.ON_A_GPU)


def test_a_rank_takes_over_what_the_first_found_on_an_equal_machine(
    gpu, in_this_process, monkeypatch, caplog
):
    gpu("wrong_gradient")
    backend = dispatch.BACKENDS["triton"]
    told = decision.tell_others(backend, CPU)
    count = len(in_this_process)
    decision._known.clear()
    monkeypatch.setenv("RANK", "1")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        decision.take_over(backend, CPU, told)
        assert not decision.serves_on_gpu(backend, CPU)
    assert len(in_this_process) == count and not caplog.records
    decision._known.clear()
    decision.take_over(backend, CPU, ({"device": "another"}, True))
    assert not decision._known


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_during_a_check_does_not_hold_its_turn(fresh):
    reader, writer = os.pipe()
    with verdicts.turn({"device": "one"}, 0):
        pid = os.fork()
        if not pid:
            os.close(writer)
            os.read(reader, 1)  # lives until the parent closes its end
            os._exit(0)
    try:
        with verdicts.turn({"device": "one"}, 0) as ours:
            assert ours
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(pid, 0)


def test_waiting_for_another_process_is_told(fresh, monkeypatch, caplog):
    monkeypatch.setattr(verdicts, "_QUIET", 0)
    with caplog.at_level(logging.INFO), verdicts.turn({}, 0), verdicts.turn({}, 0.3) as ours:
        assert not ours
    assert [each.getMessage() for each in caplog.records] == [
        "waiting for another process, which makes the same self-check"
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(fresh):
    path = verdicts.path_of({})
    path.parent.mkdir(parents=True)
    for suffix in (".json", ".lock"):
        os.mkfifo(path.with_suffix(suffix))
    assert verdicts.read({}) is None
    with verdicts.turn({}, 0) as ours:
        assert ours


def test_without_a_home_folder_nothing_is_kept(fresh, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", "~no-such-user/cache")
    assert decision._in_turn({}, lambda: Verdict(passed=True)).passed
    assert decision._kept({}) is None
    assert "ZOO_CACHE is '~no-such-user/cache'" in verdicts.write({}, Verdict(passed=True))


def test_no_verdict_holds_for_files_that_are_gone(fresh, monkeypatch, tmp_path):
    """As while the package is replaced under a running program."""
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "gone.so")
    assert machine.of_cpu("avx2") != machine.of_cpu("avx2")


def test_a_verdict_depends_on_the_code_of_the_passes(monkeypatch, tmp_path):
    copied = shutil.copytree(machine._CODE, tmp_path / "ops", ignore=lambda *_: ["__pycache__"])
    monkeypatch.setattr(machine, "_CODE", copied)
    before = machine.our_code.__wrapped__()
    assert before == machine.our_code.__wrapped__()
    with (copied / "passes" / "library.py").open("a") as file:
        file.write("# changed\n")
    assert machine.our_code.__wrapped__() != before


def test_without_a_thread_nothing_is_decided(fresh, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    found = decision._checked_on_cpu(lambda: None)
    assert not found.passed and not found.kept and "can't start new thread" in found.error
