"""Public sets of bursts: found by name, read with their clean images, scored, and trained on."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from recipes.evaluate import main as evaluate
from recipes.train import main as train
from tests.helpers import author_layouts
from tests.helpers.author_layouts import PHONE, burst, tag, write_facts
from zoo.data import Photo, write_photo
from zoo.data.burst import pairs
from zoo.data.burst.clean import CleanImage, clean_of
from zoo.data.burst.dataset import generator
from zoo.data.burst.finding import (
    REAL_RAW_CLEAN,
    _advice,
    _has_folders,
    _has_images,
    real_raw_clean,
    real_raw_frames,
)
from zoo.data.burst.pairs import RealBurst, RealBurstDataset, RealValidation, real_bursts
from zoo.data.burst.reading import read_burst
from zoo.data.burst.sets import find_burst_set
from zoo.errors import ImageError, RecipeError
from zoo.metrics.burst import aligned, as_rgb, developed_pair, linear_psnr, linear_ssim
from zoo.recipe import load_recipe
from zoo.training.burst_task import BurstTask
from zoo.training.epochs import in_steps
from zoo.training.losses import L1
from zoo.training.settings import BurstTrainSettings, train_settings

SMALL = {
    "burst": 3, "dim": 8, "align": "none", "flow_prior": "none", "skip": "corner", "stages": [1],
    "body": {"type": "res"}, "fusion": {"type": "concat"},
}  # fmt: skip


def small(name, folder, **train):
    """A small network of a recipe with random weights: the recipe's file."""
    data = load_recipe(name).data()
    data["network"] |= SMALL
    data["train"] |= {"initial": None, **train}
    data["train"]["data"] |= {"border": 4}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(data))
    torch.manual_seed(0)
    zoo.save(zoo.build(str(file)), folder / "weights.safetensors")
    return file


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


def test_a_burst_to_validate_with_is_whole_and_has_no_motion(monkeypatch):
    frames, clean = torch.rand(3, 4, 6, 7), torch.rand(3, 48, 56)
    monkeypatch.setattr(RealBurst, "read", lambda *_: (frames, clean))
    held = [RealBurst(Path("7"), CleanImage(None))]
    found = RealValidation(held, frames=3, scale=8)[0]
    assert torch.equal(found.frames, frames) and torch.equal(found.clean, clean)
    assert torch.equal(found.flow, torch.zeros(3, 2, 6, 7))


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


# ------------------------------------------------------------------ patches

