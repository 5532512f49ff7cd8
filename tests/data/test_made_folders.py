"""Notes in folders of made images: the same request goes on, and another one is refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from zoo.cli import main as zoo_main
from zoo.data import Bicubic, BicubicJpeg, Photo, read_photo, write_photo
from zoo.data.made_folders import NOTE, warn_if_cut_apart
from zoo.data.pairs import main as pairs_main
from zoo.data.pairs import write_pairs
from zoo.data.prepare import prepare
from zoo.errors import ImageError, WriteError
from zoo.files import owned_folder


def photo(path, level, side=8):
    write_photo(path, Photo(np.full((side, side, 3), level, np.float32)))


@pytest.fixture
def photos(tmp_path):
    for name, level in (("a", 0.2), ("b", 0.6)):
        photo(tmp_path / "photos" / f"{name}.png", level)
    return tmp_path / "photos"


def squares(source, **options):
    """Cut the photos, with 8 x 8 pixels each, into squares."""
    options = {"size": 4, "step": 4, "progress": False, **options}
    return prepare(source, source.parent / "out", **options)


def pairs(source, degradation=None):
    degradation = degradation or BicubicJpeg(scale=4, quality=10)
    return write_pairs(source, source.parent / "out", degradation)


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def replaced(path):
    """Replace a photo by another of the same size in bytes, at another time."""
    before = path.stat()
    photo(path, 0.4)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def test_sub_images_of_another_size_are_not_mixed_with_the_old_ones(photos, tmp_path, capsys):
    words = ["data", "prepare", str(photos), "-o", str(tmp_path / "out"), "--size"]
    assert zoo_main([*words, "6", "--step", "3"]) == 0
    before = content(tmp_path / "out")
    assert zoo_main([*words, "4", "--step", "2"]) == 2
    said = capsys.readouterr().err
    assert (
        f"{tmp_path / 'out'}: the files here were made with size 6 and step 3, not with size 4 and "
        "step 2; name another folder to write to, or remove this one" in said
    )
    assert content(tmp_path / "out") == before
    assert zoo_main([*words, "6", "--step", "3"]) == 0


@pytest.mark.parametrize("make", [squares, pairs])
def test_files_of_a_photo_that_was_replaced_are_not_kept(photos, tmp_path, make):
    make(photos)
    before = content(tmp_path / "out")
    replaced(photos / "b.png")
    with pytest.raises(
        ImageError, match=r"'b\.png' has another name, size or time than .* 'b.*\.png'"
    ):
        make(photos)
    replaced(photos / "a.png")
    with pytest.raises(ImageError, match=r"'a\.png' has another .* \(and 1 more\); name another"):
        make(photos)
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("make", [squares, pairs])
def test_files_of_a_photo_that_is_gone_are_not_kept(photos, make):
    make(photos)
    (photos / "b.png").rename(photos / "c.png")
    with pytest.raises(ImageError, match=r"out: 'b.*\.png' was made from a photo that is not a"):
        make(photos)


@pytest.mark.parametrize("make", [squares, pairs])
def test_photos_may_be_added_and_the_folder_may_move(photos, tmp_path, make):
    make(photos)
    photo(photos / "c.png", 0.1)
    (tmp_path / "photos").rename(tmp_path / "moved")
    kept = content(tmp_path / "out")
    make(tmp_path / "moved")
    after = content(tmp_path / "out")
    assert len(after) > len(kept)
    assert all(after[path] == data for path, data in kept.items() if path.name != NOTE)


@pytest.mark.parametrize("make", [squares, pairs])
@pytest.mark.parametrize("note", [None, "", "[]", "{", '{"options": {}, "sources": []}'])
def test_files_without_a_note_are_not_taken_on_trust(photos, tmp_path, make, note):
    make(photos)
    path = tmp_path / "out" / NOTE
    path.unlink() if note is None else path.write_text(note)
    with pytest.raises(ImageError, match=r"out: nothing says how 'a.*\.png' and other files"):
        make(photos)


def test_a_folder_with_a_note_and_no_files_is_as_good_as_new(photos, tmp_path):
    squares(photos)
    for path in (tmp_path / "out").glob("*.png"):
        path.unlink()
    (tmp_path / "out" / "readme.txt").write_text("mine")
    assert squares(photos, size=8, step=8) == 2
    assert squares(photos, size=8, step=8) == 2


def test_a_photo_that_failed_may_be_repaired(photos):
    (photos / "b.png").write_text("none")
    with pytest.raises(ImageError, match="1 of 2 photos failed"):
        squares(photos)
    photo(photos / "b.png", 0.3)
    assert squares(photos) == 8


def test_the_note_says_what_was_asked_for(photos, tmp_path):
    squares(photos, value_range=(0, 255))
    note = json.loads((tmp_path / "out" / NOTE).read_text())
    assert note["options"] == {"size": 4, "step": 4, "range": [0, 255]}
    found = (photos / "a.png").stat()
    assert note["sources"]["a"] == ["a.png", found.st_size, found.st_mtime_ns]
    assert list(note["sources"]) == ["a", "b"]
    before = (tmp_path / "out" / NOTE).stat().st_mtime_ns
    squares(photos, value_range=(0, 255))
    assert (tmp_path / "out" / NOTE).stat().st_mtime_ns == before


def test_pairs_of_another_degradation_are_not_mixed_with_the_old_ones(photos, tmp_path, capsys):
    words = [str(photos), "-o", str(tmp_path / "out"), "bicubic_jpeg"]
    assert pairs_main([*words, "scale=4", "quality=10"]) == 0
    before = content(tmp_path / "out")
    assert pairs_main([*words, "scale=2", "quality=30"]) == 2
    assert "made with scale 4 and quality 10, not with scale 2 and qua" in capsys.readouterr().err
    with pytest.raises(ImageError, match=r"degradation 'BicubicJpeg' .*, not with deg.* 'Bicubic'"):
        pairs(photos, Bicubic(scale=4))
    assert content(tmp_path / "out") == before
    for side in ("clean", "degraded"):
        for path in (tmp_path / "out" / side).iterdir():
            path.unlink()
    [first, _] = pairs(photos, Bicubic(scale=2))
    assert read_photo(first.degraded).color_HWC.shape == (4, 4, 3)


@pytest.mark.parametrize("side", ["clean", "degraded"])
def test_one_half_of_a_pair_counts_too(photos, side):
    """As when a run was stopped between the two."""
    for pair in pairs(photos):
        getattr(pair, side).unlink()
    with pytest.raises(ImageError, match="made with scale 4"):
        pairs(photos, BicubicJpeg(scale=2, quality=10))


@pytest.mark.parametrize("make", [squares, pairs])
def test_two_photos_that_become_one_are_refused_before_any_work(photos, tmp_path, make):
    photo(photos / "b.jpg", 0.1)
    with pytest.raises(ImageError, match=r"photos/b\.jpg' and '.*photos/b\.png' differ only in t"):
        make(photos)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [squares, pairs])
def test_one_process_works_in_a_folder(photos, tmp_path, make):
    (tmp_path / "out").mkdir()
    with (
        owned_folder(tmp_path / "out", "making images"),
        pytest.raises(WriteError, match="making images is running here already"),
    ):
        make(photos)


def test_a_file_in_place_of_the_folder_is_told(photos, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(WriteError, match="out: cannot write"):
        squares(photos)


@pytest.mark.parametrize(("scale", "count"), [(1, 0), (2, 2)])
def test_folders_are_compared_in_their_sequence(photos, tmp_path, caplog, scale, count):
    squares(photos)
    cut, other = str(tmp_path / "out"), str(photos)
    warn_if_cut_apart([cut, cut], [cut, other], scale)
    warn_if_cut_apart([other, cut, other], [cut, other], scale)  # every two of them
    assert len(caplog.records) == count
