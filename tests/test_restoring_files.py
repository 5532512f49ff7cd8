"""Restoring files and folders: names of outputs, what is never replaced, and jobs that fail."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from tests.helpers.networks import Nearest
from zoo.data import Photo, read_photo, write_photo
from zoo.distributed import ProcessGroup
from zoo.errors import ImageError, WriteError
from zoo.files import is_same_file
from zoo.inference import restore_tensor
from zoo.inference.jobs import Plan, restore_each
from zoo.inference.outputs import Outputs
from zoo.inference.pipeline import Stages


def test_a_file_that_fails_on_the_way_is_named_and_the_others_are_done(tmp_path):
    done = []

    def read(source, output):
        if source.name == "b":
            raise OSError(5, "Input/output error")

    stages = Stages(
        read=read, restore=lambda seen, told: None, write=lambda output, _: done.append(output)
    )
    jobs = [(tmp_path / name, tmp_path / f"{name}.png") for name in "abc"]
    settings = {"progress": False, "group": ProcessGroup()}
    with pytest.raises(ImageError, match=r"^1 of 3 scans failed.*b: cannot be read: Input/output"):
        restore_each(Plan(waiting=jobs, many=True), stages, "scan", **settings)
    assert done == [tmp_path / "a.png", tmp_path / "c.png"]
    with pytest.raises(ImageError, match=r"^.*b: cannot be read: Input/output error$"):
        restore_each(Plan(waiting=jobs[1:2]), stages, "scan", **settings)


def test_an_error_of_the_callers_progress_is_the_callers(tmp_path):
    calls = []

    def told(done):
        calls.append(done)
        if len(calls) == 1:
            raise OSError(5, "the display is gone")

    stages = Stages(
        read=lambda source, output: None,
        restore=lambda seen, progress: progress(0.5),
        write=lambda output, restored: None,
    )
    jobs = [(tmp_path / name, tmp_path / f"{name}.png") for name in "ab"]
    plan = Plan(waiting=jobs, many=True)
    with pytest.raises(OSError, match="the display is gone"):
        restore_each(plan, stages, "scan", progress=told, group=ProcessGroup())


def test_other_errors_are_not_hidden():
    class Broken(Nearest):
        def forward(self, image_BIHW):
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        restore_tensor(Broken(), torch.rand(1, 3, 8, 8))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    for name in ("a.png", "b.png"):
        write_photo(path / name, Photo(np.random.rand(3, 4, 3).astype(np.float32)))
    return path


def test_a_folder_is_restored_and_existing_outputs_kept(folder, tmp_path, caplog):
    out = tmp_path / "deep" / "out"
    assert zoo.restore(Nearest(), folder, out, progress=False) == [out / "a.png", out / "b.png"]
    assert read_photo(out / "a.png").color_HWC.shape == (6, 8, 3)
    (out / "a.png").write_bytes(b"mine")
    caplog.set_level("INFO")
    assert zoo.restore(Nearest(), folder, out, progress=False) == []
    assert (out / "a.png").read_bytes() == b"mine"
    assert "skipped, because their output exists; --overwrite (in Python" in caplog.text
    assert caplog.text.endswith("replaces it: a.png, b.png\n")
    assert len(zoo.restore(Nearest(), folder, out, overwrite=True, progress=False)) == 2


def test_what_a_killed_process_left_is_no_image_and_is_removed(folder, tmp_path):
    out = tmp_path / "out"
    zoo.restore(Nearest(), folder, out, progress=False)
    leftover = ".zoo-0123456789abcdef.part"
    for place in (folder, out):
        (place / leftover).write_bytes(b"half")
    assert zoo.restore(Nearest(), folder, out, progress=False) == []
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    assert (folder / leftover).exists()  # inputs are not touched


def test_an_output_that_cannot_be_written_is_one_clear_error(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/a\.png: cannot write: Not a directory"):
        zoo.restore(Nearest(), folder / "a.png", tmp_path / "file" / "a.png", progress=False)
    words = r"file/out: no picture can be written there: Not a directory; choose another folder"
    with pytest.raises(WriteError, match=words):
        zoo.restore(Nearest(), folder, tmp_path / "file" / "out", progress=False)


def test_an_output_whose_name_is_too_long_does_not_stop_the_others(folder, tmp_path):
    (folder / "a.png").rename(folder / f"{'a' * 250}.png")
    (tmp_path / "out").mkdir()
    with pytest.raises(ImageError, match=r"1 of 2 images failed.*File name too long"):
        zoo.restore(Nearest(), folder, tmp_path / "out", suffix="large", progress=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b_large.png"]


def test_names_that_a_terminal_would_obey_are_not_printed_as_they_are(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    name = "\x1b[31mred\n.png"
    (folder / "a.png").rename(folder / name)
    for _ in range(2):
        zoo.restore(Nearest(), folder, tmp_path / "out", progress=False)
    assert "skipped" in caplog.text and "\x1b" not in caplog.text and repr(name) in caplog.text
    (folder / name).write_text("no image")
    with pytest.raises(ImageError) as error:
        zoo.restore(Nearest(), folder, tmp_path / "out", overwrite=True, progress=False)
    assert "\x1b" not in str(error.value)
    assert str(error.value).count("red") == 1 and caplog.text.count("red") == 2


def test_one_bad_file_does_not_stop_the_others(folder, tmp_path):
    (folder / "a0.png").write_text("no image")
    with pytest.raises(ImageError, match=r"1 of 3 images failed, the others are done.*a0\.png"):
        zoo.restore(Nearest(), folder, tmp_path / "out", progress=False)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_a_file_goes_to_a_file_or_into_a_folder(folder, tmp_path):
    source = folder / "a.png"
    assert zoo.restore(Nearest(), source, tmp_path / "x.jpg") == [tmp_path / "x.jpg"]
    assert zoo.restore(Nearest(), source, tmp_path / "new") == [tmp_path / "new" / "a.png"]
    assert zoo.restore(Nearest(), source, tmp_path / "X.JPG") == [tmp_path / "X.JPG"]
    (tmp_path / "folder.png").mkdir()
    inside = tmp_path / "folder.png" / "a.png"
    assert zoo.restore(Nearest(), source, tmp_path / "folder.png") == [inside]
    for target in (f"{tmp_path}/x.v2/", tmp_path / "x.v2"):  # the first one makes the folder
        inside = tmp_path / "x.v2" / "a.png"
        assert zoo.restore(Nearest(), source, target, overwrite=True) == [inside]
    with pytest.raises(ImageError, match=r"x\.txt: images are not written as '\.txt'.*\.png, .*/"):
        zoo.restore(Nearest(), source, tmp_path / "x.txt")
    assert not (tmp_path / "x.txt").exists()
    with pytest.raises(ImageError, match="the input is a folder, so the output must be a folder"):
        zoo.restore(Nearest(), folder, tmp_path / "x.jpg")


def spellings(folder):
    """Other names of ``folder/a.png``, or of its folder."""
    (folder.parent / "link").symlink_to(folder)
    (folder / "link.png").symlink_to(folder / "a.png")
    yield from (folder, folder / "a.png", folder / "link.png", folder.parent / "link")
    yield from (folder / ".." / "in" / "a.png", Path("in/a.png"), Path("in/../in"))


def test_the_input_is_never_replaced_however_its_path_is_spelled(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    before = (folder / "a.png").read_bytes()
    for output in spellings(folder):
        for source in (folder / "a.png", Path("in/a.png")):
            with pytest.raises(ImageError, match="would replace the input"):
                zoo.restore(Nearest(), source, output, overwrite=True)
    with pytest.raises(ImageError, match="would replace the input"):
        zoo.restore(Nearest(), folder, Path("link"), overwrite=True)
    assert (folder / "a.png").read_bytes() == before


def test_an_output_never_replaces_another_input(folder, tmp_path):
    """Inputs of one name at two levels, and a link from the outputs to an input."""
    (folder / "in").mkdir()
    (folder / "in" / "a.png").write_bytes((folder / "b.png").read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").symlink_to(folder / "b.png")
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    for target, words in ((tmp_path, "in/in/a.png"), (out, "in/a.png")):
        with pytest.raises(ImageError, match=f"{words} would replace the input .*; choose another"):
            zoo.restore(Nearest(), folder, target, recursive=True, overwrite=True, progress=False)
        # Without overwriting, what exists is skipped.
        zoo.restore(Nearest(), folder, target, recursive=True, progress=False)
    assert {path: path.read_bytes() for path in before} == before


def test_other_inputs_stay_where_the_case_of_letters_makes_no_difference(folder, monkeypatch):
    before = (folder / "b.png").read_bytes()
    jobs = [(folder / "a.png", folder / "B.png"), (folder / "b.png", folder / "c.png")]
    Outputs(target=folder, overwrite=True).check(jobs)  # another file here
    (folder / "B.png").write_bytes(before)
    monkeypatch.setattr(
        Path, "samefile", lambda self, other: str(self).casefold() == str(other).casefold()
    )
    with pytest.raises(ImageError, match="would replace the input"):
        Outputs(target=folder, overwrite=True).check(jobs)


@pytest.mark.parametrize("inside", [False, True], ids=["same folder", "folder inside"])
def test_outputs_among_the_inputs_are_no_inputs_however_their_folder_is_spelled(folder, inside):
    """The second run would enlarge what the first one wrote."""
    place = folder / "out" if inside else folder
    place.mkdir(exist_ok=True)
    (folder.parent / "link").symlink_to(place)
    options = {"recursive": True} if inside else {"suffix": "big"}
    for written in (2, 0):
        target = folder.parent / "link"
        assert len(zoo.restore(Nearest(), folder, target, progress=False, **options)) == written
    assert len(list(folder.rglob("*.png"))) == 4


def test_names_that_differ_in_case_are_one_file_where_the_file_system_says_so(folder, monkeypatch):
    (folder / "A.png").write_bytes(b"the same file")
    assert not is_same_file(folder / "a.png", folder / "A.png")
    monkeypatch.setattr(
        Path, "samefile", lambda self, other: str(self).casefold() == str(other).casefold()
    )
    with pytest.raises(ImageError, match="would replace the input"):
        zoo.restore(Nearest(), folder / "a.png", folder / "A.png", overwrite=True)


def test_another_name_of_the_same_content_may_be_written(folder):
    """The name is replaced, what the other one stands for stays."""
    os.link(folder / "a.png", folder / "hard.png")
    before = (folder / "a.png").read_bytes()
    zoo.restore(Nearest(), folder / "a.png", folder / "hard.png", overwrite=True)
    assert (folder / "a.png").read_bytes() == before
