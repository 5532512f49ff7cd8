"""Errors of the file system that stop nothing: what was asked for is done all the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zoo.errors import WriteError
from zoo.files import temporary
from zoo.files.folders import partial_folder
from zoo.files.owner import owned_folder
from zoo.files.single import write_text


def failing(error):
    """A method of paths that fails."""

    def method(*words, **named):
        raise error

    return method


def test_a_file_system_without_permissions_takes_a_file_again(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(Path, "chmod", failing(PermissionError(1, "Operation not permitted")))
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_leftover_that_cannot_be_removed_stops_no_others(tmp_path, monkeypatch):
    for digit in "abc":
        (tmp_path / f".zoo-{digit * 16}.part").write_text("left over")
    real, seen = temporary._remove_abandoned, []

    def remove(path):
        seen.append(path)
        if len(seen) == 1:
            raise PermissionError(13, "no")
        real(path)

    monkeypatch.setattr(temporary, "_remove_abandoned", remove)
    temporary.remove_leftovers(tmp_path)
    assert len(seen) == 3 and list(tmp_path.iterdir()) == seen[:1]
    temporary.remove_leftovers(tmp_path / "missing")


def test_a_temporary_folder_that_another_process_removes_is_made_again(tmp_path, monkeypatch):
    """Between making and locking it, another process may take it for a killed one's."""
    real, made = os.open, []

    def removed_first(path, *words, **named):
        made.append(Path(path))
        if len(made) == 1:
            Path(path).rmdir()
        return real(path, *words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", removed_first)
        folder, held = temporary.create_folder(tmp_path / "a")
    os.close(held)
    assert len(made) == 2 and folder == made[1] and folder.is_dir() and not made[0].exists()


def test_the_name_of_an_owner_that_cannot_be_removed_is_left(tmp_path, monkeypatch):
    with owned_folder(tmp_path, "a test"):
        monkeypatch.setattr(Path, "unlink", failing(PermissionError(13, "no")))
    monkeypatch.undo()
    with owned_folder(tmp_path, "a test"):  # its lock is free
        pass


def test_the_error_of_a_replacement_is_told_and_not_that_of_its_undoing(tmp_path, monkeypatch):
    target, real, calls = tmp_path / "a", Path.rename, []
    with partial_folder(target) as made:
        (made / "x").write_text("old")

    def rename(path, other):
        calls.append(path)
        if len(calls) == 1:  # the old folder is moved aside; nothing succeeds any more
            return real(path, other)
        raise OSError(5, "the disk is gone" if len(calls) == 2 else "it cannot be undone")

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(WriteError, match="the disk is gone"), partial_folder(target) as made:
        (made / "x").write_text("new")
    assert len(calls) == 3 and not target.exists()
    monkeypatch.undo()
    with partial_folder(target):  # the next start restores it
        assert (target / "x").read_text() == "old"