PLANES = (0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)
"""Colour, row and column of the planes R, Gr, Gb, B in a mosaic."""


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("turned", range(8))
@pytest.mark.parametrize("raw", [True, False])
def test_flips_and_turns_keep_frames_and_clean_image_together(monkeypatch, raw, turned, whole):
    """The clean image repeats every value of the mosaic, or of the frame, as a block."""
    scale, side, patch = (8, 6, 6 if whole else 4) if raw else (4, 6, 6 if whole else 4)
    cells = 2 * side if raw else side
    block = scale * side // cells
    colours = torch.rand(3, cells, cells, generator=generator(1))
    clean = colours.repeat_interleave(block, 1).repeat_interleave(block, 2)
    frame = colours
    if raw:
        frame = torch.stack([colours[c, row::2, column::2] for c, row, column in PLANES])
    monkeypatch.setattr(RealBurst, "read", lambda *_: (frame[None].repeat(2, 1, 1, 1), clean))
    monkeypatch.setattr(pairs, "below", lambda n, rng: turned if n == 8 else min(1, n - 1))
    held = [RealBurst(None, CleanImage(None))]
    data = RealBurstDataset(held, frames=2, scale=scale, patch=patch, length=1, seed=0)
    found, target, flow = data[0]
    assert found.shape == (2, frame.shape[0], patch, patch) and flow.shape == (2, 2, patch, patch)
    assert target.shape == (3, scale * patch, scale * patch)
    middles = target[:, block // 2 :: block, block // 2 :: block]
    if not raw:
        assert torch.equal(found[0], middles)
        return
    for plane, (colour, row, column) in enumerate(PLANES):
        assert torch.equal(found[0, plane], middles[colour, row::2, column::2]), plane


def test_all_eight_flips_and_turns_of_a_burst_differ(monkeypatch):
    frame, clean = torch.rand(3, 4, 4), torch.rand(3, 16, 16)
    monkeypatch.setattr(RealBurst, "read", lambda *_: (frame[None], clean))
    data = RealBurstDataset(
        [RealBurst(None, CleanImage(None))], frames=1, scale=4, patch=4, length=1, seed=0
    )
    found = set()
    for turned in range(8):
        monkeypatch.setattr(pairs, "below", lambda n, rng, turned=turned: turned if n == 8 else 0)
        found.add(str(data[0].frames))
    assert len(found) == 8


@pytest.mark.parametrize("turned", range(8))
def test_a_patch_lies_anywhere_in_frames_that_are_not_square(monkeypatch, turned):
    frame, clean = torch.rand(3, 5, 9), torch.rand(3, 20, 36)
    monkeypatch.setattr(RealBurst, "read", lambda *_: (frame[None], clean))
    asked = []

    def last(n, rng):
        asked.append(n)
        return turned if n == 8 else n - 1

    monkeypatch.setattr(pairs, "below", last)
    held = [RealBurst(None, CleanImage(None))]
    found = RealBurstDataset(held, frames=1, scale=4, patch=4, length=1, seed=0)[0]
    assert asked == [1, 8, 2, 6]  # burst, turn, row and column
    for image, whole, side in ((found.frames[0], frame, 4), (found.clean, clean, 16)):
        flips = [axis for bit, axis in ((1, -2), (2, -1)) if turned & bit]
        expected = whole[:, -side:, -side:].flip(flips)
        assert torch.equal(image, expected.mT if turned & 4 else expected)


def test_frames_are_not_turned_unless_asked_to(monkeypatch):
    frame = torch.rand(3, 4, 4)
    monkeypatch.setattr(RealBurst, "read", lambda *_: (frame[None], torch.rand(3, 16, 16)))
    monkeypatch.setattr(pairs, "below", lambda n, rng: n - 1)
    data = RealBurstDataset(
        [RealBurst(None, CleanImage(None))], frames=1, scale=4, patch=4, length=1, seed=0,
        augment=False,
    )  # fmt: skip
    assert torch.equal(data[0].frames[0], frame)


def test_patches_depend_on_seed_and_number_only(tmp_path):
    author_layouts.burstsr(tmp_path, 2)
    held = real_bursts(tmp_path / "burstsr_dataset" / "val", 3, 8, 4)

    def data(seed):
        return RealBurstDataset(held, frames=3, scale=8, patch=4, length=40, seed=seed)

    first, again, other = data(0), data(0), data(1)
    assert torch.equal(first[7].frames, again[7].frames)
    assert torch.equal(first[7].clean, again[7].clean)
    assert any(not torch.equal(first[n].frames, other[n].frames) for n in range(4))
    assert len({str(first[n].frames) for n in range(40)}) > 10
    with pytest.raises(IndexError):
        first[40]
    wide = RealBurstDataset(held, frames=3, scale=8, patch=9, length=1, seed=0)
    with pytest.raises(ImageError, match=r"frames of 8x8; data\.patch is 9"):
        wide[0]


# ------------------------------------------------------------------ scores


def scored(tmp_path, name, capsys):
    file = small(name, tmp_path)
    words = [str(file), "-w", str(tmp_path / "weights.safetensors"), "-o", str(tmp_path / "out")]
    assert evaluate([*words, "--data", str(tmp_path)]) == 0, capsys.readouterr().err
    with (tmp_path / "out" / "images.csv").open() as lines:
        images = list(csv.DictReader(lines))
    network = zoo.load(tmp_path / "weights.safetensors").eval()
    return capsys.readouterr().out, images, network


def restored(network, path):
    with torch.inference_mode():
        return network(read_burst(path).frames_TIHW[None])[0]


def test_synthetic_bursts_stand_beside_the_papers_score(tmp_path, capsys):
    author_layouts.synthetic_bursts(tmp_path)
    table, images, network = scored(tmp_path, "qmambabsr", capsys)
    assert "| SyntheticBurst | 2 | files |" in table and "| 43.12 / 0.9700 |" in table
    assert "Paper: main results." in table and "Linear PSNR (dB) and SSIM, 14 bits, 4" in table
    path = tmp_path / "SyntheticBurst" / "bursts" / "0001"
    clean = clean_of(path).read(raw=True)
    expected = linear_psnr(restored(network, path), clean, border=4)
    assert float(images[1]["psnr"]) == pytest.approx(expected, abs=1e-3)


def test_bursts_named_by_their_own_folder_keep_the_papers_score(tmp_path, capsys):
    author_layouts.synthetic_bursts(tmp_path)
    author_layouts.realbsr_rgb(tmp_path)
    for name, place, told in (
        ("qmambabsr", "SyntheticBurst/bursts", "| SyntheticBurst | 2 | files |"),
        ("qmambabsr_realbsr_rgb", "RealBSR", "| RealBSR_RGB | 2 | files |"),
    ):
        file = small(name, tmp_path)
        words = [str(file), "-w", str(tmp_path / "weights.safetensors"), "-o", str(tmp_path / "o")]
        assert evaluate([*words, "--data", str(tmp_path / place)]) == 0, capsys.readouterr().err
        table = capsys.readouterr().out
        assert told in table and ("43.12" in table or "31.40" in table)


def test_burstsr_is_scored_after_aligning_place_and_colour(tmp_path, capsys):
    author_layouts.burstsr(tmp_path)
    table, images, _ = scored(tmp_path, "qmambabsr_burstsr", capsys)
    assert "| BurstSR | 2 | files |" in table and "after aligning place and colours" in table
    assert all(row["ssim"] == "nan" for row in images)
    # Twice as bright: nothing changes but what is linear.
    for path in tmp_path.glob("burstsr_dataset/val/*/canon/meta_info.pkl"):
        facts = {"black_level": [2048] * 4}
        write_facts(
            path, facts | {"exif_data": author_layouts.CANON | {"EXIF ISOSpeedRatings": tag(50)}}
        )
    _, brighter, _ = scored(tmp_path, "qmambabsr_burstsr", capsys)
    for row, other in zip(images, brighter, strict=True):
        assert float(row["psnr"]) != float(other["psnr"])
        assert float(row["psnr"]) == pytest.approx(float(other["psnr"]) + 6.02, abs=1.5)


def test_realbsr_raw_is_scored_developed_and_linear(tmp_path, capsys):
    author_layouts.realbsr_raw(tmp_path)
    table, images, network = scored(tmp_path, "qmambabsr_realbsr_raw", capsys)
    assert "| RealBSR_RAW | 2 | files |" in table and "| 27.56 / 0.8200 |" in table
    assert "its L-PSNR is 32.791" in table and "| set | l_psnr |" in table
    path = sorted((tmp_path / "RealBSR" / "RAW" / "testpatch").iterdir())[0]
    found, clean = restored(network, path), clean_of(path).read(raw=True)
    assert float(images[0]["l_psnr"]) == pytest.approx(
        linear_psnr(found, clean, border=4), abs=1e-3
    )
    gains = torch.tensor([2.0, 1.0, 1.5]).reshape(3, 1, 1)
    balanced = [x.double().clamp(min=0) * gains for x in (found, clean)]
    level = 5 * balanced[1].mean()
    pictures = [((x / level).clamp(0, 1) ** (1 / 2.2)) for x in balanced]
    pictures = [3 * x**2 - 2 * x**3 for x in pictures]
    assert float(images[0]["psnr"]) == pytest.approx(linear_psnr(*pictures, border=4), abs=1e-3)
    assert float(images[0]["ssim"]) == pytest.approx(linear_ssim(*pictures, border=4), abs=1e-4)
    assert torch.equal(*developed_pair(clean, clean, gains))


def test_realbsr_rgb_stands_beside_the_papers_score(tmp_path, capsys):
    author_layouts.realbsr_rgb(tmp_path)
    table, _, _ = scored(tmp_path, "qmambabsr_realbsr_rgb", capsys)
    assert "| RealBSR_RGB | 2 | files |" in table and "| 31.40 / 0.9080 |" in table


def test_no_score_of_the_paper_stands_beside_other_bursts(tmp_path, capsys, caplog):
    caplog.set_level("INFO", logger="zoo.evaluate")
    author_layouts.synthetic_bursts(tmp_path)
    shutil.move(tmp_path / "SyntheticBurst", tmp_path / "mine")
    file = small("qmambabsr", tmp_path)
    words = [str(file), "-w", str(tmp_path / "weights.safetensors"), "-o", str(tmp_path / "out")]
    assert evaluate([*words, "--data", str(tmp_path / "mine")]) == 0
    assert "43.12" not in (table := capsys.readouterr().out) and "| mine | 2 |" in table
    assert "mine is none of the recipe's sets (SyntheticBurst), so no score" in caplog.text
    real = small("qmambabsr_burstsr", tmp_path)
    assert evaluate([str(real), *words[1:]]) == 2
    assert "data.synthesis is null, so bursts are files" in capsys.readouterr().err


# ------------------------------------------------------------------ training


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("qmambabsr_burstsr", author_layouts.burstsr),
        ("qmambabsr_realbsr_raw", author_layouts.realbsr_raw),
        ("qmambabsr_realbsr_rgb", author_layouts.realbsr_rgb),
    ],
)
def test_recipes_of_real_bursts_train_an_epoch_and_resume(name, make, tmp_path, capsys):
    """Three bursts in batches of two: an epoch is two steps."""
    make(tmp_path, 3, half="train")
    make(tmp_path, 1)
    folders = {
        "qmambabsr_burstsr": "burstsr_dataset/{}", "qmambabsr_realbsr_raw": "RealBSR/RAW/{}patch",
        "qmambabsr_realbsr_rgb": "RealBSR/RGB/{}",
    }  # fmt: skip
    real = tmp_path / folders[name].format("train")
    tested = tmp_path / folders[name].format("val" if name[10:] == "burstsr" else "test")
    file = small(name, tmp_path)
    words = [str(file), "-o", str(tmp_path / "run"), "--num-workers", "0", f"data.real={real}"]
    words += [f"data.validate_real={tested}", "data.batch=2", "data.patch=8", "epochs=2"]
    assert train(words) == 0, capsys.readouterr().err
    state = torch.load(max(tmp_path.glob("run/**/*.pt")), weights_only=True)
    assert state["step"] == 4
    assert train(words) == 0  # nothing is left to do


