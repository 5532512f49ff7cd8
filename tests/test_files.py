"""Files that are written whole or not at all, what killed processes leave, and natural order."""

from __future__ import annotations

import fcntl
import os
import pickle
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.helpers.descriptors import open_files
from zoo.errors import WriteError, ZooError
from zoo.files import (
    cache_folder,
    check_writable,
    folders,
    natural_key,
    partial_file,
    partial_folder,
    remove_leftovers,
    write_bytes,
    write_text,
    write_whole,
)
from zoo.files import temporary as temporary_files

WRITER = """
import sys, time
from pathlib import Path
from zoo.files import partial_file
with partial_file(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing ``a.png``, and its temporary file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "a.png")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    temporary = Path(process.stdout.readline().strip())
    assert temporary.read_bytes() == b"half"
    yield process, temporary
    process.kill()
    process.communicate()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def kill(process):
    process.kill()
    process.wait()


def test_a_file_is_written_and_nothing_else_stays(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "ä\n")
    write_bytes(tmp_path / "b.bin", b"\0")
    write_whole(tmp_path / "c", lambda temporary: temporary.write_text("c"))
    assert (tmp_path / "new" / "a.txt").read_bytes() == "ä\n".encode()
    assert names(tmp_path) == ["b.bin", "c", "new"] and names(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyError("a defect")])
def test_a_fault_in_the_middle_keeps_the_old_file(tmp_path, fault):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    expected = WriteError if isinstance(fault, OSError) else KeyError
    with pytest.raises(expected) as found, partial_file(path) as temporary:
        temporary.write_text("ne")
        raise fault
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]
    if expected is WriteError:
        assert str(found.value).startswith(f"{path}: cannot write: No space left on device; check")
        assert found.value.errno == 28


def test_the_error_is_mendable_and_reaches_other_processes(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match=r"file/a\.txt: cannot write: Not a directory") as found:
        write_text(tmp_path / "file" / "a.txt", "")
    assert isinstance(found.value, ZooError) and isinstance(found.value, OSError)
    assert str(pickle.loads(pickle.dumps(found.value))) == str(found.value)


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with partial_file(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == tmp_path and temporary.name.startswith(".")
        assert list(tmp_path.glob("*.png")) == [path]
    assert path.read_bytes() == b"new"


def test_the_next_write_into_the_folder_removes_what_a_killed_process_left(tmp_path, writer):
    process, temporary = writer
    kill(process)
    assert names(tmp_path) == [temporary.name]
    write_text(tmp_path / "another.txt", "")
    assert names(tmp_path) == ["another.txt"]


def test_the_file_of_a_living_process_stays(tmp_path, writer):
    process, temporary = writer
    os.utime(temporary, (0, 0))
    write_bytes(tmp_path / "a.png", b"mine")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([temporary.name, "a.png"])
    kill(process)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a.png"]


def test_files_of_this_process_stay_and_those_of_others_are_no_leftovers(tmp_path):
    others = [
        ".zoo-note.part",
        ".zoo-0123456789abcdef.part.png",
        ".a.png.part",
        "zoo-0123456789abcdef.part",
        ".zoo-0123.part",
    ]
    for name in others:
        (tmp_path / name).write_text("a user's")
    (tmp_path / ".zoo-0123456789abcdef.part").write_text("left over")
    with partial_file(tmp_path / "a") as outer, partial_file(tmp_path / "a") as inner:
        remove_leftovers(tmp_path)
        assert outer.exists() and inner.exists()
    assert names(tmp_path) == sorted([*others, "a"])
    remove_leftovers(tmp_path / "missing")


def test_links_with_the_name_of_a_leftover_are_not_followed_nor_removed(tmp_path):
    """We make no links: somebody else put them there."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("precious")
    run, backup = tmp_path / "run", folders._backup_name(tmp_path / "run" / "model")
    run.mkdir()
    for digit, target in (("a", "theirs"), ("b", "theirs/file"), ("c", "nothing")):
        (run / f".zoo-{digit * 16}.part").symlink_to(tmp_path / target)
    os.mkfifo(run / f".zoo-{'d' * 16}.part")
    backup.symlink_to(tmp_path / "theirs")
    before = names(run)
    remove_leftovers(run)
    write_text(run / "a.txt", "")
    with partial_folder(run / "model"):
        pass
    assert names(run) == sorted([*before, "a.txt", "model"])
    assert not (run / "model").is_symlink() and names(run / "model") == []
    assert (tmp_path / "theirs" / "file").read_text() == "precious"


