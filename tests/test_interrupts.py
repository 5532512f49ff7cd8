"""Ctrl-C: quiet while modules are imported, and an error again when a command runs."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import zoo
from tests.helpers.command_line import run, shown
from zoo import interrupts
from zoo.command import run_command
from zoo.interrupts import quiet_imports, start_quietly

ROOT = Path(zoo.__file__).parents[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "zoo", "doctor"], ["-m", "zoo", "train", "mambair_tiny_x2"],
        ["-m", "zoo", "list", "--import", "slow_part"], ["-m", "export.onnx"],
        ["-m", "recipes.evaluate"], [f"{ROOT}/recipes/train.py"], [f"{ROOT}/recipes/evaluate.py"],
        ["-m", "zoo.data.burst"],
    ],
)  # fmt: skip
def test_ctrl_c_while_modules_are_imported_is_quiet(words, tmp_path):
    """The modules here send it; PyTorch and NumPy would turn it into other errors."""
    interrupt = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise ImportError('half')"
    (tmp_path / ("slow_part.py" if "slow_part" in words else "torch.py")).write_text(interrupt)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    found = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stderr, found.stdout) == (130, "interrupted\n", "")


def test_ctrl_c_raises_again_when_a_command_runs(capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert start_quietly() and signal.getsignal(signal.SIGINT) is not before
        assert not start_quietly()
        with quiet_imports():
            pass
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        shown(capsys, "--version")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_quiet_while_a_command_and_parts_are_imported(monkeypatch):
    """Also in a program that calls the command line."""
    seen = {}

    def load(module):
        seen[module] = signal.getsignal(signal.SIGINT)
        return lambda words, prog: 0

    def import_parts(modules):
        seen[modules[0]] = signal.getsignal(signal.SIGINT)

    monkeypatch.setattr("zoo.cli._load", load)
    monkeypatch.setattr("zoo.command.import_parts", import_parts)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run("doctor") == 0
        run_command(argparse.ArgumentParser(), lambda _: None, ["--import", "mine"])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == dict.fromkeys(("zoo.commands.doctor", "mine"), interrupts._end)


def test_outside_the_main_thread_nothing_changes(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    changed = []
    try:
        thread = threading.Thread(target=lambda: changed.append(start_quietly()))
        thread.start()
        thread.join()
        assert changed == [False]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_as_before_after_imports():
    def own(*_):
        raise KeyError

    for handler in (signal.default_int_handler, own, signal.SIG_IGN):
        before = signal.signal(signal.SIGINT, handler)
        try:
            with quiet_imports():
                during = signal.getsignal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is handler
        finally:
            signal.signal(signal.SIGINT, before)
        assert (during is handler) == (handler is not signal.default_int_handler)