def test_an_epoch_is_a_pass_over_the_photos(tmp_path):
    for number in range(5):
        author_layouts.picture(tmp_path / f"{number}.png", 64)
    recipe = load_recipe("qmambabsr", {"train.data.photos": str(tmp_path)})
    assert train_settings(recipe).epochs == 300
    assert train_settings(in_steps(recipe)).iterations == 300  # 5 photos are one batch of 8
    recipe = load_recipe("qmambabsr", {"train.data.photos": str(tmp_path), "train.data.batch": 2})
    found = in_steps(recipe)
    assert train_settings(found).iterations == 900 and "epochs" not in found.train
    assert in_steps(found) is found
    assert train_settings(in_steps(recipe, 1000)).iterations == 1000
    plain = load_recipe("mambair_light_x2")
    assert in_steps(plain) is plain
    photo = load_recipe(
        "mambair_light_x2",
        {"train.epochs": 3, "train.data.photos": str(tmp_path), "train.data.batch": 4},
    )
    assert train_settings(in_steps(photo)).iterations == 6
    bundled = load_recipe("mambair_light_x2", {"train.epochs": 3, "train.data.batch": 3})
    assert train_settings(in_steps(bundled)).iterations == 3 * 4  # ten photos
    staged = load_recipe("mambair_realdn", {"train.epochs": 3})
    with pytest.raises(RecipeError, match="epochs are for batches of one size"):
        in_steps(staged)


