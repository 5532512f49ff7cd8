"""Two processes never work in one folder; what a killed one left is taken over."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.descriptors import open_files
from zoo.errors import WriteError
from zoo.files import owned_folder
from zoo.files import owner as owners
from zoo.files.paths import open_regular

OWNER = """
import os, sys, time
from pathlib import Path
from zoo.files import owned_folder
with owned_folder(Path(sys.argv[1]), "a test"):
    if os.fork() == 0:
        time.sleep(60)  # a process that loads data outlives its trainer for some seconds
    print("owned", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that works in the folder, and has started a third one."""
    words = [sys.executable, "-c", OWNER, str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "owned\n"
    yield process
    os.killpg(process.pid, 9)
    process.communicate()


def files_of(folder):
    return [path.name for path in folder.iterdir()]


def enter(folder):
    with owned_folder(folder, "a test"):
        assert files_of(folder) == [".zoo.lock"]


def test_a_second_process_is_told_who_works_in_the_folder(tmp_path, owner):
    who = rf"process {owner.pid} on {platform.node()}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d"
    with pytest.raises(WriteError, match=rf": a test is running here already \({who}") as found:
        enter(tmp_path)
    assert str(found.value).startswith(str(tmp_path)) and len(str(found.value)) < 400


def test_the_folder_of_a_killed_process_is_taken_over(tmp_path, owner):
    """Even while the processes that it started are still there."""
    owner.kill()
    owner.wait()
    os.killpg(owner.pid, 0)
    assert files_of(tmp_path) == [".zoo.lock"]
    enter(tmp_path)
    assert files_of(tmp_path) == []


def test_one_process_does_not_work_twice_in_a_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with owned_folder(tmp_path, "a test"):
        for _ in range(2):
            message = f"process {os.getpid()} on"
            with pytest.raises(WriteError, match=message), owned_folder(tmp_path / "link", "b"):
                pytest.fail("the work began")
    with pytest.raises(KeyError), owned_folder(tmp_path, "a test"):
        raise KeyError
    with owned_folder(tmp_path, "a test"):
        pass


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[" * 900, b"[]", b"{}", b'{"process": "1\\n2", "host": 1, "since": "x"}'],
)
def test_a_foreign_lock_file_is_taken_over_or_its_owner_is_unknown(tmp_path, content):
    path = tmp_path / ".zoo.lock"
    path.write_bytes(content)
    code = f"file = open({str(path)!r}, 'r+b'); fcntl.lockf(file, 2); print(flush=True)"
    words = [sys.executable, "-c", f"import fcntl, sys; {code}; sys.stdin.read()"]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline()
        with pytest.raises(WriteError, match=r"running here already \(another process\); wait"):
            enter(tmp_path)
    finally:
        holder.communicate()
    assert path.read_bytes() == content
    enter(tmp_path)


def test_the_lock_file_says_who_holds_it_and_nothing_of_who_held_it(tmp_path):
    path = tmp_path / ".zoo.lock"
    path.write_text(json.dumps({"process": "1", "host": "h" * 80, "since": "s" * 81}))
    with owned_folder(tmp_path, "a test"):
        found = json.loads(path.read_bytes())
    assert found.keys() == {"process", "host", "since"}
    assert (found["process"], found["host"]) == (str(os.getpid()), platform.node())


def test_facts_in_a_lock_file_are_short_plain_text(tmp_path):
    path = tmp_path / "lock"
    kept = {"process": "7", "host": "a-b.c_d", "since": "2020-01-01 00:00:00+00:00", "x": "h" * 80}
    left = {"long": "h" * 81, "empty": "", "lines": "a\nb", "letters": "\u00e4", "quotes": "'"}
    path.write_text(json.dumps({**kept, **left, "number": 3}))
    with path.open("rb") as file:
        assert owners._read(file.fileno()) == {**kept, "number": "3"}


def test_no_lock_file_stays_open(tmp_path, monkeypatch):
    before = open_files()
    enter(tmp_path)
    (tmp_path / ".zoo.lock").touch()
    monkeypatch.setattr(owners, "try_own", lambda opened: False)
    with pytest.raises(WriteError, match="another process"):
        enter(tmp_path)
    assert open_files() == before


def test_a_lock_that_cannot_be_removed_ends_the_work_all_the_same(tmp_path):
    with owned_folder(tmp_path, "a test"):
        (tmp_path / ".zoo.lock").unlink()
        (tmp_path / ".zoo.lock").mkdir()
    (tmp_path / ".zoo.lock").rmdir()
    enter(tmp_path)
    with owned_folder(tmp_path, "a test"):
        (tmp_path / ".zoo.lock").unlink()  # by somebody else
    enter(tmp_path)


def test_a_lock_has_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0)
    try:
        with owned_folder(tmp_path, "a test"):
            assert (tmp_path / ".zoo.lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "run").mkdir()
    target = tmp_path / "target"
    for exists in (False, True):
        if exists:
            target.write_text("precious")
        link = tmp_path / "run" / ".zoo.lock"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(WriteError, match=r"\.lock: cannot write: it is a link, which is not"):
            enter(tmp_path / "run")
        assert target.exists() == exists and link.is_symlink()
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    ("make", "reason"),
    [(os.mkfifo, "it is not a regular file"), (Path.mkdir, "it is a folder")],
    ids=["pipe", "folder"],
)
def test_what_is_no_file_in_place_of_the_lock_is_not_waited_for(tmp_path, make, reason):
    def late(*_):
        raise TimeoutError

    make(tmp_path / ".zoo.lock")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    try:
        with pytest.raises(WriteError, match=rf"\.zoo\.lock: cannot write: {reason}"):
            enter(tmp_path)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert files_of(tmp_path) == [".zoo.lock"]


def test_a_pipe_that_replaces_a_checked_file_is_not_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.touch()
    mode = path.lstat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "lstat", lambda self: mode)
    for flags in (os.O_RDONLY, os.O_RDWR):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path, flags)


def test_a_link_that_replaces_a_checked_file_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "precious").touch()
    mode = (tmp_path / "precious").lstat()
    (tmp_path / "file").symlink_to("precious")
    monkeypatch.setattr(Path, "lstat", lambda self: mode)
    before = open_files()
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(tmp_path / "file", os.O_RDWR)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="it is a folder"):
        open_regular(tmp_path / "folder", os.O_RDONLY)
    assert open_files() == before


def test_a_name_that_was_removed_meanwhile_is_made_again(tmp_path, monkeypatch):
    """The previous owner removes the name just before it releases the lock."""
    path, lock, calls = tmp_path / ".zoo.lock", fcntl.lockf, []

    def removed(file, flags):
        calls.append(file)
        if len(calls) == 1:
            path.unlink()
        lock(file, flags)

    monkeypatch.setattr(fcntl, "lockf", removed)
    enter(tmp_path)
    assert len(calls) == 2 and files_of(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "lives"), [(PermissionError(), True), (ProcessLookupError(), False), (None, True)]
)
def test_a_process_of_another_user_lives(monkeypatch, error, lives):
    def kill(process, number):
        assert (process, number) == (7, 0)
        if error is not None:
            raise error

    monkeypatch.setattr(os, "kill", kill)
    assert owners._lives({"process": "7", "host": platform.node()}) is lives


@pytest.mark.parametrize(
    ("facts", "taken"),
    [
        ({"process": str(os.getpid()), "host": platform.node(), "since": "now"}, False),
        ({"process": "999999999", "host": platform.node(), "since": "now"}, True),
        ({"process": "1", "host": "elsewhere", "since": "now"}, True),
        ({"process": "-1", "host": platform.node(), "since": "now"}, True),
    ],
)
def test_without_locks_a_living_process_of_this_machine_keeps_the_folder(
    tmp_path, monkeypatch, facts, taken
):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    (tmp_path / ".zoo.lock").write_text(json.dumps(facts))
    if taken:
        enter(tmp_path)
    else:
        with pytest.raises(WriteError, match="already"):
            enter(tmp_path)
