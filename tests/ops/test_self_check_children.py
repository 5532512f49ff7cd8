"""Processes of the self-check, with stand-ins: how many run, what they tell and how they end."""

from __future__ import annotations

import io
import json
import subprocess
from types import SimpleNamespace

import pytest
import torch

from zoo.ops.scan import chunked
from zoo.ops.scan.self_check import child, plans, processes
from zoo.ops.scan.self_check.cases import Case
from zoo.ops.scan.self_check.comparison import Check
from zoo.ops.scan.self_check.verdicts import Verdict

CPU = torch.device("cpu")
ONE = ((Check(Case(), torch.float32),),)


class Doubled:
    """Its y is wrong."""

    def forward(self, inputs, reduce):
        return 2 * chunked.forward(inputs, reduce)

    backward = staticmethod(chunked.backward)


@pytest.mark.parametrize(
    ("cores", "groups", "go_on", "free", "expected"),
    [
        (64, 20, False, 99, 6),
        (64, 20, True, 99, 16),
        (3, 20, True, 99, 3),
        (64, 2, True, 99, 2),
        (64, 20, True, 4, 4),
        (64, 20, True, 0, 1),
    ],
)
def test_as_many_processes_run_as_there_is_room_for(
    monkeypatch, cores, groups, go_on, free, expected
):
    own = {0: range(cores)}  # 0 is this process
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda pid: own[pid], raising=False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((free << 30) + 5, 99 << 30))
    task = processes._Task("any", torch.device("cuda"), "plan", 1, go_on)
    assert processes._at_once(task, groups) == expected
    monkeypatch.delattr(processes.os, "sched_getaffinity")
    monkeypatch.setattr(processes.os, "cpu_count", lambda: cores)
    assert processes._at_once(task, groups) == expected
    monkeypatch.setattr(processes.os, "cpu_count", lambda: None)
    assert processes._at_once(task, groups) == 1


def test_a_child_ends_itself_and_takes_one_thread(monkeypatch):
    """Nobody else would end it if its parent is killed; and there are others beside it."""
    order = processes._Task("zoo.ops.scan.chunked", CPU, f"{__name__}:ONE", 1)
    told, calls = [], []
    monkeypatch.setattr(processes, "_start", lambda module, **words: words)
    words = order.start(0)
    assert words == {
        **{"backend": "zoo.ops.scan.chunked", "device": "cpu", "plan": f"{__name__}:ONE"},
        **{"group": 0, "most": 1800.0, "all": False},
    }
    lines = SimpleNamespace(readline=lambda: json.dumps(words))
    monkeypatch.setattr(child.sys, "stdin", lines)
    monkeypatch.setattr(child, "tell", lambda **line: told.append(line))
    for name in ("dump_traceback_later", "cancel_dump_traceback_later"):
        note = lambda *given, _name=name, **named: calls.append((_name, given, named))  # noqa: E731
        monkeypatch.setattr(child.faulthandler, name, note)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: calls.append(count))
    child.main()
    assert calls == [
        ("dump_traceback_later", (1800.0,), {"exit": True}),
        1,
        ("cancel_dump_traceback_later", (), {}),
    ]
    case = "float32 B2-L7-K2-E5-R2-N4-full-low-sum"
    assert told == [{"starts": case}, {"done": True}]


def test_a_device_that_cannot_be_used_is_told_before_any_case(monkeypatch):
    told = []
    monkeypatch.setattr(child, "tell", lambda **line: told.append(line))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)

    def empty(size, device):
        raise RuntimeError("CUDA error: all devices are busy")

    monkeypatch.setattr(torch, "empty", empty)
    child._examine(chunked, CPU, ONE[0], False)
    assert told == [{"undecided": "RuntimeError: CUDA error: all devices are busy"}]