def test_steps_and_epochs_on_one_line_are_an_error(capsys):
    for words in (["epochs=1", "iterations=3"], ["train.iterations=3", "epochs=1"]):
        assert train(["qmambabsr", *words]) == 2
        said = "train.iterations and train.epochs are both given; omit one"
        assert said in capsys.readouterr().err
    found = load_recipe("qmambabsr", {"train.epochs": 0, "train.iterations": 3})
    assert train_settings(found).iterations == 3


def test_steps_and_epochs_replace_each_other(tmp_path):
    assert train_settings(load_recipe("qmambabsr", {"train.iterations": 7})).epochs == 0
    found = train_settings(load_recipe("qmambabsr_tiny", {"train.epochs": 2}))
    assert (found.iterations, found.epochs) == (0, 2)
    assert train_settings(load_recipe("qmambabsr_tiny")).iterations == 400
    (tmp_path / "a.yaml").write_text(
        "extends: qmambabsr\ntrain: {iterations: 5, epochs: 5}\nnetwork: {dim: 16}\n"
    )
    with pytest.raises(RecipeError, match="iterations and epochs are both given"):
        train_settings(load_recipe(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.flow_loss": 0.1}, "set flow_loss to 0"),
        ({"network.flow_prior": "given"}, "the motion of real bursts is not known"),
    ],
)
def test_what_real_bursts_do_not_have_is_refused(tmp_path, changes, message):
    author_layouts.burstsr(tmp_path, 1)
    folder = str(tmp_path / "burstsr_dataset" / "val")
    recipe = load_recipe(
        "qmambabsr_burstsr",
        {
            "network.burst": 3,
            "train.data.real": folder,
            "train.data.validate_real": folder,
            **changes,
        },
    )
    with pytest.raises(RecipeError, match=message):
        BurstTask(train_settings(in_steps(recipe)), zoo.build(recipe))


