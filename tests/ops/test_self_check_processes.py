"""The processes in which a backend of a GPU is examined: how they end, and what that says."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.ops.scan.self_check import child, processes
from zoo.ops.scan.self_check.verdicts import Verdict

SHORT = "tests.helpers.broken_backends:SHORT_PLAN"
ONE_GROUP = "tests.helpers.broken_backends:ONE_GROUP"
CPU = torch.device("cpu")


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


def test_what_a_process_tells_is_out_before_it_goes_on(monkeypatch):
    """The next case may crash it."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw))
    child.tell(done=True)
    assert raw.getvalue() == b'\n{"done": true}\n'


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
        ("/opt/pypy/bin/pypy3", True),
        ("/opt/graalpy", True),
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