def test_without_locks_age_decides(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    new, old = (tmp_path / f".zoo-{digit * 16}.part" for digit in "ab")
    for path in (new, old):
        path.write_text("")
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    write_text(tmp_path / "a.txt", "")
    assert names(tmp_path) == sorted([new.name, "a.txt"])


def test_a_cleaner_that_is_faster_costs_nothing(tmp_path, monkeypatch):
    """Between making and locking its file, a writer may lose it to another process."""
    lock, stolen = temporary_files.try_lock, []

    def steal(file):
        if not stolen:
            stolen.append(Path(file.name))
            stolen[0].unlink()
        return lock(file)

    monkeypatch.setattr(temporary_files, "try_lock", steal)
    write_text(tmp_path / "a.txt", "whole")
    assert stolen and (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("folder", [False, True])
def test_what_another_process_has_locked_first_is_left_to_it(folder, tmp_path, monkeypatch):
    """A lock that the system does not have keeps nobody out."""
    made, answers = [], [False, True, None]

    def lock(opened):
        made.append(sorted(tmp_path.iterdir()))
        return answers.pop(0)

    monkeypatch.setattr(temporary_files, "try_lock", lock)
    before = open_files()
    for calls in (2, 3):
        if folder:
            path, held = temporary_files.create_folder(tmp_path / "model")
            os.close(held)
        else:
            path, held = temporary_files.create_file(tmp_path / "a", None)
            held.close()
        assert len(made) == calls and path in made[-1] and path not in made[-2]
    assert open_files() == before


def test_no_file_stays_open(tmp_path):
    before = open_files()
    left = [tmp_path / f".zoo-{digit * 16}.part" for digit in "ab"]
    left[0].touch()
    left[1].mkdir()
    remove_leftovers(tmp_path)
    for _ in range(2):
        with partial_folder(tmp_path / "model") as temporary:
            (temporary / "a").touch()
    folders._backup_name(tmp_path / "other").mkdir()
    with partial_folder(tmp_path / "other"):
        pass
    assert names(tmp_path) == ["model", "other"]
    assert open_files() == before


def test_links_to_links_are_followed_forty_times(tmp_path):
    (tmp_path / "0").write_text("old")
    for number in range(1, 41):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    write_text(tmp_path / "39", "new")
    assert (tmp_path / "0").read_text() == "new" and (tmp_path / "39").is_symlink()
    with pytest.raises(WriteError, match="Too many levels of symbolic links"):
        write_text(tmp_path / "40", "newest")


@pytest.mark.parametrize("length", [255, 254])
def test_names_of_any_length_work(tmp_path, length):
    for suffix in (".png", "." + "s" * 200):
        path = tmp_path / ("n" * (length - len(suffix)) + suffix)
        write_text(path, "x")
        assert path.read_text() == "x"
    path = tmp_path / ("ä" * 127)
    write_text(path, "x")
    with pytest.raises(WriteError, match="File name too long"):
        write_text(tmp_path / ("n" * 256), "x")


def test_a_new_file_has_the_permissions_of_the_umask_and_an_old_one_its_own(tmp_path):
    path = tmp_path / "a.txt"
    before = os.umask(0o027)
    try:
        write_text(path, "1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        for mode in (0o600, 0o664, 0o444, 0o755):
            path.chmod(mode)
            with partial_file(path) as temporary:
                temporary.write_text("2")
                assert not temporary.stat().st_mode & 0o777 & ~(mode | 0o200)
            assert stat.S_IMODE(path.stat().st_mode) == mode
        path.chmod(0o7755)  # a program that runs as its owner does not become another one
        write_text(path, "3")
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    finally:
        os.umask(before)


def test_a_file_system_without_permissions_keeps_none(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise OSError(1, "Operation not permitted")

    write_text(tmp_path / "a.txt", "1")
    monkeypatch.setattr(Path, "chmod", refuse)
    write_text(tmp_path / "a.txt", "2")
    assert (tmp_path / "a.txt").read_text() == "2"


def test_a_leftover_that_cannot_be_removed_does_not_keep_the_others(tmp_path, monkeypatch):
    remove, seen = temporary_files._remove_abandoned, []

    def failing(path):
        seen.append(path.name)
        if len(seen) == 1:
            raise PermissionError(13, "Permission denied")
        remove(path)

    monkeypatch.setattr(temporary_files, "_remove_abandoned", failing)
    for digit in "abc":
        (tmp_path / f".zoo-{digit * 16}.part").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == seen[:1] and len(seen) == 3


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    (tmp_path / "disk" / "a").write_text("old")
    link.symlink_to(tmp_path / "disk" / "a")
    dangling.symlink_to(tmp_path / "disk" / "b")
    for path in (link, dangling):
        write_text(path, "new")
        assert path.is_symlink() and path.read_text() == "new"
    assert names(tmp_path / "disk") == ["a", "b"]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(WriteError, match="loop: cannot write"):
        write_text(loop, "")


def test_folders_and_devices_are_not_replaced(tmp_path):
    for path, message in ((tmp_path, "it is a folder"), (Path("/dev/null"), "no.* regular file")):
        with pytest.raises(WriteError, match=message), partial_file(path):
            pytest.fail("the work began")
        with pytest.raises(WriteError, match=message):
            check_writable(path)
    assert Path("/dev/null").is_char_device()


@pytest.fixture
def locked_folder():
    """A folder that may be read but not written to, also by root's tests."""
    with tempfile.TemporaryDirectory() as name:  # tmp_path is below folders for root alone
        Path(name).chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)
            Path(name).chmod(0o755)


def test_a_folder_without_permission_is_one_clear_error(locked_folder):
    path = locked_folder / "a.txt"
    for attempt in (lambda: write_text(path, ""), lambda: check_writable(path)):
        with pytest.raises(WriteError, match=r"a\.txt: cannot write: Permission denied; check"):
            attempt()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "it is a folder"), ("loop", "Too many levels"), ("n" * 256, "File name too long")],
)
def test_only_faults_of_permission_and_space_advise_to_check_them(tmp_path, name, reason):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(WriteError, match=f"{reason}.*; choose another place$") as found:
        write_text(tmp_path / name / "a" if name == "loop" else tmp_path / name, "")
    assert "space left" not in str(found.value)


