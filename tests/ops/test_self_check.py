"""The self-check: a broken backend is found, told, and not used; a right one serves by itself."""

from __future__ import annotations

import ctypes
import dataclasses
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import zoo
from tests.helpers.broken_backends import BACKENDS, run_in_this_process
from tests.helpers.scan_cases import Case, make_inputs
from zoo.inference import restore_tensor
from zoo.ops import selective_scan
from zoo.ops.passes import conditions, library
from zoo.ops.passes import self_check as passes
from zoo.ops.scan import chunked, dispatch, native
from zoo.ops.scan.self_check import child, decision, machine, plans, processes, verdicts
from zoo.ops.scan.self_check.verdicts import Verdict

SHORT = "tests.helpers.broken_backends:SHORT_PLAN"
ONE_GROUP = "tests.helpers.broken_backends:ONE_GROUP"
CPU = torch.device("cpu")


def shrunk(check):
    case = check.case
    small = dataclasses.replace(case, L=min(case.L, 9), E=min(case.E, 7), N=min(case.N, 5))
    return dataclasses.replace(check, case=small)


SMALL_PLAN = tuple(tuple(map(shrunk, group)) for group in plans.ON_A_GPU)
"""The cases of a GPU with small sizes: of the same kinds, and as many."""


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is known of this machine."""
    monkeypatch.setenv("ZOO_SELF_CHECK", "1")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(decision, "_known", {})
    return tmp_path


@pytest.fixture
def gpu(fresh, monkeypatch):
    """A CPU that stands for a GPU; a function that puts a backend in Triton's place there."""
    monkeypatch.setattr(decision, "GPU", "cpu")
    monkeypatch.setattr(machine, "of_gpu", lambda device: {"device": "a stand-in", "driver": "1"})
    monkeypatch.setattr(dispatch, "TRUSTED", {"triton": decision.serves_on_gpu})

    def put(name):
        backend = type(BACKENDS[name])()
        monkeypatch.setitem(BACKENDS, name, backend)
        monkeypatch.setattr(sys.modules[type(backend).__module__], name, backend)
        monkeypatch.setattr(dispatch, "BACKENDS", {"triton": backend, "chunked": chunked})
        return backend

    return put


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(plans, "SMALL_PLAN", SMALL_PLAN, raising=False)
    monkeypatch.setattr(decision, "PLAN", f"{plans.__name__}:SMALL_PLAN")
    return run_in_this_process(monkeypatch)


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
    checks = [check for group in plans.ON_A_GPU for check in group]
    assert len(checks) == 20
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


@pytest.mark.parametrize(
    ("name", "says"),
    [("hangs", "no result after 1 seconds"), ("crashes", "the process ended with code -11")],
)
def test_a_hang_or_a_crash_ends_a_process_of_its_own(name, says, gpu, monkeypatch):
    backend = gpu(name)
    verdict = processes.examine(backend.PLACE, CPU, ONE_GROUP, limit=1)
    assert not verdict.passed and verdict.kept
    assert says in verdict.error
    assert ("-each" in verdict.case) == (name == "hangs")


def test_processes_pass_a_right_backend(gpu, monkeypatch):
    verdict = processes.examine(gpu("right").PLACE, CPU, SHORT)
    assert verdict == Verdict(passed=True, seconds=verdict.seconds)
    assert 0 < verdict.seconds < 60


def test_a_process_that_cannot_start_decides_nothing(fresh, monkeypatch):
    found = processes.examine("tests.helpers.no_such:one", CPU, ONE_GROUP)
    assert not found.passed and not found.kept
    assert "No module named 'tests.helpers.no_such'" in found.error
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    found = processes.examine("zoo.ops.scan.chunked", CPU, ONE_GROUP)
    assert not found.kept and "no Python of its own" in found.error


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
    assert "(passes over features) with the instruction set" in caplog.text
    assert "PyTorch's own operators serve instead" in caplog.text
    assert "case the slope of an activation: it deviates by" in caplog.text
    x = torch.rand(1, 4, 4, 8)
    assert not conditions.may_run(x)
    passes.passes_are_right.cache_clear()


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


def process_that(code=None, told=(), words=""):
    """A process that has told so much and has ended with a code, or still runs."""
    ended = SimpleNamespace(poll=lambda: code)
    lines = "\n".join(json.dumps(line) for line in told)
    return processes._Process(ended, io.BytesIO(lines.encode()), io.BytesIO(words.encode()))