@pytest.mark.parametrize("go_on", [False, True])
def test_a_report_goes_on_after_a_fault_and_a_check_does_not(monkeypatch, go_on):
    told, wrong = [], Doubled()
    monkeypatch.setattr(child, "tell", lambda **line: told.append(next(iter(line))))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    child._examine(wrong, CPU, ONE[0] * 2, go_on)
    assert told == ["starts", "failed"] * (1 + go_on) + ["done"] * go_on


@pytest.mark.parametrize("sign", child.NOT_ITS_FAULT)
def test_errors_of_a_device_or_a_disk_are_told_by_their_words(sign):
    assert child.cannot_judge(RuntimeError(f"CUDA error: {sign.upper()}."))


def test_signs_of_what_is_not_the_fault_of_a_backend():
    assert set(child.NOT_ITS_FAULT) == {
        *("busy or unavailable", "cuda-capable device(s)", "no kernel image"),
        *("initialization error", "no space left on device", "disk quota exceeded"),
        "read-only file system",
    }


def watched(told=(), code=None, words="", wait=lambda timeout: 0):
    started = SimpleNamespace(poll=lambda: code, wait=wait, kill=lambda: None, returncode=code)
    lines = "\n".join(json.dumps(line) for line in told)
    return processes._Process(started, io.BytesIO(lines.encode()), io.BytesIO(words.encode()))


