"""Folders that are replaced whole or not at all, whatever ends the process meanwhile."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo.errors import WriteError
from zoo.files import (
    folders,
    partial_folder,
    remove_leftovers,
    write_text,
)
from zoo.files import temporary as temporary_files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_later_version_finds_the_folder_that_an_earlier_one_was_replacing():
    backup = folders._backup_name(Path("runs/model"))
    assert backup == Path("runs/.zoo-9372c470eeadd5ec.old")


def test_a_cleaner_that_is_faster_with_a_folder_costs_nothing(tmp_path, monkeypatch):
    lock, stolen = temporary_files.try_lock, []

    def steal(opened):
        if not stolen:
            [path] = tmp_path.iterdir()
            stolen.append(path)
            path.rmdir()
        return lock(opened)

    monkeypatch.setattr(temporary_files, "try_lock", steal)
    path, held = temporary_files.create_folder(tmp_path / "model")
    os.close(held)
    assert stolen and path.is_dir() and path not in stolen


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "new" / "model"
    for name in ("a", "b"):
        with partial_folder(path) as temporary:
            (temporary / name).write_text(name)
            assert not (path / name).exists()
    assert names(path) == ["b"] and names(path.parent) == ["model"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_fault_in_the_middle_keeps_the_old_folder(tmp_path, fault):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").touch()
    expected = WriteError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected), partial_folder(tmp_path / "model") as temporary:
        (temporary / "b").touch()
        raise fault
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["a"]


def test_folders_of_the_living_stay_and_those_of_the_killed_go(tmp_path):
    left = tmp_path / f".zoo-{'0' * 16}.part"
    (left / "1").mkdir(parents=True)
    with partial_folder(tmp_path / "model") as temporary:
        remove_leftovers(tmp_path)
        assert temporary.exists() and not left.exists()
    assert names(tmp_path) == ["model"]


def test_without_locks_age_decides_about_folders(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    young, old = (tmp_path / f".zoo-{digit * 16}.part" for digit in "01")
    for folder in (young, old):
        folder.mkdir()
    long_ago = time.time() - 2 * temporary_files._OLD
    os.utime(old, (long_ago, long_ago))
    with partial_folder(tmp_path / "model"):
        pass
    assert names(tmp_path) == [young.name, "model"]


KILLED = """
import os, sys
from pathlib import Path
from zoo.files import partial_folder
rename, calls = Path.rename, []
def killing(self, target):
    calls.append(target)
    if len(calls) == int(sys.argv[2]):
        os._exit(9)
    return rename(self, target)
Path.rename = killing
with partial_folder(Path(sys.argv[1])) as temporary:
    (temporary / "new").touch()
"""


@pytest.mark.parametrize(("call", "content"), [(1, "old"), (2, "old"), (3, "new")])
def test_a_process_killed_while_it_replaces_a_folder_loses_nothing(tmp_path, call, content):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), str(call)])
    assert killed.returncode == 9
    remove_leftovers(tmp_path)
    write_text(tmp_path / "a.txt", "")
    with partial_folder(path) as temporary:
        assert names(path) == [content]
        (temporary / "newest").touch()
    assert names(tmp_path) == ["a.txt", "model"] and names(path) == ["newest"]


def test_the_folder_that_is_replaced_is_locked_until_it_is(tmp_path, monkeypatch):
    """Else another process would bring it back meanwhile."""
    path, rename, locked = tmp_path / "model", Path.rename, []

    def watched(self, target):
        backup = folders._backup_name(path)
        if backup.exists():
            with temporary_files.locked_folder(backup) as ours:
                locked.append(not ours)
        return rename(self, target)

    path.mkdir()
    monkeypatch.setattr(Path, "rename", watched)
    with partial_folder(path):
        pass
    assert locked == [True, True]  # before the new one comes, and before the old one goes


def test_the_old_folder_stays_while_a_living_process_replaces_it(tmp_path):
    backup = folders._backup_name(tmp_path / "model")
    backup.mkdir()
    with temporary_files.locked_folder(backup) as ours:
        folders._restore_backup(tmp_path / "model")
        assert ours and names(tmp_path) == [backup.name]
    folders._restore_backup(tmp_path / "model")
    assert names(tmp_path) == ["model"]


def test_missing_folders_above_a_folder_are_made(tmp_path):
    with partial_folder(tmp_path / "new" / "folders" / "model") as temporary:
        (temporary / "a").touch()
    assert names(tmp_path / "new" / "folders") == ["model"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "model").write_text("mine")
    message = "model: cannot write: it is not a folder; choose"
    with pytest.raises(WriteError, match=message), partial_folder(tmp_path / "model"):
        pytest.fail("the work began")
    assert (tmp_path / "model").read_text() == "mine" and names(tmp_path) == ["model"]


def test_the_content_of_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def watched(descriptor):
        synced.append((os.fstat(descriptor).st_ino, (tmp_path / "model").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    with partial_folder(tmp_path / "model") as temporary:
        (temporary / "1").mkdir()
        (temporary / "1" / "a").write_text("a")
        (temporary / "b").write_text("b")
        (temporary / "b").chmod(0o444)
        (temporary / "dangling").symlink_to("nothing")
    parts = [tmp_path / "model" / part for part in ("", "1", "1/a", "b")]
    assert sorted(synced) == sorted((part.stat().st_ino, False) for part in parts)


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    rename, calls = Path.rename, []

    def failing(self, target):
        calls.append(target)
        if 2 <= len(calls) <= last:
            raise OSError(5, f"error {len(calls)}")
        return rename(self, target)

    for last in (2, 3):  # noqa: B007 - failing() reads it
        calls.clear()
        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", failing)
            with (
                pytest.raises(WriteError, match="error 2"),
                partial_folder(tmp_path / "model") as temporary,
            ):
                (temporary / "new").touch()
        folders._restore_backup(tmp_path / "model")  # as the next start does
        assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["old"]