def test_images_too_small_to_align_are_told():
    made = burst(0, side=6)
    with pytest.raises(ImageError, match=r"frames of 6x6 are too small to align colours"):
        aligned(made.clean, made.clean, as_rgb(made.frames[0]), border=4)


def test_the_aligned_loss_forgives_place_and_colour_and_its_gradient_reaches_the_image():
    made = burst(0, side=24)
    colours = torch.tensor([[0.8, 0.1, 0.0], [0.0, 0.7, 0.1], [0.1, 0.0, 0.6]])
    other = torch.einsum("ij,jhw->ihw", colours, made.clean)
    clean = torch.roll(other, (1, 2), (1, 2))
    image = made.clean.clone().requires_grad_()
    settings = BurstTrainSettings(iterations=1, align_loss=True)
    task = object.__new__(BurstTask)
    task.align_loss, task.border, task.flow_loss, task.needs_flow = True, 16, 0.0, False
    batch = made.frames[None], clean[None], made.flow[None]
    assert settings.align_loss
    loss = task.loss(lambda *_: (image[None], ()), L1(), batch, 0.0)
    plain = float((made.clean - clean)[:, 16:-16, 16:-16].abs().mean())
    loss.backward()
    loss = float(loss.detach())
    assert loss < 0.25 * plain
    inside = image.grad[:, 20:-20, 20:-20]
    assert torch.isfinite(image.grad).all() and float((inside != 0).float().mean()) > 0.7
    # By hand, from what is aligned.
    found = aligned(made.clean, clean, as_rgb(made.frames[0]), border=16)
    used = found.valid_1HW.expand(3, -1, -1).bool()
    expected = (found.restored_3HW - found.clean_3HW).abs()[used].mean()
    assert loss == pytest.approx(float(expected), rel=1e-4)
    # Of two images it is the mean, in float32 whatever the precision of the network.
    two = [part.expand(2, *part.shape[1:]) for part in batch]
    rough = image.detach().bfloat16().expand(2, -1, -1, -1)
    both = task.loss(lambda *_: (rough, ()), L1(), two, 0.0)
    assert both.dtype == torch.float32 and float(both) == pytest.approx(loss, rel=0.2)