def test_a_process_that_does_not_start_in_time_decides_nothing(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    process, task = watched(), processes._Task("any", CPU, "plan", 1)
    for _ in range(120):
        now[0] += 1
        assert process.look(task, lambda: None) is None
    now[0] += 1
    [found] = process.look(task, lambda: None)
    assert not found.kept and found.error == (
        "the process of the check did not start within 120 seconds"
    )


def test_what_a_process_tells_is_its_verdict(monkeypatch):
    begun = []
    failed = {"failed": "one", "error": "wrong"}
    told = [{"starts": "one"}, failed, {"starts": "two"}]
    one = Verdict(False, "one", "wrong")
    task = processes._Task("any", CPU, "plan", 1)
    assert watched(told).look(task, lambda: begun.append(1)) == [one]
    assert begun == [1, 1]
    going = processes._Task("any", CPU, "plan", 1, go_on=True)
    process = watched(told)
    assert process.look(going, lambda: begun.append(2)) is None
    assert process.look(going, lambda: begun.append(2)) is None
    assert begun == [1, 1, 2, 2]  # each case is counted once
    assert watched([*told, {"done": True}]).look(going, lambda: None) == [one]
    undecided = Verdict(False, error="full", kept=False)
    assert watched([*told, {"undecided": "full"}]).look(going, lambda: None) == [one, undecided]
    crashed = watched(told, 3, "first\nlast words\n\n").look(going, lambda: None)
    assert crashed == [one, Verdict(False, "two", "the process ended with code 3: last words")]
    for words, case in (("CUDA Out Of Memory", "one"), ("broken", "")):
        process = watched([{"starts": case}] if case else [], 1, words)
        [found] = process.look(task, lambda: None)
        assert not found.kept and found.case == "" and words in found.error


@pytest.mark.parametrize(
    ("process", "says"),
    [
        (watched([{"wrong": None}]), None),
        (watched([{"starts": 1}, {"wrong": "it adds wrongly"}]), "it adds wrongly"),
        (watched(code=1, words="no driver\n"), "no driver"),
        (watched(code=7), "it ended with code 7"),
    ],
    ids=["right", "wrong", "words", "silent"],
)
def test_a_kernel_of_three_lines_tells_what_is_wrong(monkeypatch, process, says):
    started = []
    monkeypatch.setattr(
        processes, "_start", lambda module, **order: started.append((module, order)) or process
    )
    assert processes.tiny_kernel_fails(torch.device("cuda:1")) == says
    assert started == [("tiny", {"device": "cuda:1"})]
    assert process.output.closed and process.errors.closed


def test_a_kernel_of_three_lines_that_hangs_is_ended(monkeypatch):
    killed, waited = [], []

    def wait(timeout):
        waited.append(timeout)
        raise subprocess.TimeoutExpired("python", timeout)

    process = watched(wait=wait)
    process.started.kill = lambda: killed.append(1)
    monkeypatch.setattr(processes, "_start", lambda module, **order: process)
    assert processes.tiny_kernel_fails(CPU, limit=7) == "no result after 7 seconds"
    assert killed == [1] and waited == [7, 5]


def test_short_looks_count_as_long_as_they_take(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    process, task = watched([{"starts": "one"}]), processes._Task("any", CPU, "plan", 2)
    for _ in range(9):
        assert process.look(task, lambda: None) is None
        now[0] += 0.25
    assert process.look(task, lambda: None) is not None


def test_what_is_no_text_does_not_hide_what_a_process_tells():
    started = SimpleNamespace(poll=lambda: 1)
    output, errors = (io.BytesIO(text) for text in (b'\xff\n7\n{"done": true}', b"\xff" * 400))
    process = processes._Process(started, output, errors)
    assert process.told() == [{"done": True}]
    assert process.last_words() == "\ufffd" * 300


def test_the_place_of_a_backend_is_its_module_or_what_it_says():
    assert processes.place_of(chunked) == "zoo.ops.scan.chunked"
    assert processes.place_of(SimpleNamespace(PLACE="a:b")) == "a:b"


def test_signals_that_others_send_are_told_from_a_crash():
    names = {processes.signal.Signals(-code).name for code in processes._FROM_OUTSIDE}
    assert names == {"SIGHUP", "SIGINT", "SIGKILL", "SIGTERM", "SIGXCPU"}


class Counted:
    """Processes that end after three looks; how many there are at once is noted."""

    def __init__(self, monkeypatch):
        self.alive, self.most, self.groups, self.sleeps = 0, 0, [], []
        monkeypatch.setattr(processes._Task, "start", self.start)
        monkeypatch.setattr(processes, "_at_once", lambda task, groups: 2)
        monkeypatch.setattr(processes.time, "sleep", self.sleeps.append)

    def start(self, group):
        self.groups.append(group)
        self.alive += 1
        self.most = max(self.most, self.alive)
        looks = iter([None, None, [Verdict(False, str(group))]])
        return SimpleNamespace(look=lambda *_: next(looks), end=self.end)

    def end(self):
        self.alive -= 1


def test_so_many_processes_run_at_once_and_each_is_ended(monkeypatch):
    counted = Counted(monkeypatch)
    plan = f"{plans.__name__}:ON_A_GPU"
    found = processes.examine_all("any", CPU, plan)
    assert [verdict.case for verdict in found] == ["0", "1", "2", "3", "4", "5"]
    assert counted.groups == [0, 1, 2, 3, 4, 5] and (counted.alive, counted.most) == (0, 2)
    assert set(counted.sleeps) == {processes._POLL} and len(counted.sleeps) == 9
    clock = iter([1.0, 2.26])
    monkeypatch.setattr(processes.time, "monotonic", lambda: next(clock))
    assert processes.examine("any", CPU, plan) == Verdict(False, "0", seconds=1.3)
    assert counted.alive == 0

    def fail(task, group):
        raise OSError("no memory")

    monkeypatch.setattr(processes._Task, "start", fail)
    error = "no process could be started: no memory"
    assert processes.examine_all("any", CPU, plan) == [Verdict(False, error=error, kept=False)]


def test_files_of_a_process_that_cannot_be_started_are_closed(monkeypatch):
    made, real = [], processes.tempfile.TemporaryFile
    monkeypatch.setattr(
        processes.tempfile, "TemporaryFile", lambda: made.append(real()) or made[-1]
    )
    monkeypatch.setattr(processes.sys, "executable", "/nowhere/python")
    with pytest.raises(OSError, match="nowhere"):
        processes._start("child")
    assert len(made) == 2 and all(file.closed for file in made)


def test_a_process_is_told_all_at_once(monkeypatch):
    monkeypatch.setattr(processes, "_START", "pass")
    process = processes._start("child")
    try:
        assert process.started.stdin.closed
    finally:
        process.end()
