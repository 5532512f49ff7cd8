"""Verdicts of the self-check: how they are made, kept, shared and told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from zoo.ops.scan.self_check import decision, toolchain
from zoo.ops.scan.self_check.verdicts import Verdict

CPU = torch.device("cpu")


def test_a_verdict_is_of_a_key_in_any_sequence_and_a_line_of_its_own(fresh):
    one, other = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    path = decision.verdicts.path_of(one)
    assert path == decision.verdicts.path_of(other) and len(path.stem) == 20
    assert path.parent == fresh / "self-checks"
    decision.verdicts.write(one, Verdict(passed=True))
    assert path.read_bytes().endswith(b"}\n")


def test_a_short_wait_is_not_told_and_does_not_keep_a_processor_busy(fresh, monkeypatch, caplog):
    now, sleeps = [100.0], []

    def sleep(seconds):
        sleeps.append(seconds)
        now[0] += seconds

    def monotonic():
        now[0] += 0.001
        return now[0]

    clock = SimpleNamespace(monotonic=monotonic, sleep=sleep)
    monkeypatch.setattr(decision.verdicts, "time", clock)
    turn = decision.verdicts.turn
    with caplog.at_level("INFO"), turn({}, 0):
        with turn({}, 1.95) as ours:
            assert not ours and 18 <= len(sleeps) <= 20 and set(sleeps) == {0.1}
        assert not caplog.records
        with turn({}, 3) as ours:
            assert not ours and len(caplog.records) == 1


@pytest.mark.parametrize(("seconds", "took"), [(2.4, " in 2 s"), (0.0, "")])
def test_how_long_a_check_took_is_noted(gpu, monkeypatch, caplog, seconds, took):
    backend = gpu("right")
    verdict = Verdict(passed=True, seconds=seconds)
    decision.verdicts.write(decision._gpu_key(backend, CPU), verdict)
    with caplog.at_level("DEBUG"):
        assert decision.verdict_on_gpu(backend, CPU) == verdict
    assert [record.getMessage() for record in caplog.records] == [
        f"triton has passed its self-check{took} on a stand-in"
    ]


def test_what_is_not_checked_is_not_kept(gpu, monkeypatch):
    backend = gpu("right")
    monkeypatch.setattr(toolchain, "missing", lambda: "no compiler")
    found = decision.verdict_on_gpu(backend, CPU)
    assert found == Verdict(False, error="no compiler", kept=False)
    monkeypatch.setenv("ZOO_SELF_CHECK", "0")
    found = decision.verdict_on_gpu(backend, CPU)
    assert found == Verdict(False, error="ZOO_SELF_CHECK is 0", kept=False)


def test_one_thread_of_a_process_decides(fresh, monkeypatch):
    seen = []

    def verdict(*_):
        seen.append(decision._lock.locked())
        return Verdict(passed=True)

    monkeypatch.setattr(decision, "verdict_on_gpu", verdict)
    monkeypatch.setattr(decision, "_verdict_on_cpu", verdict)
    backend = SimpleNamespace(NAME="one")
    for _ in range(2):  # what is known is not asked for again
        assert decision.serves_on_gpu(backend, torch.device("cuda", 1))
        assert decision.serves_on_cpu(backend, CPU)
        assert decision.part_serves_on_cpu("a part", lambda: None)
    assert seen == [True] * 3 and not decision._lock.locked()


def test_a_part_of_the_library_has_a_verdict_for_each_level(fresh, monkeypatch):
    for level, key in (("avx2", "avx2"), (None, "")):
        monkeypatch.setattr(decision.native, "level", lambda level=level: level)
        assert decision.kept_verdict_on_cpu("a part") is None
        decision.verdicts.write(decision._cpu_key("a part", key), Verdict(False, key))
        assert decision.kept_verdict_on_cpu("a part") == Verdict(False, key)


def test_a_hang_is_waited_for_in_short_looks(monkeypatch):
    """All processes may have been stopped meanwhile. The thread does not keep Python alive."""
    waits = []

    class Hanging:
        def __init__(self, target, daemon):
            assert daemon

        def start(self):
            pass

        def join(self, seconds):
            waits.append(seconds)

    monkeypatch.setattr(decision.threading, "Thread", Hanging)
    found = decision._checked_on_cpu(lambda: None)
    assert found == Verdict(False, "one of its cases", "no result in 30 s")
    assert waits == [1.0] * 30


def test_the_time_of_a_check_is_told_to_a_hundredth(monkeypatch):
    clock = iter([1.0, 1.2345])
    monkeypatch.setattr(decision.time, "perf_counter", lambda: next(clock))
    assert decision._checked_on_cpu(lambda: None) == Verdict(passed=True, seconds=0.23)


@pytest.mark.parametrize(("rank", "count"), [("", 1), ("0", 1), ("1", 0)])
def test_of_several_ranks_the_first_tells_what_failed(monkeypatch, caplog, rank, count):
    monkeypatch.setenv("RANK", rank) if rank else monkeypatch.delenv("RANK", raising=False)
    verdict = Verdict(False, "one case", "wrong")
    decision._warn("a kernel", verdict, "PyTorch serves", "'zoo doctor' prints")
    assert [record.getMessage() for record in caplog.records] == [
        "a kernel has failed its self-check, so PyTorch serves instead, which is right: case one "
        "case: wrong; to report it, attach what 'zoo doctor' prints to an issue; "
        "ZOO_SELF_CHECK=force checks again"
    ] * count


def test_a_fault_that_is_known_is_told_even_if_nothing_is_checked(gpu, monkeypatch, caplog):
    backend = gpu("right")
    monkeypatch.setenv("ZOO_SELF_CHECK", "0")
    decision.verdicts.write(decision._gpu_key(backend, CPU), Verdict(False, "one case", "wrong"))
    assert decision.kept_verdict(backend, CPU) == Verdict(False, "one case", "wrong")
    assert not decision.serves_on_gpu(backend, CPU)
    assert "case one case: wrong; to report it, attach what 'zoo doctor --gpu'" in caplog.text


def test_a_gpu_backend_does_not_serve_on_another_device(fresh):
    assert not decision.serves_on_gpu(SimpleNamespace(NAME="triton"), CPU)
    assert not decision._known


def test_processes_that_share_the_work_are_told_what_the_first_found(gpu):
    backend = gpu("right")
    decision.verdicts.write(decision._gpu_key(backend, CPU), Verdict(passed=True))
    key, passed = decision.tell_others(backend, CPU)
    assert passed and key == {"device": "a stand-in", "driver": "1", "backend": "triton"}
    decision._known.clear()
    decision.take_over(backend, CPU, (key, True))
    assert decision._known == {("triton", "cpu"): True}