def test_a_null_character_in_the_path_is_one_clear_error(tmp_path):
    path = tmp_path / "a\0b"
    for attempt in (lambda: write_text(path, ""), lambda: check_writable(path)):
        with pytest.raises(WriteError, match="the path has a null character"):
            attempt()
    with pytest.raises(WriteError, match="null character"), partial_folder(path):
        pytest.fail("the work began")


def test_the_file_behind_standard_output_is_not_replaced(tmp_path):
    code = "from pathlib import Path; from zoo.files import write_text; print('kept', flush=True)\n"
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "second").symlink_to("link")
    (tmp_path / "folder").symlink_to("/dev")
    links = [str(tmp_path / name) for name in ("link", "second", "folder/stdout", "folder/fd/1")]
    for place in ("/dev/stdout", "/proc/self/fd/1", "/tmp/../dev/fd/1", *links):
        words = [sys.executable, "-c", code + f"write_text(Path({place!r}), 'lost')"]
        with (tmp_path / "out").open("wb") as out:
            done = subprocess.run(words, stdout=out, stderr=subprocess.PIPE, text=True)
        assert "cannot write: /" in done.stderr and (tmp_path / "out").read_text() == "kept\n"


def test_a_link_to_itself_is_one_clear_error(tmp_path):
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(WriteError, match="a: cannot write: Too many levels of symbolic links"):
        write_text(tmp_path / "a", "x")


def test_links_are_followed_as_the_system_follows_them(tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "near").symlink_to("far/deep")
    (tmp_path / "a.txt").symlink_to("near/../b.txt")  # beside "deep", not beside "near"
    write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "far" / "b.txt").read_text() == "x" and (tmp_path / "a.txt").is_symlink()
    with partial_folder(tmp_path / "near" / "..") as temporary:
        (temporary / "c").touch()
    assert names(tmp_path / "far") == ["c"]


def test_checking_leaves_the_file_as_it_is(tmp_path, monkeypatch):
    path, create, held = tmp_path / "new" / "a.txt", temporary_files.create_file, []

    def kept(*arguments):
        held.append(create(*arguments)[1])
        return Path(held[-1].name), held[-1]

    monkeypatch.setattr("zoo.files.single.create_file", kept)
    check_writable(path)
    assert held[0].closed
    assert names(tmp_path / "new") == []
    write_text(path, "old")
    check_writable(path)
    assert path.read_text() == "old" and names(tmp_path / "new") == ["a.txt"]


def test_the_content_is_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    seen = []
    path, fsync = tmp_path / "a.txt", os.fsync

    def watched(descriptor):
        seen.append((os.fstat(descriptor).st_size, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_text(path, "whole")
    assert seen == [(5, False)]


def test_a_folder_is_looked_through_for_leftovers_once(tmp_path, monkeypatch):
    looked, look = [], remove_leftovers
    monkeypatch.setattr(
        temporary_files, "remove_leftovers", lambda path: looked.append(path) or look(path)
    )
    for number in range(3):
        write_text(tmp_path / str(number), "")
    assert looked == [tmp_path]


def test_without_locks_a_file_of_less_than_a_day_stays(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    young, old = (tmp_path / f".zoo-{digit * 16}.part" for digit in "01")
    for path, hours in ((young, 23.9), (old, 24.1)):
        path.touch()
        os.utime(path, (time.time() - hours * 3600,) * 2)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [young.name]


def test_what_can_be_made_again_is_kept_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("ZOO_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("ZOO_CACHE")
    assert cache_folder() == Path("/xdg/mamba-restoration-zoo")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "mamba-restoration-zoo"


def test_without_a_home_folder_the_cache_has_no_place(monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", "~no-such-user/cache")
    with pytest.raises(WriteError, match="ZOO_CACHE is '~no-such-user/cache', and there is no"):
        cache_folder()
    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(WriteError, match=r"^there is no such home folder, so files have no cache"):
        cache_folder()


def test_numbers_sort_by_value():
    words = ["b/10", "a10.png", "a", "b/2", "b", "a2.png", "A1.png", "10", "a02.png"]
    assert sorted(words, key=natural_key) == [
        "10", "a", "A1.png", "a02.png", "a2.png", "a10.png", "b", "b/2", "b/10",
    ]  # fmt: skip
    paths = [Path("x/b10"), Path("x/b9")]
    assert sorted(paths, key=natural_key) == paths[::-1]
