"""Public sets of bursts: found by name, and read with their clean images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.helpers import author_layouts
from tests.helpers.author_layouts import PHONE, burst, tag, write_facts
from zoo.data import Photo, write_photo
from zoo.data.burst.clean import CleanImage, clean_of
from zoo.data.burst.finding import (
    REAL_RAW_CLEAN,
    _advice,
    _has_folders,
    _has_images,
    real_raw_clean,
    real_raw_frames,
)
from zoo.data.burst.pairs import real_bursts
from zoo.data.burst.reading import read_burst
from zoo.data.burst.sets import find_burst_set
from zoo.errors import ImageError

# ------------------------------------------------------------------ finding


@pytest.mark.parametrize(
    ("folders", "source", "name", "found"),
    [
        ("SyntheticBurst/bursts", "", "SyntheticBurst", "SyntheticBurst"),
        ("SynBurst_val", "SynBurst_val", "SyntheticBurst", "SynBurst_val"),
        ("burstsr_dataset/val", "", "BurstSR", "burstsr_dataset/val"),
        ("burstsr_dataset/val", "burstsr_dataset/val", "BurstSR", "burstsr_dataset/val"),
        ("BurstSR/train", "BurstSR/train", None, "BurstSR/train"),
        ("RealBSR/RAW/testpatch", "", "RealBSR_RAW", "RealBSR/RAW/testpatch"),
        ("RealBSR/RGB/test/testpatch", "RealBSR/RGB", "RealBSR_RGB", "RealBSR/RGB/test/testpatch"),
        ("RealBSR-RGB/test", "", "RealBSR_RGB", "RealBSR-RGB/test"),
        ("RealBSR/RGB/test/testpatch", "RealBSR", "RealBSR_RGB", "RealBSR/RGB/test/testpatch"),
        ("RealBSR/RAW/testpatch", "RealBSR", "RealBSR_RAW", "RealBSR/RAW/testpatch"),
        ("RealBSR/testpatch", "RealBSR", "RealBSR_RGB", "RealBSR/testpatch"),
        ("RealBSR/RAW/val/valpatch", "RealBSR", "RealBSR_RAW", "RealBSR/RAW/val/valpatch"),
        (
            "SyntheticBurst/bursts",
            "SyntheticBurst/bursts",
            "SyntheticBurst",
            "SyntheticBurst/bursts",
        ),
        ("BurstSR/train/bursts", "BurstSR/train/bursts", None, "BurstSR/train/bursts"),
        ("mine", "mine", None, "mine"),
    ],
)
def test_a_set_is_found_at_its_folder_above_it_and_below_it(folders, source, name, found, tmp_path):
    (tmp_path / folders).mkdir(parents=True)
    wanted = [name] if name else ["BurstSR"]
    assert find_burst_set(tmp_path / source, wanted) == (name, tmp_path / found)
    with pytest.raises(ImageError, match="does not exist"):
        find_burst_set(tmp_path / "nowhere", wanted)


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("SyntheticBurst", "SyntheticBurst SyntheticBurst_val SynBurst syn-burst-val"),
        ("BurstSR", "BurstSR burstsr_dataset"),
        ("RealBSR_RAW", "RealBSR_RAW RealBSR/RAW RealBSR_dataset/RAW"),
        ("RealBSR_RGB", "RealBSR-RGB RealBSR/RGB RealBSR_dataset/RGB RealBSR RealBSR_dataset"),
        ("Another set", "another_set"),
    ],
)
def test_a_set_is_found_under_each_of_its_names(tmp_path, name, folders):
    for number, folder in enumerate(folders.split()):
        root = tmp_path / str(number)
        (root / folder / "test").mkdir(parents=True)
        assert find_burst_set(root, [name]) == (name, root / folder / "test"), folder


def test_the_current_folder_may_be_a_half_of_a_set(tmp_path, monkeypatch):
    half = tmp_path / "SynBurst" / "val"
    half.mkdir(parents=True)
    monkeypatch.chdir(half)
    assert find_burst_set(".", ["SyntheticBurst"]) == ("SyntheticBurst", Path())
    (half / "other").mkdir()
    monkeypatch.chdir(half / "other")
    assert find_burst_set(".", ["SyntheticBurst"]) == (None, Path())


def test_advice_names_files_in_their_sequence_and_no_hidden_folder(tmp_path):
    hidden = tmp_path / ".old" / "1"
    hidden.mkdir(parents=True)
    (hidden / "burst.npz").write_bytes(b"")
    assert _advice(tmp_path) == ""
    (tmp_path / "notes.txt").write_text("")
    assert _advice(tmp_path / "notes.txt") == ""
    (tmp_path / "old").mkdir()
    (hidden.rename(tmp_path / "old" / "1"))
    assert _advice(tmp_path).endswith("folders in it that have bursts: old")
    for number in (11, 3, 10, 2, 12, 4):
        (tmp_path / f"{number}.dng").write_bytes(b"")
    assert _advice(tmp_path).startswith("; 2.dng is one frame")


def test_images_of_any_case_are_frames_and_hidden_ones_and_previews_are_not(tmp_path):
    for name, found in (
        ("preview.png", False), (".a.png", False), ("a.txt", False), ("A.PNG", True),
        ("a.jpg", True),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(b"")
        assert _has_images(tmp_path) == found, name
        (tmp_path / name).unlink()


@pytest.mark.parametrize(("deep", "bits"), [(False, 8), (True, 16)])
def test_the_depth_of_photos_is_the_largest_of_a_burst(tmp_path, deep, bits):
    for number, depth in enumerate((8, 16 if deep else 8, 8)):
        photo = Photo(torch.zeros(4, 5, 3).numpy(), bit_depth=depth)
        write_photo(tmp_path / f"{number}.png", photo)
    assert read_burst(tmp_path).bit_depth == bits


def test_folders_and_archives_may_hold_bursts(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    assert not _has_folders(tmp_path) and not _has_folders(tmp_path / "notes.txt")
    (tmp_path / "a.npz").write_bytes(b"")
    assert _has_folders(tmp_path)
    (tmp_path / "a.npz").unlink()
    (tmp_path / "1").mkdir()
    assert _has_folders(tmp_path)


def test_a_set_in_place_of_its_half_names_the_halves(tmp_path):
    author_layouts.burstsr(tmp_path, 1)
    root = tmp_path / "burstsr_dataset"
    shutil.copytree(root / "val", root / "train")
    (root / "notes").mkdir()
    with pytest.raises(ImageError) as error:
        real_bursts(root, 2, 4, 4)
    assert str(error.value).endswith("; folders in it that have bursts: train, val")
    author_layouts.realbsr_rgb(tmp_path, 1)
    with pytest.raises(ImageError, match=r"that have bursts: RGB/test$"):
        real_bursts(tmp_path / "RealBSR", 2, 4, 3)
    for number in range(7):
        shutil.copytree(root / "val", tmp_path / "many" / "deep" / str(number) / "half")
    with pytest.raises(
        ImageError, match=r": deep/0/half, deep/1/half, deep/2/half, deep/3/half, \.\.\.$"
    ):
        real_bursts(tmp_path / "many", 2, 4, 4)
    for number in range(3):
        shutil.rmtree(tmp_path / "many" / "deep" / str(number))
    with pytest.raises(ImageError, match=r": deep/3/half, deep/4/half, deep/5/half, deep/6/half$"):
        real_bursts(tmp_path / "many", 2, 4, 4)
    shutil.copytree(root / "val", tmp_path / "far" / "a" / "b" / "c" / "d")
    with pytest.raises(ImageError, match=r"or folders with frames$"):  # a disk is not searched
        real_bursts(tmp_path / "far", 2, 4, 4)


# ------------------------------------------------------------------ reading


def test_the_clean_image_of_burstsr_is_as_bright_as_the_burst(tmp_path):
    author_layouts.burstsr(tmp_path, 1)
    made = burst(0)
    [path] = (tmp_path / "burstsr_dataset" / "val").iterdir()
    found = clean_of(path)
    assert found.kind == "other_camera"
    torch.testing.assert_close(found.read(raw=True), made.clean, atol=4e-4, rtol=0)
    torch.testing.assert_close(read_burst(path).frames_TIHW, made.frames, atol=6e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exif_data": {}}, "need exposure time, ISO and aperture as EXIF tags"),
        ({"exif_data": PHONE | {"Image FNumber": tag(0)}}, "need exposure time, ISO and aperture"),
        (
            {"exif_data": PHONE | {"Image ISOSpeedRatings": tag(0)}},
            "exposure in the facts of .* is 0",
        ),
        (None, "does not exist; the clean images of BurstSR need the facts of both cameras"),
    ],
)
def test_facts_that_the_clean_image_of_burstsr_needs_are_named(tmp_path, change, message):
    author_layouts.burstsr(tmp_path, 1)
    [path] = (tmp_path / "burstsr_dataset" / "val").iterdir()
    facts = path / "samsung_00" / "meta_info.pkl"
    facts.unlink()
    if change is not None:
        write_facts(facts, {"black_level": [63] * 4, **change})
    with pytest.raises(ImageError, match=message):
        clean_of(path).read(raw=True)


def test_bursts_of_realbsr_are_read_without_their_clean_image(tmp_path):
    author_layouts.realbsr_raw(tmp_path, 1)
    [path] = (tmp_path / "RealBSR" / "RAW" / "testpatch").iterdir()
    torch.testing.assert_close(read_burst(path).frames_TIHW, burst(0).frames, atol=5e-5, rtol=0)
    found = clean_of(path)
    assert found.kind == "raw_photo"
    torch.testing.assert_close(found.read(raw=True), burst(0).clean, atol=5e-5, rtol=0)
    assert found.white_balance().flatten().tolist() == [2.0, 1.0, 1.5]
    for pickle in path.glob("*.pkl"):
        pickle.unlink()
    with pytest.raises(ImageError, match="no pickle of facts"):
        found.white_balance()

    author_layouts.realbsr_rgb(tmp_path, 1)
    [path] = (tmp_path / "RealBSR" / "RGB" / "test" / "LR_aligned").iterdir()
    made = burst(0, mode="rgb")
    found = clean_of(path)
    assert found.kind == "same" and found.path.name == "000_MFSR_Sony_0000_x4.png"
    torch.testing.assert_close(found.read(raw=False), made.clean, atol=3e-3, rtol=0)
    # The other layout of the set: the clean image among the frames.
    shutil.copy(found.path, path / "000_rewarp.png")
    assert clean_of(path).path == path / "000_rewarp.png"
    assert len(read_burst(path).frames_TIHW) == 3
    (path / "000_rewarp.png").unlink()
    for folder in ("HR/000_00", "HR"):
        shutil.rmtree(tmp_path / "RealBSR" / "RGB" / "test" / folder, ignore_errors=True)
    with pytest.raises(ImageError, match="no clean image: neither"):
        clean_of(path)


def test_every_colour_of_a_clean_image_has_its_own_black_level_and_gain(tmp_path):
    """Of four black levels that of the second green is left out; gains of both are averaged."""
    author_layouts.burstsr(tmp_path, 1)
    [path] = (tmp_path / "burstsr_dataset" / "val").iterdir()
    facts = {"exif_data": author_layouts.CANON}
    author_layouts.levels(path / "canon" / "im_raw.png", torch.full((3, 64, 64), 0.5), 16383)
    for levels in ([100, 200, 999, 300], [100, 200, 300]):
        write_facts(path / "canon" / "meta_info.pkl", facts | {"black_level": levels})
        found = clean_of(path).read(raw=True)[:, 0, 0]
        expected = (8192 - torch.tensor([100.0, 200, 300])) / 16383 * author_layouts.LIGHT
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert read_burst(path).bit_depth == 16
    author_layouts.realbsr_raw(tmp_path, 1)
    [path] = (tmp_path / "RealBSR" / "RAW" / "testpatch").iterdir()
    assert read_burst(path).bit_depth == 16
    [pickled] = path.glob("*.pkl")
    for gains in ([3.0, 1.0, 2.0, 6.0], [3.0, 1.5, 6.0]):
        write_facts(pickled, {"cam_wb": gains})
        assert clean_of(path).white_balance().flatten().tolist() == [2.0, 1.0, 4.0]
    write_facts(pickled, {"cam_wb": [3.0, 1.5]})
    with pytest.raises(ImageError, match=r"\.pkl' need 'cam_wb', three or four numbers"):
        clean_of(path).white_balance()


@pytest.mark.parametrize("low", ["LR_aligned", "LR"])
@pytest.mark.parametrize("high", ["HR", "GT"])
def test_clean_images_beside_a_folder_of_bursts_are_files_or_folders(tmp_path, low, high):
    path = tmp_path / low / "7"
    author_layouts.picture(path / "0.png", 8)
    author_layouts.picture(tmp_path / high / "8.png", 32)
    with pytest.raises(ImageError, match="no clean image"):
        clean_of(path)
    wanted = author_layouts.picture(tmp_path / high / "7.png", 32)
    assert clean_of(path) == CleanImage(wanted)
    (tmp_path / high / "7").mkdir()
    (tmp_path / high / "7" / "notes.txt").write_text("")
    for name in ("a10.png", "a9.png"):
        wanted = author_layouts.picture(tmp_path / high / "7" / name, 32)
    assert clean_of(path) == CleanImage(wanted)  # the first in natural order


def test_frames_of_realbsr_are_in_natural_order_without_their_clean_image(tmp_path):
    names = ["1.png", "2.png", "10.png"]
    clean = f"0{REAL_RAW_CLEAN}"
    for name in (clean, *names):
        (tmp_path / name).write_bytes(b"")
    assert real_raw_frames(tmp_path) == []  # photos, as there are no facts
    (tmp_path / "0.pkl").write_bytes(b"")
    assert [path.name for path in real_raw_frames(tmp_path)] == names
    assert real_raw_clean(tmp_path) == tmp_path / clean
    for number in (5, 3, 9, 2, 7, 1):
        (tmp_path / f"{number}{REAL_RAW_CLEAN}").write_bytes(b"")
    assert real_raw_clean(tmp_path) == tmp_path / clean


def test_the_first_of_several_clean_images_is_that_of_the_burst(tmp_path):
    """Ours in its folder, ours beside it, BurstSR's, RealBSR's."""
    path = tmp_path / "bursts" / "1"
    author_layouts.picture(path / "0.png", 8)
    made = [path / "gt" / "im_rgb.png", tmp_path / "gt" / "1" / "im_rgb.png"]
    made += [path / "canon" / "im_raw.png", path / "x_rewarp.png"]
    for place in made:
        author_layouts.picture(place, 32)
    kinds = ["same", "same", "other_camera", "same"]
    for place, kind in zip(made, kinds, strict=True):
        assert clean_of(path) == CleanImage(place, kind)
        place.unlink()
    with pytest.raises(ImageError, match=r"neither .*/bursts/1/gt/im_rgb\.png nor .*/gt/1/im_rgb"):
        clean_of(path)


def test_photos_named_as_in_realbsr_stay_frames_without_its_facts(tmp_path):
    for name in ("a_rgb.png", "b_rgb.png"):
        author_layouts.picture(tmp_path / name, 8)
    assert len(read_burst(tmp_path).frames_TIHW) == 2


def test_unusable_bursts_are_named_before_training(tmp_path):
    author_layouts.burstsr(tmp_path, 2)
    folder = tmp_path / "burstsr_dataset" / "val"
    assert len(real_bursts(folder, 3, 8, 4)) == 2
    with pytest.raises(ImageError, match=r"0000_0001' has 3 frames; the network takes 4"):
        real_bursts(folder, 4, 8, 4)
    with pytest.raises(ImageError, match=r"\(64, 64\) pixels; at x4, .* needs \(32, 32\)"):
        real_bursts(folder, 3, 4, 4)
    with pytest.raises(ImageError, match=r"^2 of 2 bursts .* has 4 channels; the network takes 3"):
        real_bursts(folder, 3, 8, 3)
