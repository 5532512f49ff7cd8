"""Pairs that are cut together."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from tests.helpers.toy import register_toy
from zoo.cli import main
from zoo.data import PairDataset, Photo, list_photos, load_training_photos, read_photo, write_photo
from zoo.data.prepare import prepare, prepare_pairs
from zoo.errors import ImageError, ZooError
from zoo.evaluation import Protocol
from zoo.recipe import build
from zoo.training.photo_task import PhotoTask
from zoo.training.settings import DataSettings


def placed(height, width):
    """A photo whose pixels say where they are: the row in red, the column in green."""
    rows, columns = np.mgrid[:height, :width]
    return Photo(np.stack([rows, columns, 0 * rows], axis=-1).astype(np.float32) / 255)


def reduced(height, width, scale):
    """The degraded version: its pixels say which clean pixel they begin at."""
    kept = placed(height // scale * scale, width // scale * scale)
    return Photo(kept.color_HWC[::scale, ::scale])


def pair(folder, clean, degraded, scale, height, width):
    write_photo(folder / "HR" / clean, placed(height, width))
    write_photo(folder / "LR" / degraded, reduced(height, width, scale))


def cut(folder, **options):
    options = {"size": 24, "step": 12, "progress": False, **options}
    folders = [folder / name for name in ("HR", "LR", "HR_sub", "LR_sub")]
    return prepare_pairs(*folders, **options)


def names_in(folder):
    return [path.name for path in list_photos(folder)]


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(61, 75), (59, 74), (24, 25), (13, 50), (48, 60)])
def test_both_squares_of_a_pair_show_the_same_place(tmp_path, scale, height, width):
    pair(tmp_path, "0001.png", f"0001x{scale}.png", scale, height, width)
    pair(tmp_path, "0002.png", f"0002x{scale}.png", scale, width, height)
    count = cut(tmp_path)
    names = names_in(tmp_path / "HR_sub")
    assert names == names_in(tmp_path / "LR_sub") and len(names) == count
    assert names[0] == "0001_s001.png"
    seen = np.zeros((height // scale * scale, width // scale * scale), bool)
    for name in names:
        clean = read_photo(tmp_path / "HR_sub" / name).color_HWC
        degraded = read_photo(tmp_path / "LR_sub" / name).color_HWC
        np.testing.assert_array_equal(clean[::scale, ::scale], degraded)
        assert clean.shape[:2] == tuple(side * scale for side in degraded.shape[:2])
        if name.startswith("0001"):
            top, left = (round(float(level) * 255) for level in clean[0, 0, :2])
            seen[top : top + clean.shape[0], left : left + clean.shape[1]] = True
    assert seen.all()  # nothing is left out but what cropping drops
    images = [load_training_photos(tmp_path / name) for name in ("HR_sub", "LR_sub")]
    side = min(min(photo.shape[:2]) for photo in images[1])
    made = PairDataset(*images, scale=scale, patch=side, channels=3, length=1, seed=0)
    assert len(made) == 1


def test_squares_are_a_step_apart(tmp_path):
    pair(tmp_path, "a.png", "ax2.png", 2, 24, 72)
    assert cut(tmp_path) == 5
    for folder in ("HR_sub", "LR_sub"):
        firsts = [read_photo(path).color_HWC[0, 0, 1] for path in list_photos(tmp_path / folder)]
        assert [round(float(level) * 255) for level in firsts] == [0, 12, 24, 36, 48]


def test_the_command_cuts_pairs_and_continues(tmp_path, capsys):
    pair(tmp_path, "a_HR.png", "a_LR.png", 2, 41, 33)
    words = ["data", "prepare", "HR", "-o", "HR_sub", "--degraded", "LR"]
    words = [str(tmp_path / word) if word[:2] in ("HR", "LR") else word for word in words]
    words += ["--degraded-output", str(tmp_path / "LR_sub"), "--size", "24", "--step", "12"]
    assert main(words) == 0
    assert "6 pairs of sub-images in " in capsys.readouterr().out
    before = (tmp_path / "LR_sub" / "a_HR_s001.png").stat().st_mtime_ns
    (tmp_path / "HR_sub" / "a_HR_s001.png").unlink()
    (tmp_path / "LR_sub" / "a_HR_s002.png").unlink()
    assert main(words) == 0
    assert names_in(tmp_path / "HR_sub") == names_in(tmp_path / "LR_sub")
    assert (tmp_path / "LR_sub" / "a_HR_s001.png").stat().st_mtime_ns == before


@pytest.mark.parametrize("option", ["--degraded", "--degraded-output"])
def test_one_of_both_options_is_not_enough(tmp_path, capsys, option):
    pair(tmp_path, "a.png", "a.png", 2, 8, 8)
    words = [str(tmp_path / "HR"), "-o", str(tmp_path / "out"), option, str(tmp_path / "LR")]
    assert main(["data", "prepare", *words]) == 2
    assert "--degraded and --degraded-output go together" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pairs_keep_bits_and_the_range_of_values(tmp_path):
    for folder, side, channels in (("HR", 8, 5), ("LR", 4, 5)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", np.full((side, side, channels), 50, np.uint16))
    assert cut(tmp_path, size=4, step=4, value_range=(0, 100)) == 4
    parts = [np.load(tmp_path / name / "a_s004.npy") for name in ("HR_sub", "LR_sub")]
    assert [part.shape for part in parts] == [(4, 4, 5), (2, 2, 5)]
    assert all((part == 50).all() and part.dtype == np.uint16 for part in parts)
    with pytest.raises(ImageError, match=r"made with range \[0, 100\], not with no range"):
        cut(tmp_path, size=4, step=4)


def test_transparent_photos_are_cut_without_alpha(tmp_path):
    pair(tmp_path, "a.png", "a.png", 2, 9, 9)
    color_HWC = read_photo(tmp_path / "HR" / "a.png").color_HWC
    write_photo(tmp_path / "HR" / "a.png", Photo(color_HWC, np.ones((9, 9), np.float32)))
    assert cut(tmp_path, size=4, step=4) == 4
    assert read_photo(tmp_path / "HR_sub" / "a_s001.png").alpha_HW is None


def test_a_colour_photo_may_belong_to_a_gray_one(tmp_path):
    pair(tmp_path, "a.png", "a.png", 1, 8, 8)
    gray = Photo(read_photo(tmp_path / "LR" / "a.png").color_HWC[..., :1])
    write_photo(tmp_path / "LR" / "a.png", gray)
    assert cut(tmp_path, size=4, step=4) == 4


def test_the_scale_is_found_where_the_first_files_are_of_different_photos(tmp_path):
    pair(tmp_path, "b.png", "bx2.png", 2, 40, 40)
    write_photo(tmp_path / "LR" / "ax2.png", placed(40, 40))  # of no clean photo
    assert cut(tmp_path) == 9
    assert names_in(tmp_path / "LR_sub")[0] == "b_s001.png"


def test_size_and_step_are_multiples_of_the_scale(tmp_path):
    pair(tmp_path, "a.png", "a.png", 4, 40, 40)
    for wrong in ({"size": 22}, {"step": 6}):
        with pytest.raises(ZooError, match="for pairs of scale 4 both must be multiples of 4"):
            cut(tmp_path, **wrong)
    with pytest.raises(ZooError, match="leaves gaps"):
        cut(tmp_path, step=28)
    assert not (tmp_path / "HR_sub").exists()


def test_pairs_that_do_not_match_are_named(tmp_path):
    pair(tmp_path, "a.png", "a.png", 2, 40, 40)
    pair(tmp_path, "b.png", "b.png", 2, 40, 40)
    write_photo(tmp_path / "LR" / "b.png", placed(19, 20))
    with pytest.raises(ImageError, match=r"1 of 2 photos failed.*b\.png' 20x19, which is not 1/2"):
        cut(tmp_path)
    assert len(names_in(tmp_path / "LR_sub")) == 9  # those of the other
    # The damaged file had no squares, so it may change.
    write_photo(tmp_path / "LR" / "b.png", reduced(40, 40, 2))
    assert cut(tmp_path) == 18
    (tmp_path / "LR" / "b.png").unlink()
    with pytest.raises(ImageError, match=r"1 of 2 pairs do not match: .*b\.png' has no degraded"):
        cut(tmp_path)
    write_photo(tmp_path / "LR" / "b.png", placed(40, 41))
    write_photo(tmp_path / "LR" / "a.png", placed(21, 20))
    with pytest.raises(ImageError, match=r"a\.png' 20x21, which is not 1/2 of that size"):
        cut(tmp_path)


def test_folders_of_pairs_are_four(tmp_path):
    pair(tmp_path, "a.png", "a.png", 1, 8, 8)
    clean, degraded, out = (tmp_path / name for name in ("HR", "LR", "out"))
    with pytest.raises(ImageError, match="is its own degraded version; give two folders"):
        prepare_pairs(clean, clean, out, tmp_path / "other", progress=False)
    for targets in ((clean, out), (degraded, out), (out, clean), (out, degraded), (out, out)):
        with pytest.raises(ImageError, match="the sub-images would be among the photos"):
            prepare_pairs(clean, degraded, *targets, progress=False)
    assert not out.exists()


def test_squares_of_scaled_names_that_were_cut_separately_are_pairs(tmp_path, caplog):
    """As DIV2K names its files; a training says that they may be apart."""
    register_toy()
    pair(tmp_path, "0001.png", "0001x2.png", 2, 41, 41)
    prepare(tmp_path / "HR", tmp_path / "HR_sub", size=24, step=12, progress=False)
    prepare(tmp_path / "LR", tmp_path / "LR_sub", size=12, step=6, progress=False)
    assert names_in(tmp_path / "LR_sub")[0] == "0001x2_s001.png"

    def train(clean, degraded):
        caplog.clear()
        settings = DataSettings(
            photos=clean, degraded=degraded, patch=2, batch=1,
            validate=str(tmp_path / "HR"), validate_degraded=str(tmp_path / "LR"),
        )  # fmt: skip
        network = build({"network": {"type": "toy", "scale": 2}})
        PhotoTask(settings, network, protocol=Protocol(), iterations=1, seed=0)
        return [record.message for record in caplog.records if "separately" in record.message]

    with caplog.at_level(logging.WARNING):
        clean, degraded = str(tmp_path / "HR_sub"), str(tmp_path / "LR_sub")
        [said] = train(clean, degraded)
        assert said.startswith(f"{clean} and {degraded} were cut separately") and "1 pixel" in said
        (tmp_path / "LR_sub" / ".zoo.made.json").unlink()
        assert not train((clean,), (degraded,))  # made by another program
        prepare_pairs(
            tmp_path / "HR", tmp_path / "LR", tmp_path / "HR_2", tmp_path / "LR_2",
            size=24, step=12, progress=False,
        )  # fmt: skip
        assert not train(str(tmp_path / "HR_2"), str(tmp_path / "LR_2"))
