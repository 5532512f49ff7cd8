"""Commands that are killed at random moments: the same command again ends with the same bytes.

A command runs in a copy (fork) of this process, which is killed from outside at a moment of its
life, or by itself just before it changes a file. Then the command runs again, to its end.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import recipes.train
import zoo.cli
from tests.fuzz.frame import FaultError
from tests.helpers.training import SETTINGS, make_photos, words
from zoo.checkpoints import save
from zoo.recipe import build

COUNT, SLICE = 176, 6
SECONDS = 120.0  # the machine may be busy

PARTS = 1000
"""Moments into which the life of a process is divided."""


@dataclass(frozen=True)
class Kill:
    """When a process is killed.

    Attributes:
        part: of its life, or of its changes of files, in thousandths.
        at_change: whether it is killed just before it changes a file.
    """

    part: int
    at_change: bool


@dataclass(frozen=True)
class Case:
    """A command and the kills of its first processes, one after another."""

    command: str
    kills: tuple[Kill, ...]


def cases() -> SearchStrategy[Case]:
    return cases_of("train", "train", "train_with_reader", "restore")


def cases_of(*commands: str) -> SearchStrategy[Case]:
    """Kills at any moment, half of them in the last fifth of a life."""
    anywhere, late = st.integers(0, PARTS), st.integers(PARTS * 8 // 10, PARTS)
    kill = st.builds(Kill, part=anywhere | late, at_change=st.booleans())
    kills = st.lists(kill, min_size=1, max_size=2).map(tuple)
    return st.builds(Case, command=st.sampled_from(commands), kills=kills)


def attempt(case: Case, folder: Path) -> str:
    expected = undisturbed(case.command)
    killed = 0
    for kill in case.kills:
        killed += run(case.command, folder, kill, expected) == -signal.SIGKILL
    code = run(case.command, folder)
    if code != 0:
        raise FaultError(f"the same command again ends with code {code}: {log_of(folder)}")
    found = content(folder)
    if found != expected.content:
        differs = [
            name
            for name in sorted({*found, *expected.content})
            if found.get(name) != expected.content.get(name)
        ]
        raise FaultError(f"after {killed} kills, these files differ: {differs}; {log_of(folder)}")
    return f"{case.command}, killed {killed} times"


def planted() -> AbstractContextManager[object]:
    """A resumed training draws other random numbers than an uninterrupted one."""
    return mock.patch("recipes.train.restore_rng_state", lambda state, device: None)


@functools.cache
def inputs() -> Path:
    """Photos, and a small network with its weights."""
    torch.optim.Adam([torch.zeros(1)])  # this imports half of PyTorch, once for all processes
    folder = Path(tempfile.mkdtemp(prefix="fuzz-kills-"))
    make_photos(folder / "photos", count=2)
    network = {"type": "single_image", "dim": 32, "depths": [1], "scale": 2}
    (folder / "small.yaml").write_text(json.dumps({"network": network}))
    torch.manual_seed(0)
    save(build({"name": "small", "network": network}), folder / "small.safetensors")
    return folder


def training(folder: Path, num_workers: str) -> int:
    settings = [word for word in SETTINGS if "every" not in word]
    settings += ["ema=0.9", "data.mixup=1.2", "log_every=2", "save_every=2", "keep=2"]
    given = words(inputs() / "photos", folder, base=settings, num_workers=num_workers)
    # TensorBoard's files hold times.
    with mock.patch("zoo.training.metrics_log.find_spec", lambda name: None):
        return recipes.train.main(given)


def restoring(folder: Path) -> int:
    given = ["restore", inputs() / "photos", "-o", folder / "new" / "restored"]
    return zoo.cli.main([str(word) for word in (*given, "-w", inputs() / "small.safetensors")])


def exporting(folder: Path, kind: str, name: str, *more: str) -> int:
    model = ["-n", inputs() / "small.yaml", "-w", inputs() / "small.safetensors"]
    given = ["export", kind, *model, "-o", folder / name, *more]
    return zoo.cli.main([str(word) for word in given])


COMMANDS: dict[str, Callable[[Path], int]] = {
    "train": lambda folder: training(folder, "0"),
    "train_with_reader": lambda folder: training(folder, "1"),
    "restore": restoring,
    "export_onnx": lambda folder: exporting(folder, "onnx", "small.onnx"),
    "export_serve": lambda folder: exporting(folder, "serve", "models", "--overwrite"),
}


@dataclass(frozen=True)
class Expected:
    """What an undisturbed run leaves, how long it takes, and how often it changes a file."""

    content: dict[str, Any]
    seconds: float
    changes: int


@functools.cache
def undisturbed(command: str) -> Expected:
    inputs()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as text:
        folder = Path(text)
        begun = time.perf_counter()
        code = run(command, folder)
        seconds = time.perf_counter() - begun
        assert code == 0, log_of(folder)
        changes = int((folder / "changes").read_text())
        return Expected(content(folder), seconds, changes)


def run(
    command: str, folder: Path, kill: Kill | None = None, expected: Expected | None = None
) -> int:
    """Run a command in a process of its own; return its exit code, or minus the signal."""
    moment, change = None, None
    if kill is not None and expected is not None:
        if kill.at_change:
            change = expected.changes * kill.part // PARTS
        else:
            moment = expected.seconds * kill.part / PARTS
    process = os.fork()
    if process == 0:
        _command_process(command, folder, change)
    try:
        if moment is not None:
            time.sleep(moment)
            os.kill(process, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    finally:
        with suppress(ProcessLookupError):  # also what the process had started
            os.killpg(process, signal.SIGKILL)


def _command_process(command: str, folder: Path, change: int | None) -> None:
    """Run a command in this process, which ends with it."""
    code = 70
    try:
        os.setsid()
        gc.freeze()
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115
        torch.set_num_threads(1)  # threads do not survive a fork
        made = 0

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal made
            if changes_a_file(event, arguments):
                if made == change:
                    os.kill(os.getpid(), signal.SIGKILL)
                made += 1

        (folder / "run").mkdir(exist_ok=True)
        main_process = os.getpid()
        sys.addaudithook(lambda *call: count(*call) if os.getpid() == main_process else None)
        code = COMMANDS[command](folder / "run")
        (folder / "changes").write_text(str(made))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def changes_a_file(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether Python is about to change the name or the content of a file."""
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod")


def log_of(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")[-1500:]


def content(folder: Path) -> dict[str, Any]:
    """Everything that a command left, by the path, without times."""
    root = folder / "run"
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.suffix == ".pt":
            state = torch.load(path, weights_only=True)
            found[name] = plain({key: state[key] for key in state if key != "seconds"})
        elif name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            times = ("seconds", "images_per_second")
            found[name] = [{k: v for k, v in line.items() if k not in times} for line in lines]
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder"
    return found


def plain(value: Any) -> Any:
    """Return a state as values that can be compared."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), np.asarray(value).tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
