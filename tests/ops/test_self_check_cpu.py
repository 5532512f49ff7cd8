"""The self-check of the C++ kernel and its passes: a wrong instruction set gives way."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import threading

import pytest
import torch

from tests.helpers.scan_cases import Case, make_inputs
from zoo.ops import selective_scan
from zoo.ops.passes import conditions, library
from zoo.ops.passes import self_check as passes
from zoo.ops.scan import dispatch, native
from zoo.ops.scan.self_check import decision, machine, verdicts

CPU = torch.device("cpu")


LEVELS = [
    n
    for n in native.LEVELS
    if native.LIBRARY.exists() and native.library().zoo_scan_level(n.encode())
]
"""The instruction sets of this processor, best first."""
needs_levels = pytest.mark.skipif(len(LEVELS) < 2, reason="needs a processor with SIMD")


@pytest.fixture
def wrong_levels(fresh, monkeypatch):
    """A function that makes the C++ kernel wrong with some instruction sets."""
    monkeypatch.setenv("ZOO_NATIVE_LEVEL", "")
    monkeypatch.setattr(dispatch, "TRUSTED", {"native": decision.serves_on_cpu})
    forward, seen = native.forward, []

    def spoil(*levels):
        def spoilt(inputs, reduce):
            seen.append(native.level())
            return forward(inputs, reduce) * (1.001 if native.level() in levels else 1)

        monkeypatch.setattr(native, "forward", spoilt)
        return seen

    return spoil


@needs_levels
def test_a_lower_instruction_set_replaces_a_wrong_one(wrong_levels, caplog):
    seen = wrong_levels(LEVELS[0])
    inputs = make_inputs(Case(E=33), torch.float32)
    expected = selective_scan(*inputs, backend="chunked")
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(selective_scan(*inputs), expected)
    assert seen[-1] == os.environ["ZOO_NATIVE_LEVEL"] == LEVELS[1]
    [record] = caplog.records
    told = record.getMessage()
    assert told.startswith(f"the C++ kernel with the instruction set {LEVELS[0]} has failed its")
    assert f"the instruction set {LEVELS[1]} serves instead" in told
    assert "case float32 B2-L11" in told and "y deviates by 1.0e-03" in told
    seen.clear()
    selective_scan(*inputs)
    assert seen == [LEVELS[1]]  # checked once


@needs_levels
@pytest.mark.parametrize("asked", [False, True], ids=["all are wrong", "the user's own is wrong"])
def test_without_a_right_instruction_set_chunked_serves(wrong_levels, monkeypatch, caplog, asked):
    seen = wrong_levels(*LEVELS)
    if asked:
        monkeypatch.setenv("ZOO_NATIVE_LEVEL", LEVELS[0])
    inputs = make_inputs(Case(E=33), torch.float32)
    expected = selective_scan(*inputs, backend="chunked")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(selective_scan(*inputs), expected)
    assert len(caplog.records) == (1 if asked else len(LEVELS))
    assert "the backend 'chunked' serves instead" in caplog.text
    seen.clear()
    assert torch.equal(selective_scan(*inputs), expected) and not seen


@pytest.mark.skipif(not LEVELS, reason="needs the C++ kernel")
def test_the_kernel_of_a_cpu_is_checked_whatever_surrounds_the_call(fresh, monkeypatch):
    """The check runs in a thread of its own: no mode, transform or trace reaches it."""

    def scan(u):
        decision._known.clear()
        return decision.serves_on_cpu(native, CPU) * u

    monkeypatch.setenv("ZOO_SELF_CHECK", "force")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert scan(torch.ones(1)) == 1
    assert torch.vmap(scan)(torch.ones(3)).tolist() == [1, 1, 1]
    assert torch.func.grad(lambda u: scan(u).sum())(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.skipif(not LEVELS, reason="needs the C++ kernel")
def test_the_verdict_of_the_kernel_is_kept(fresh, monkeypatch):
    assert decision.serves_on_cpu(native, CPU)
    decision._known.clear()
    monkeypatch.setattr(decision, "first_fault", None)  # nothing is run again
    assert decision.serves_on_cpu(native, CPU)
    [path] = (fresh / "self-checks").glob("*.json")
    assert json.loads(path.read_text())["verdict"]["seconds"] < 5


def test_an_exception_fails_the_check_but_not_what_memory_lacks(fresh):
    found = decision._checked_on_cpu(lambda: [][0])
    assert not found.passed and found.kept and "IndexError: list index" in found.error

    def fill():
        raise MemoryError("out of memory in the selective scan")

    found = decision._checked_on_cpu(fill)
    assert not found.passed and not found.kept


def test_a_kernel_that_hangs_is_not_waited_for(fresh, monkeypatch):
    monkeypatch.setattr(decision, "_CPU_LIMIT", 0.1)
    end = threading.Event()
    found = decision._checked_on_cpu(lambda: end.wait(60) and None)
    end.set()
    assert not found.passed and found.error == "no result in 0 s"


@pytest.mark.skipif(not LEVELS, reason="needs the C++ kernel")
def test_wrong_passes_are_left_to_pytorch(fresh, monkeypatch, caplog):
    assert passes.first_wrong() is None
    run = library.run

    def spoilt(function, *arguments):
        run(function, *arguments)
        if function == "zoo_depthwise_slope":
            address = arguments[-1]
            ctypes.cast(address, ctypes.POINTER(ctypes.c_float))[3] += 1

    monkeypatch.setattr(library, "run", spoilt)
    passes.passes_are_right.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not passes.passes_are_right()
    assert f"(passes over features) with the instruction set {native.level()} has" in caplog.text
    assert "PyTorch's own operators serve instead" in caplog.text
    assert "case the slope of an activation: it deviates by" in caplog.text
    x = torch.rand(1, 4, 4, 8)
    assert not conditions.may_run(x)
    passes.passes_are_right.cache_clear()


@pytest.mark.skipif(not LEVELS, reason="needs the C++ kernel")
def test_what_is_examined_of_the_passes_is_changed_on_purpose_only():
    found = {name: tuple(ours.shape) for name, ours, _ in passes._results()}
    features, tokens, channels = (2, 5, 7, 35), (2, 3, 5, 35), (35,)
    assert found == {
        **{f"a convolution with {name}": features for name in ("none", "silu", "gelu")},
        "the slope of an activation": features,
        "the gradient of a convolution's weight": (35, 1, 3, 3),
        "the gradient of a convolution's bias": channels,
        **{"a scaled sum": tokens, "a gated norm": tokens},
        **{f"the gradient of a pass's {name}": tokens for name in ("x", "skip", "gate")},
        "the gradient of a pass's gain": (2, 1, 1, 35),
        **{f"the gradient of a pass's {name}": channels for name in ("scale", "weight", "bias")},
        **{f"a {name} in a row of layers": tokens for name in ("product", "convolution")},
        **({"a product of bfloat16": tokens} if library.has_half_products() else {}),
        "a product with its activation": tokens,
        "the mean of the norms of directions": (2, 5, 35),
        "the gated sum of directions": (2, 3, 35),
        "the gain of a channel attention": (2, 1, 1, 35),
    }
    first = next(iter(passes._results()))[2]
    assert float(first[0, 0, 0, 0]) == pytest.approx(FIRST, abs=1e-6)


FIRST = -2.0816534
"""The first number that is computed, which depends on the seed."""


def test_the_instruction_set_is_chosen_before_the_passes_are_checked(monkeypatch):
    calls = []
    monkeypatch.setattr(passes, "serves_on_cpu", lambda *given: calls.append(given))
    monkeypatch.setattr(passes, "part_serves_on_cpu", lambda *given: calls.append(given) or True)
    assert passes.passes_are_right.__wrapped__()
    assert calls == [(native, CPU), ("passes over features", passes.first_wrong)]


@pytest.mark.skipif(not LEVELS, reason="needs the C++ kernel")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_the_default_dtype_of_a_program_does_not_reach_the_checks(fresh, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert passes.first_wrong() is None
        assert decision.serves_on_cpu(native, CPU)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(not LEVELS, reason="needs the C++ kernel")
def test_a_process_forked_during_a_check_does_not_wait_for_it(fresh):
    with decision._lock, verdicts.turn(machine.of_cpu("other"), 0) as ours:
        assert ours
        pid = os.fork()
        if not pid:
            os._exit(0 if decision._lock.acquire(timeout=5) else 1)
        assert os.waitpid(pid, 0)[1] == 0
