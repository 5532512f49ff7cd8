"""What is said of a file that could not be restored: its name, the reason and a fix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.networks import Nearest
from zoo.data import Photo
from zoo.errors import ImageError, WriteError, ZooError
from zoo.inference import image, restore
from zoo.inference.jobs import _failure, _why_unread
from zoo.inference.outputs import Outputs

SOURCE, OUTPUT = Path("in/cat.png"), Path("out/cat_x2.png")


def told(error, many=True):
    return _failure(SOURCE, OUTPUT, error, many=many)


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            MemoryError(),
            "in/cat.png: memory ran out; use smaller tiles (-t, in Python tile=) or a smaller "
            "model",
        ),
        (OSError(13, "Permission denied"), "in/cat.png: cannot be read: Permission denied"),
        (OSError("gone"), "in/cat.png: cannot be read: gone"),
        (ImageError("too dark"), "in/cat.png: too dark"),
    ],
)
def test_a_failure_names_its_file(error, message, many):
    found = told(error, many)
    assert type(found) is ImageError and str(found) == message and found.__cause__ is error


@pytest.mark.parametrize(
    "text", ["in/cat.png is damaged", "out/cat_x2.png: full", "'cat.png' is empty", "'cat' is none"]
)
def test_an_error_that_names_the_file_is_left_as_it_is(text):
    for error in (ImageError(text), WriteError(text), ZooError(text)):
        assert told(error) is error and told(error, many=False) is error


def test_of_one_file_other_errors_of_ours_are_left_and_defects_are_raised():
    error = ZooError("the network needs a burst")
    assert told(error, many=False) is error
    assert str(told(error)) == "in/cat.png: the network needs a burst"
    assert told(KeyError("x"), many=False) is None
    assert str(told(KeyError("x"))) == "in/cat.png: cannot be restored: KeyError: 'x'"


def test_why_files_are_not_read(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("a.TXT", "b", "c.npy", "d.NPY"):
        (tmp_path / name).touch()
    found = {path.name: _why_unread(path, "image") for path in sorted(tmp_path.iterdir())}
    assert found == {
        "a.TXT": ".txt files, which are not read",
        "b": "other files, which are not read",
        "c.npy": ".npy files, as arrays beside photographs are",
        "d.NPY": ".npy files, as arrays beside photographs are",
        "folder": "folders (-r, in Python recursive=True, restores what is in them)",
        "link": "links to folders, which are not followed",
    }
    assert _why_unread(tmp_path / "b", "burst") == "folders, which hold no burst"


@pytest.mark.parametrize(("count", "metadata"), [(4, True), (5, True), (5, False)])
def test_four_things_that_are_not_kept_are_named(count, metadata, tmp_path, monkeypatch, caplog):
    photo = Photo(np.zeros((4, 4, 3), np.float32), dropped=tuple("abcdefg"[:count]))
    monkeypatch.setattr(image, "read_photo", lambda *_: photo)
    (tmp_path / "a.png").touch()
    restore(
        Nearest(), tmp_path / "a.png", tmp_path / "b.png", progress=False,
        strip_metadata=not metadata,
    )  # fmt: skip
    names = "a, b, c, d, ..." if count == 5 else "a, b, c, d"
    said = [f"{tmp_path / 'a.png'}: not kept in the output: {names}"]
    assert caplog.messages == (said if metadata else [])


def test_channels_that_a_format_does_not_hold_are_told_before_the_work(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 8), np.float32))
    monkeypatch.setattr(image, "restore_photo", lambda *_: pytest.fail("work"))
    with pytest.raises(ImageError, match=r"\.jpg holds 1 or 3 channels, not 8; use \.tif"):
        restore(Nearest(channels=8), tmp_path / "a.npy", tmp_path / "a.jpg", progress=False)


def test_several_pictures_do_not_go_into_a_file_whatever_its_name_is(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("file", "new.png"):
        with pytest.raises(ImageError, match=f"{name}: two, so the output must be a folder; to wr"):
            Outputs(target=tmp_path / name).check_folder("two")
    for target in (tmp_path / "folder.png", tmp_path / "new", f"{tmp_path}/new.png/"):
        Outputs(target=target).check_folder("two")
