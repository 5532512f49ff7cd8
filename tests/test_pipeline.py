"""Jobs in stages: what overlaps, how much is held, and which job an error or a message is of."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests.helpers.networks import Nearest
from zoo.data import Photo, read_photo, write_photo
from zoo.distributed import ProcessGroup
from zoo.errors import ImageError
from zoo.inference.image import _read_bytes
from zoo.inference.jobs import Plan, restore_each
from zoo.inference.ordered_log import OrderedLog
from zoo.inference.pipeline import AHEAD_BYTES, WAITING_BYTES, Pipeline, Stages
from zoo.networks import Guide

LONG = 20
"""Seconds after which something does not happen."""

logger = logging.getLogger("zoo.tests.pipeline")


class Work:
    """Stages that note what they do, and do what a test adds."""

    def __init__(self, count, **hooks):
        self.jobs = [(Path(f"{n}.in"), Path(f"{n}.out")) for n in range(count)]
        self.hooks, self.done, self.changed = hooks, [], threading.Condition()
        self.input_bytes, self.output_bytes = 1, 1
        self.stages = Stages(
            read=lambda source, output: self.note("read", source),
            restore=lambda source, told: self.note("restore", source),
            write=lambda output, source: self.note("write", source),
            read_bytes=lambda source: self.input_bytes,
            restored_bytes=lambda source: self.output_bytes,
        )

    def note(self, stage, source):
        number = int(source.stem)
        self.tell(f"{stage} {number}")
        if hook := self.hooks.get(stage):
            hook(number)
        self.tell(f"{stage} {number} done")
        return source

    def tell(self, event):
        with self.changed:
            self.done.append(event)
            self.changed.notify_all()

    def wait(self, *events):
        with self.changed:
            met = self.changed.wait_for(lambda: set(events) <= set(self.done), LONG)
        assert met, f"{events} after {self.done}"

    def run(self, ahead=2, progress=lambda number: False, ends=lambda error: False):
        pipeline = Pipeline(self.jobs, self.stages, progress, ends)
        return pipeline.run(iter(range(len(self.jobs))), lambda number: None, lambda n: ahead)


def test_the_next_are_read_and_the_last_is_written_while_one_is_restored():
    def restore(number):
        if number == 1:
            work.wait("read 2 done", "read 3 done", "write 0")
            release.set()

    def write(number):
        assert number != 0 or release.wait(LONG)

    work, release = Work(4, restore=restore, write=write), threading.Event()
    assert work.run() == dict.fromkeys(range(4))
    assert work.done.index("write 0 done") > work.done.index("restore 1 done") - 2


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_no_more_are_read_ahead_than_may_be(ahead):
    seen = []

    def restore(number):
        last = min(number + ahead, 4)
        work.wait(*(f"read {n} done" for n in range(number + 1, last + 1)))
        time.sleep(0.02)
        read = [event for event in work.done if event.startswith("read") and "done" not in event]
        seen.append(len(read) - number - 1)

    work = Work(5, restore=restore)
    work.run(ahead)
    assert seen == [min(ahead, 4 - number) for number in range(5)]


@pytest.mark.parametrize("size", [None, AHEAD_BYTES + 1])
def test_an_input_that_is_large_or_unknown_is_read_when_it_is_its_turn(size):
    work = Work(3, restore=lambda number: time.sleep(0.02))
    work.input_bytes = size
    work.run()
    for number in (1, 2):
        assert work.done.index(f"read {number}") > work.done.index(f"restore {number - 1} done")


def test_two_outputs_wait_at_most():
    started, release = [], threading.Event()

    def restore(number):
        started.append(number)
        if number == 2:  # the first is being written, the second waits
            work.wait("write 0")
            threading.Timer(0.1, release.set).start()
        if number == 3:
            assert release.is_set() and "write 0 done" in work.done

    work = Work(4, restore=restore, write=lambda number: release.wait(LONG))
    assert work.run() == dict.fromkeys(range(4))
    assert started == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("size", "before"),
    [(WAITING_BYTES + 1, "restore 1"), (WAITING_BYTES // 2 + 1, "restore 2")],
    ids=["one is too large", "both are too large"],
)
def test_large_outputs_do_not_wait_together(size, before):
    work = Work(3, write=lambda number: time.sleep(0.05))
    work.output_bytes = size
    work.run()
    assert work.done.index("write 0 done") < work.done.index(before)


def test_an_error_is_that_of_its_job_whichever_thread_met_it():
    errors = {"read": {1: OSError("r")}, "restore": {2: KeyError("c")}, "write": {3: ValueError()}}

    def fail(stage, number):
        if error := errors[stage].get(number):
            raise error

    told = []
    work = Work(5, **{stage: partial(fail, stage) for stage in errors})
    found = work.run(progress=lambda number: lambda part: told.append((number, part)))
    assert found == {0: None, 1: errors["read"][1], 2: errors["restore"][2], 3: errors["write"][3],
                     4: None}  # fmt: skip
    assert told == [(1, 1.0), (2, 1.0)]  # what was not restored counts as done


def test_an_input_for_which_memory_is_too_small_is_read_again_when_it_is_its_turn():
    failed = []

    def read(number):
        if number == 1 and not failed:
            failed.append(number)
            raise MemoryError

    work = Work(3, read=read)
    assert work.run() == dict.fromkeys(range(3)) and failed == [1]
    again = len(work.done) - work.done[::-1].index("read 1") - 1
    assert again > work.done.index("restore 0 done")


@pytest.mark.parametrize(
    ("error", "written"), [(KeyboardInterrupt, ["write 0"]), (ValueError, ["write 0", "write 1"])]
)
def test_what_ends_the_work_leaves_no_thread_and_no_half_output(error, written):
    """After Ctrl-C, an output is finished, and none is begun; after an error, all are written."""
    raised = threading.Event()

    def restore(number):
        if number == 2:
            work.wait("write 0", "read 3 done")
            threading.Timer(0.1, raised.set).start()
            raise error

    before = threading.active_count()
    work = Work(8, restore=restore, write=lambda number: raised.wait(LONG))
    with pytest.raises(error):
        work.run(ends=lambda found: True)
    begun = [event for event in work.done if event.startswith("write") and "done" not in event]
    assert begun == written and all(f"{event} done" in work.done for event in begun)
    assert "restore 3" not in work.done and threading.active_count() <= before + 1  # the timer


def test_an_input_that_never_comes_does_not_keep_the_work_from_ending(monkeypatch):
    monkeypatch.setattr("zoo.inference.pipeline.PATIENCE", 0.1)
    came = threading.Event()

    def restore(number):
        work.wait("read 1")
        raise KeyboardInterrupt

    work = Work(4, read=lambda number: number == 1 and came.wait(LONG), restore=restore)
    with pytest.raises(KeyboardInterrupt):
        work.run()
    assert "read 1 done" not in work.done
    came.set()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_among_the_inputs_is_named_and_the_others_are_done(folder, tmp_path):
    (folder / "05.png").unlink()
    os.mkfifo(folder / "05.png")
    with pytest.raises(ImageError, match=r"11 written.*05\.png' is a pipe or a device"):
        zoo.restore(Nearest(), folder, tmp_path / "out", progress=False)


class Heard(logging.Handler):
    def __init__(self):
        super().__init__()
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


@pytest.fixture
def heard():
    """What two handlers hear, at the root and at the package."""
    handlers = {name: Heard() for name in ("", "zoo")}
    for name, handler in handlers.items():
        logging.getLogger(name).addHandler(handler)
    yield handlers
    for name, handler in handlers.items():
        logging.getLogger(name).removeHandler(handler)
        assert not handler.filters


def test_jobs_log_as_if_they_ran_one_after_another(heard):
    def say(stage, number):
        if stage == "write":
            time.sleep(0.02)  # the next two are read, and one is restored, before
        logger.warning("%s %d", stage, number)

    work = Work(5, **{stage: partial(say, stage) for stage in ("read", "restore", "write")})
    work.run()
    expected = [f"{stage} {n}" for n in range(5) for stage in ("read", "restore", "write")]
    assert [handler.said for handler in heard.values()] == [expected, expected]
    assert work.done.index("read 1") < work.done.index("write 0 done")


def test_the_first_job_is_heard_at_once_and_the_others_when_it_is_done(heard):
    log, said = OrderedLog(), heard["zoo"].said
    with log:
        for place in (2, 1, 0):
            with log.of(place):
                logger.warning("%d", place)
        assert said == ["0"]
        log.done(1)
        assert said == ["0"]
        log.done(0)
        assert said == ["0", "1", "2"]
        with log.of(4):
            logger.warning("held")
        logger.warning("no job")
    assert said == ["0", "1", "2", "no job", "held"]


def test_what_the_caller_has_chosen_is_so_in_the_threads():
    chosen = ContextVar("chosen", default="none")
    seen = []
    token = chosen.set("mine")
    work = Work(
        2, read=lambda n: seen.append(chosen.get()), write=lambda n: seen.append(chosen.get())
    )
    work.run()
    chosen.reset(token)
    assert seen == ["mine"] * 4


def test_of_several_processes_none_takes_the_last_jobs_ahead(tmp_path):
    """With two processes, the last four of ten are taken one by one."""
    asked = []

    class Half(ProcessGroup):
        world_size = 2

        def shared_indices(self, count, task):
            for number in range(count):
                asked.append(number)
                yield number

    ahead = []
    stages = Stages(
        read=lambda source, output: int(source.stem),
        restore=lambda number, told: ahead.append(asked[-1] - number),
        write=lambda output, restored: None,
    )
    jobs = [(Path(f"{n}.in"), tmp_path / f"{n}.out") for n in range(10)]
    plan = Plan(waiting=jobs, many=True)
    restore_each(plan, stages, "scan", progress=False, group=Half())
    assert ahead == [1] * 6 + [0] * 4


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for number in range(12):
        color = random.random((9 + number, 8, 3), np.float32)
        write_photo(tmp_path / "in" / f"{number:02d}.png", Photo(color))
    return tmp_path / "in"


def test_a_folder_has_the_bytes_of_its_files_restored_one_by_one(folder, tmp_path):
    network, out = zoo.load("mambair_tiny_x2"), tmp_path / "out"
    (folder / "03.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"1 of 12 images failed.*11 written.*03\.png"):
        zoo.restore(network, folder, out, progress=False)
    for file in sorted(folder.iterdir()):
        if file.name != "03.png":
            [alone] = zoo.restore(network, file, tmp_path / "alone.png", overwrite=True)
            assert alone.read_bytes() == (out / file.name).read_bytes()
    assert len(list(out.iterdir())) == 11


def test_the_memory_of_a_photo_is_known_from_the_start_of_its_file(tmp_path):
    network = Nearest()
    for suffix in ("png", "jpg", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        write_photo(path, Photo(np.zeros((30, 40, 3), np.float32)))
        assert _read_bytes(path, network) == 24 * 30 * 40
    network.guides = {"pan": Guide(channels=1, scale=4)}
    assert _read_bytes(path, network) == 24 * 30 * 40 * 17
    (tmp_path / "b.png").write_bytes(b"no image")
    assert _read_bytes(tmp_path / "b.png", network) is None
    assert _read_bytes(tmp_path / "missing.png", network) is None


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_leaves_whole_files_alone(tmp_path):
    color = np.random.default_rng(0).random((64, 64, 3), np.float32)
    for number in range(60):
        write_photo(tmp_path / "in" / f"{number:02d}.png", Photo(color))
    out = tmp_path / "out"
    words = [sys.executable, "-m", "zoo", "restore", tmp_path / "in", "-o", out]
    process = subprocess.Popen([*words, "-n", "mambair_tiny_x2"], stderr=subprocess.PIPE, text=True)
    start = time.monotonic()
    while not list(out.glob("*.png")) and time.monotonic() < start + 120:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130 and told.endswith("interrupted\n")
    written = list(out.iterdir())
    assert 0 < len(written) < 60
    assert all(read_photo(path).color_HWC.shape == (128, 128, 3) for path in written)
