"""Batches on their way from the processes that load them, and what may happen there."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Dataset

from tests.helpers.training import Rank
from zoo.errors import ImageError, ZooError
from zoo.training import batches, batching, loader
from zoo.training.settings import Stage

FULL = "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"


class Numbers(Dataset):
    """Pairs of tensors; what example 3 does is given."""

    def __init__(self, third=lambda: None):
        self.third = third

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 3:
            self.third()
        return torch.full((2, 3), float(index)), torch.tensor([index])


def loaded(examples, num_workers):
    stage = Stage(iterations=4, patch=1, batch=2)
    made = batches(
        lambda _: examples, [stage], step=0, accumulate=1, group=Rank(0, 1),
        num_workers=num_workers,
    )  # fmt: skip
    return [batch for [batch] in made]


def fails(message):
    def collate(_):
        raise RuntimeError(message)

    return collate


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_come_without_shared_memory_too(num_workers, monkeypatch):
    """Containers often have 64 MB of it. The training hung when it was full."""
    usual = loaded(Numbers(), num_workers)
    assert usual[0][0].is_shared() == bool(num_workers)
    monkeypatch.setattr(batching, "default_collate", fails(FULL))
    found = loaded(Numbers(), num_workers)
    assert not found[0][0].is_shared() and len(found) == len(usual) == 4
    for batch, expected in zip(found, usual, strict=True):
        for tensor, wanted in zip(batch, expected, strict=True):
            assert torch.equal(tensor, wanted) and tensor.dtype == wanted.dtype
            tensor.add_(1)  # it can be written to


def test_other_errors_of_batches_are_defects(monkeypatch):
    monkeypatch.setattr(batching, "default_collate", fails("stack expects equal sizes"))
    with pytest.raises(RuntimeError, match="equal sizes"):
        loaded(Numbers(), 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_example_that_cannot_be_loaded_is_its_own_sentence(num_workers):
    def gone():
        raise ImageError("photo 3 is gone; bring it back")

    with pytest.raises(ImageError, match=r"^photo 3 is gone; bring it back$"):
        loaded(Numbers(gone), num_workers)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        EOFError("nothing more"),
    ],
)
def test_a_process_that_is_killed_is_told(error):
    def batches():
        yield (torch.zeros(1),)
        raise error

    found = batching.received(batches())
    assert len(next(found)) == 1
    with pytest.raises(ZooError, match="a process that loads data ended unexpectedly") as told:
        next(found)
    assert str(error) in str(told.value)


@pytest.mark.parametrize("error", [RuntimeError("defect"), PermissionError("defect")])
def test_another_error_is_no_end_of_a_process(error):
    def batches():
        yield (torch.zeros(1),)
        raise error

    with pytest.raises(type(error), match="defect"):
        list(batching.received(batches()))


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="the system has no such signal")
def test_a_process_that_ends_is_an_error_only_while_the_trainer_waits(monkeypatch):
    told = []

    def pytorchs(number, frame):
        told.append(number)
        if len(told) == 3:
            raise RuntimeError("DataLoader worker (pid 7) is killed")

    def ends():
        os.kill(os.getpid(), signal.SIGCHLD)

    def waits(then=lambda: None):
        with batching.Waiting():
            then()

    before = signal.signal(signal.SIGCHLD, pytorchs)
    try:
        for _ in range(2):  # a second stage of a training starts a second loader
            batching.Waiting.replace_handler()
        ends()
        assert told == []
        waits()  # what was noted is told
        assert told == [signal.SIGCHLD]
        waits(ends)
        assert len(told) == 2
        waits()
        assert len(told) == 2
        with ThreadPoolExecutor(1) as threads:
            threads.submit(waits, partial(time.sleep, 0.3))
            time.sleep(0.1)
            ends()  # in the main thread, which does not wait
            assert len(told) == 2
        with pytest.raises(RuntimeError, match="DataLoader"):
            waits()
        ends()
        assert len(told) == 3  # it waits no more
    finally:
        signal.signal(signal.SIGCHLD, before)
        batching.Waiting._noted = None


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="the system has no such signal")
def test_batches_come_in_a_thread_too():
    """There no handler can be replaced, such as that of a loader of the user's own."""
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        with ThreadPoolExecutor(1) as threads:
            assert len(threads.submit(loaded, Numbers(), 1).result(60)) == 4
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_process_that_keeps_its_loader_still_ends():
    """A kept error keeps the loader. At exit, Python ends its processes by a signal and waits."""
    script = """
from tests.training.test_batching import Numbers, Rank, Stage, batches
kept = batches(lambda _: Numbers(), [Stage(iterations=4, patch=1, batch=2)], step=0,
               accumulate=1, group=Rank(0, 1), num_workers=1)
next(kept)
import sys
sys.kept = kept
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize("alive", [True, False])
def test_a_process_whose_trainer_was_killed_before_it_started_ends(alive, monkeypatch):
    """It would wait for numbers of examples for ever: PyTorch compares parents from then on."""
    monkeypatch.setattr(os, "setpgid", lambda *_: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    trainer = SimpleNamespace(pid=os.getppid() if alive else os.getpid())
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: trainer)
    with nullcontext() if alive else pytest.raises(SystemExit):
        loader._start_process(0)