@pytest.mark.parametrize(
    ("code", "words", "kept", "says"),
    [
        (-signal.SIGKILL, "", False, "ended from outside (SIGKILL)"),
        (-signal.SIGTERM, "", False, "ended from outside (SIGTERM)"),
        (-signal.SIGINT, "KeyboardInterrupt", False, "ended from outside (SIGINT)"),
        (child.CANNOT_TELL, "", False, "could not write to the folder of temporary files"),
        (1, "PTXASError: No space left on device", False, "No space left"),
        (-signal.SIGSEGV, "", True, "ended with code -11"),
        (1, "Assertion failed", True, "Assertion failed"),
    ],
)
def test_a_process_that_others_have_ended_says_nothing_of_the_backend(code, words, kept, says):
    task = processes._Task("any", CPU, ONE_GROUP, 1)
    [found] = process_that(code, [{"starts": "one"}], words).look(task, lambda: None)
    assert not found.passed and found.kept == kept and says in found.error


def test_time_in_which_all_were_stopped_does_not_count(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    process, task = process_that(told=[{"starts": "one"}]), processes._Task("any", CPU, SHORT, 90)
    assert process.look(task, lambda: None) is None
    now[0] += 3600  # Ctrl-Z, and fg
    assert process.look(task, lambda: None) is None
    for _ in range(90):
        now[0] += 1
        found = process.look(task, lambda: None)
    assert found is not None and found[0].kept and "no result after 90" in found[0].error


def test_ctrl_c_does_not_reach_the_processes_of_a_check(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "_START", "import time; time.sleep(60)")
    process = processes._start("child")
    try:
        assert os.getpgid(process.started.pid) != os.getpgid(0)
    finally:
        process.end()


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "/root/.triton/cache"),
        subprocess.CalledProcessError(1, ["gcc", "-lcuda"]),
        ImportError("libcuda.so.1: cannot open shared object file"),
        RuntimeError("ptxas: write failed: No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_disk_or_a_compiler_that_fails_decides_nothing(error):
    assert child.cannot_judge(error)
    assert not child.cannot_judge(RuntimeError("an illegal memory access was encountered"))


def test_what_others_print_does_not_hide_what_a_process_tells(capfd, monkeypatch):
    sys.stdout.write("half a line")
    child.tell(done=True)
    output = io.BytesIO(capfd.readouterr().out.encode())
    assert processes._Process(None, output, io.BytesIO()).told() == [{"done": True}]
    ended = []
    monkeypatch.setattr(child.os, "_exit", ended.append)

    def write(text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=write))
    child.tell(done=True)
    monkeypatch.undo()
    assert ended == [child.CANNOT_TELL]


def test_a_process_finds_this_package_whatever_is_in_the_path_of_modules(monkeypatch):
    root = str(Path(zoo.__file__).parents[1])
    others = [path for path in sys.path if os.path.realpath(path or ".") != root]
    monkeypatch.setattr(sys, "path", [Path("/nowhere"), *others, 7])
    show = "import json, sys; print(json.dumps({'path': json.loads(sys.stdin.readline())}))"
    monkeypatch.setattr(processes, "_START", show.replace("{", "{{").replace("}", "}}"))
    process = processes._start("child")
    try:
        process.started.wait(timeout=60)
        assert process.told() == [{"path": [*(path or "." for path in others), root]}]
    finally:
        process.end()


@pytest.mark.parametrize(
    ("program", "starts"),
    [
        ("/usr/bin/python3.12", True),
        ("/opt/Python.app/Contents/MacOS/Python", True),
        ("/opt/blender/blender", False),
        ("/usr/bin/uwsgi", False),
        ("", False),
        (None, False),
    ],
)
def test_a_program_that_embeds_python_is_not_started_again(monkeypatch, program, starts):
    monkeypatch.setattr(sys, "executable", program)
    assert processes._has_python() == starts


def test_a_kernel_of_three_lines_without_a_process(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "no process could be started" in processes.tiny_kernel_fails(CPU)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(not LEVELS, reason="needs the C++ kernel")
def test_a_process_forked_during_a_check_does_not_wait_for_it(fresh):
    with decision._lock, verdicts.turn(machine.of_cpu("other"), 0) as ours:
        assert ours
        pid = os.fork()
        if not pid:
            os._exit(0 if decision._lock.acquire(timeout=5) else 1)
        assert os.waitpid(pid, 0)[1] == 0


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
