"""Test sets are found under all the names that they and their folders go by."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.helpers.evaluation import photo_file
from zoo.data import Bicubic, BicubicJpeg, Photo, write_photo
from zoo.data.degradations import GaussianNoise, Jpeg
from zoo.data.testsets import (
    ALIASES,
    _subfolder,
    find_test_set,
    is_test_set,
    set_names,
    spellings,
    validation_images,
)
from zoo.errors import ImageError

NAMES = {
    "B100": ("b100", "BSD100", "BSDS100"),
    "CBSD68": ("CBSD68", "bsd68", "CBSD68HQ"),
    "Kodak24": ("kodak24", "Kodak", "Kodak24HQ"),
    "McMaster": ("McMaster", "McMasterHQ", "mcm"),
    "Urban100": ("urban100", "Urban100HQ"),
    "DIV2K": ("div2k", "DIV2K_valid", "DIV2K100", "div2kvalid", "DIV2K_test"),
    "SIDD": ("SIDD", "sidd_val"),
    "Set5": ("Set5", "set5"),
}
"""Each set, and the folders that hold it in the authors' collections."""

CLEAN = ("HR", "GTmod12", "GTmod24", "GT", "target", "target_crops", "HQ", "original", "clean")

DEGRADED = [
    (None, 1, ("input", "input_crops", "noisy", "LQ", "LR", "degraded")),
    (
        Bicubic(scale=2),
        2,
        ("LR_bicubic/X2", "LRbicx2", "LR_bicubic_x2", "LR/x2", "BSD100_LRbicx2", "b100LRbicx2"),
    ),
    (
        BicubicJpeg(scale=2, quality=30),
        2,
        ("LR_q30", "LRq30", "LR/q30", "LR_jpeg30", "LR_30", "B100_LR_q30", "bsd100lr30"),
    ),
    (Jpeg(scale=1, quality=30), 1, ("LQ/30", "jpeg30", "q30", "B100_jpeg30", "bsds100q30")),
]


def image(path, side=4):
    write_photo(path, Photo(np.full((side, side, 3), 0.5, np.float32)))
    return path


@pytest.mark.parametrize(("name", "folder"), [(n, f) for n, fs in NAMES.items() for f in fs])
def test_a_set_is_found_under_each_of_its_names(name, folder, tmp_path):
    path = image(tmp_path / folder / "a.png")
    for root in (tmp_path, tmp_path / folder):
        [found] = find_test_set(root, name, Bicubic(scale=2), 2)
        assert (found.name, found.clean, found.degraded) == ("a", path, None)
    assert find_test_set(tmp_path, "Manga109", Bicubic(scale=2), 2) is None


def test_no_alias_is_left_out():
    found = {name.lower(): {folder.lower() for folder in NAMES[name]} for name in NAMES}
    assert {n: {n, *others} for n, others in ALIASES.items()}.items() <= found.items()


@pytest.mark.parametrize("name", NAMES)
def test_the_name_that_is_asked_for_is_looked_for_first_and_then_the_others_in_turn(name):
    known = list(dict.fromkeys(folder.lower() for folder in NAMES[name]))
    assert spellings(name) == known
    assert spellings(known[-1].upper()) == [known[-1], *known[:-1]]


def test_of_several_folders_the_first_kind_is_taken(tmp_path):
    """One after the other is taken away, and the next one counts."""
    folders = [tmp_path / "B100" / name for name in CLEAN]
    named = [tmp_path / "B100" / name for name in ("B100HR", "B100GTmod12", "b100_hr", "bsd100HR")]
    for folder in (*named, *folders):
        image(folder / "a.png")
    for folder in (*named, *folders):
        [found] = find_test_set(tmp_path, "B100", GaussianNoise(scale=1, sigma=25), 1)
        assert found.clean == folder / "a.png"
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("degradation", "scale", "names"),
    [
        (None, 1, ["input", "input_crops", "noisy", "lq", "lr", "degraded"]),
        (
            Bicubic(scale=2),
            2,
            ["lr_bicubic/x2", "lrbicx2", "lr_bicubic_x2", "lr/x2", "b100lr_bicubic/x2",
             "b100lrbicx2", "b100lr_bicubic_x2", "b100lr/x2", "b100_lr_bicubic/x2",
             "bsd100lr_bicubic/x2", "bsd100_lr/x2", "bsds100lr_bicubic/x2", "bsds100_lrbicx2"],
        ),
        (
            BicubicJpeg(scale=2, quality=30),
            2,
            ["lr_q30", "lr/q30", "lrq30", "lr_jpeg30", "lr/jpeg30", "lrjpeg30", "lr_30", "lr/30",
             "lr30", "b100lr_q30", "b100lr30", "b100_lr_q30", "bsd100lr/q30", "bsds100_lr30"],
        ),
        (
            Jpeg(scale=1, quality=30),
            1,
            ["lq/30", "jpeg30", "q30", "b100lq/30", "b100jpeg30", "b100q30", "b100_lq/30",
             "b100_q30", "bsd100jpeg30", "bsds100_q30"],
        ),
    ],
    ids=["unknown", "bicubic", "bicubic and jpeg", "jpeg"],
)  # fmt: skip
def test_of_several_folders_of_degraded_images_the_first_kind_is_taken(
    tmp_path, degradation, scale, names
):
    image(tmp_path / "B100" / "HR" / "a.png")
    folders = [tmp_path / "B100" / name for name in names]
    for folder in folders:
        image(folder / "a.png", 4 // scale)
    for folder in folders:
        [found] = find_test_set(tmp_path, "B100", degradation, scale)
        assert found.degraded == folder / "a.png"
        shutil.rmtree(folder)


def test_noise_and_scale_1_have_no_folders_of_their_own(tmp_path):
    image(tmp_path / "B100" / "HR" / "a.png")
    for name in ("lr/x1", "noisy", "lq"):
        image(tmp_path / "B100" / name / "a.png")
    for degradation in (GaussianNoise(scale=1, sigma=25), Bicubic(scale=1)):
        [found] = find_test_set(tmp_path, "B100", degradation, 1)
        assert found.degraded is None


@pytest.mark.parametrize("folder", [*CLEAN, "B100_HQ", "BSD100GT", "bsds100_original"])
def test_clean_images_are_found_beside_others(folder, tmp_path):
    path = image(tmp_path / "BSD100" / folder / "a.png")
    image(tmp_path / "BSD100" / "preview.png")
    [found] = find_test_set(tmp_path, "B100", GaussianNoise(scale=1, sigma=25), 1)
    assert found.clean == path and found.degraded is None


@pytest.mark.parametrize(
    ("degradation", "scale", "folder"), [(d, s, f) for d, s, fs in DEGRADED for f in fs]
)
def test_degraded_images_are_found_and_may_be_made_again(degradation, scale, folder, tmp_path):
    clean = image(tmp_path / "B100" / "HR" / "a.png")
    stem = "ax2" if scale == 2 else "a"
    degraded = image(tmp_path / "B100" / folder / f"{stem}.png", 4 // scale)
    [found] = find_test_set(tmp_path, "B100", degradation, scale)
    assert (found.clean, found.degraded) == (clean, degraded)
    [again] = find_test_set(tmp_path, "B100", degradation, scale, made=True)
    # What no degradation can make comes from the files, whatever is asked for.
    assert again.degraded == (degraded if degradation is None else None)


def test_folders_of_another_scale_or_quality_are_not_taken(tmp_path):
    image(tmp_path / "B100" / "HR" / "a.png")
    image(tmp_path / "B100" / "LR_bicubic" / "X3" / "ax3.png")
    image(tmp_path / "B100" / "LQ" / "40" / "a.png")
    image(tmp_path / "B100" / "LR_q40" / "a.png")
    compressed = BicubicJpeg(scale=2, quality=30)
    for degradation, scale in (
        (Bicubic(scale=2), 2),
        (Jpeg(scale=1, quality=30), 1),
        (compressed, 2),
    ):
        [found] = find_test_set(tmp_path, "B100", degradation, scale)
        assert found.degraded is None
    image(tmp_path / "SIDD" / "HR" / "a.png")
    with pytest.raises(ImageError, match="needs a folder of degraded images, such as 'input'"):
        find_test_set(tmp_path, "SIDD", None, 1)


@pytest.mark.parametrize(
    ("name", "clean", "degraded", "degradation"),
    [
        ("Set5", "Set5/a.png", None, Bicubic(scale=2)),
        ("Set5", "set5/HR/a.png", "set5/LR_bicubic/X2/ax2.png", Bicubic(scale=2)),
        ("Urban100", "Urban100/GTmod12/a.png", "Urban100/LRbicx2/a.png", Bicubic(scale=2)),
        ("B100", "BSDS100/HR/a.png", None, Bicubic(scale=2)),
        (
            "DIV2K",
            "DIV2K/DIV2K_valid_HR/a.png",
            "DIV2K/DIV2K_valid_LR_bicubic/X2/ax2.png",
            Bicubic(scale=2),
        ),
        (
            "Manga109",
            "Manga109/HR/ARMS.png",
            "Manga109/LR_bicubic/X2/ARMS_LRBI_x2.png",
            Bicubic(scale=2),
        ),
        ("CBSD68", "CBSD68HQ/a.png", None, GaussianNoise(scale=1, sigma=15)),
        ("Classic5", "classic5/Classic5_HQ/a.png", "classic5/Classic5_LQ/10/a.png", "jpeg"),
        ("SIDD", "SIDD/target_crops/a.png", "SIDD/input_crops/a.png", None),
    ],
)
def test_layouts(tmp_path, name, clean, degraded, degradation):
    if degradation == "jpeg":
        degradation = Jpeg(scale=1, quality=10)
    photo_file(tmp_path / clean)
    if degraded:
        photo_file(tmp_path / degraded, size=(12, 15))
    [image] = find_test_set(tmp_path, name, degradation, degradation.scale if degradation else 1)
    assert image.clean == tmp_path / clean
    assert image.degraded == (tmp_path / degraded if degraded else None)
    if degraded and degradation:
        [made] = find_test_set(tmp_path, name, degradation, degradation.scale, made=True)
        assert made.degraded is None
    assert find_test_set(tmp_path, "Rain100H", degradation, 2) is None


def test_a_set_without_its_pairs_is_told(tmp_path):
    photo_file(tmp_path / "SIDD" / "target" / "a.png")
    with pytest.raises(ImageError, match=r"needs a folder of degraded images, .*'target'$"):
        find_test_set(tmp_path, "SIDD", None, 1)
    photo_file(tmp_path / "SIDD" / "input" / "b.png")
    with pytest.raises(ImageError, match="no degraded counterpart"):
        find_test_set(tmp_path, "SIDD", None, 1)


def test_pairs_of_a_set_are_found_by_name_scale_and_quality(tmp_path):
    for name in ("a", "b"):
        photo_file(tmp_path / "Set5" / "HR" / f"{name}.png")
    for scale, names in ((2, ("b", "a", "z")), (3, ("a", "b"))):
        for name in names:
            photo_file(tmp_path / "Set5" / "LR_bicubic" / f"X{scale}" / f"{name}x{scale}.png")
    for scale in (2, 3):
        found = find_test_set(tmp_path, "Set5", Bicubic(scale=scale), scale)
        assert [image.degraded.name for image in found] == [f"ax{scale}.png", f"bx{scale}.png"]
        assert all(image.degraded.parent.name == f"X{scale}" for image in found)
    for quality in (10, 40):
        photo_file(tmp_path / "LIVE1" / "LQ" / str(quality) / "a.png")
    photo_file(tmp_path / "LIVE1" / "HQ" / "a.png")
    [image] = find_test_set(tmp_path, "LIVE1", Jpeg(scale=1, quality=40), 1)
    assert image.degraded.parent.name == "40"


def test_every_file_of_a_validation_set_is_read_before_anything_starts(tmp_path):
    for side in ("clean", "degraded"):
        photo_file(tmp_path / side / "a.png")
    assert len(validation_images(str(tmp_path / "clean"), str(tmp_path / "degraded"))) == 1
    (tmp_path / "degraded" / "a.png").write_text("no image")
    with pytest.raises(ImageError, match="1 of 1 test images cannot be used"):
        validation_images(str(tmp_path / "clean"), str(tmp_path / "degraded"))


def test_a_set_has_all_its_names(tmp_path):
    """Whichever of its names is asked for, and whichever its folder has; and unpacked twice."""
    photo_file(tmp_path / "B100" / "a.png")
    for name in ("B100", "BSD100", "bsds100"):
        assert find_test_set(tmp_path, name, Bicubic(scale=2), 2)[0].name == "a"
    photo_file(tmp_path / "Set5" / "Set5" / "HR" / "b.png")
    for root in (tmp_path, tmp_path / "Set5", tmp_path / "Set5" / "Set5"):
        assert find_test_set(root, "Set5", Bicubic(scale=2), 2)[0].name == "b"


def test_a_set_as_it_is_downloaded(tmp_path):
    """DIV2K's folders of clean and degraded images, in a folder of any name."""
    clean = photo_file(tmp_path / "DIV2K_valid_HR" / "0801.png")
    small = photo_file(tmp_path / "DIV2K_valid_LR_bicubic" / "X2" / "0801x2.png", size=(12, 15))
    [image] = find_test_set(tmp_path, "DIV2K", Bicubic(scale=2), 2)
    assert (image.clean, image.degraded) == (clean, small)


def test_the_current_folder_is_a_test_set_by_its_own_name(tmp_path, monkeypatch):
    photo_file(tmp_path / "Set5" / "Set5_HR" / "a.png")
    (tmp_path / "Set6" / "Set5_HR").mkdir(parents=True)
    for name, expected in (("Set5", True), ("Set6", False)):
        monkeypatch.chdir(tmp_path / name)
        assert is_test_set(Path()) == expected
    monkeypatch.chdir(tmp_path / "Set5")
    [found] = find_test_set(".", "set5", Bicubic(scale=2), 2)
    assert found.clean == Path("Set5_HR/a.png")
    (tmp_path / "pan").mkdir()
    with pytest.raises(ImageError, match=f"; name '{tmp_path}', the folder above it"):
        find_test_set(".", "set5", Bicubic(scale=2), 2, guides=["Pan"])


def test_folders_that_are_not_the_degraded_images_are_told(tmp_path, caplog):
    caplog.set_level("WARNING", logger="zoo")
    photo_file(tmp_path / "Set5" / "HR" / "a.png")
    (tmp_path / "Set5" / "readme.txt").write_text("no folder")
    (tmp_path / "Set5" / ".hidden").mkdir()
    find_test_set(tmp_path, "Set5", BicubicJpeg(scale=4, quality=10), 4)
    assert not caplog.text
    photo_file(tmp_path / "Set5" / "LR_q20" / "a.png")
    find_test_set(tmp_path, "Set5", BicubicJpeg(scale=4, quality=10), 4, made=True)
    assert not caplog.text  # --degrade says so itself
    [image] = find_test_set(tmp_path, "Set5", BicubicJpeg(scale=4, quality=10), 4)
    assert image.degraded is None
    assert "none of LR_q20 is a folder of its degraded images, such as lr_q10" in caplog.text


def test_noisy_blocks_of_the_benchmark_may_lie_beside_those_of_the_validation(tmp_path):
    names = ("ValidationGtBlocks", "ValidationNoisyBlocks", "BenchmarkNoisyBlocks")
    (tmp_path / "SIDD").mkdir()
    for name in names:
        blocks = {"blocks": np.zeros((1, 1, 4, 4, 3), np.uint8)}
        savemat(tmp_path / "SIDD" / f"{name}Srgb.mat", blocks)
    [found] = find_test_set(tmp_path, "SIDD", None, 1)
    assert found.degraded.name == "ValidationNoisyBlocksSrgb.mat"


def test_of_folders_that_differ_in_case_the_first_is_taken(tmp_path):
    for name in ("hr", "hR", "Hr", "HR"):
        image(tmp_path / "Set" / name / "a.png")
    [found] = find_test_set(tmp_path, "Set", Bicubic(scale=2), 2)
    assert found.clean == min(tmp_path.glob("Set/*")) / "a.png"


def test_one_matlab_file_of_sidd_is_told(tmp_path):
    (tmp_path / "SIDD").mkdir()
    (tmp_path / "SIDD" / "ValidationNoisyBlocksSrgb.mat").write_bytes(b"")
    with pytest.raises(ImageError, match="its MATLAB files are ValidationNoisyBlocks"):
        find_test_set(tmp_path, "SIDD", None, 1)


def test_files_and_folders_are_named_in_their_sequence(tmp_path):
    for name in ("c", "a", "d", "b"):
        (tmp_path / "SIDD" / name).mkdir(parents=True)
        (tmp_path / "SIDD" / f"{name}NoisyBlocks.mat").write_bytes(b"")
    (tmp_path / "SIDD" / "file.txt").write_bytes(b"")
    assert set_names(tmp_path / "SIDD") == ["a", "b", "c", "d"]
    names = ", ".join(f"{name}NoisyBlocks.mat" for name in "abcd")
    with pytest.raises(ImageError, match=f"its MATLAB files are {names}$"):
        find_test_set(tmp_path, "SIDD", None, 1)
    with pytest.raises(ImageError, match="nowhere' does not exist; check the path"):
        set_names(tmp_path / "nowhere")


def test_the_folder_of_a_guide_is_found_in_any_case(tmp_path):
    image(tmp_path / "Set" / "HR" / "a.png")
    guide = image(tmp_path / "Set" / "PAN" / "a.png")
    [found] = find_test_set(tmp_path, "Set", Bicubic(scale=2), 2, guides=["Pan"])
    assert found.guides == (guide,)


def test_blocks_of_other_names_belong_together_if_there_is_one_of_each(tmp_path):
    folder = tmp_path / "SIDD"
    folder.mkdir()
    blocks = np.zeros((2, 1, 4, 4, 3), np.uint8)
    for name in ("my_gtblocks", "their_noisyblocks"):
        savemat(folder / f"{name}.mat", {"blocks": blocks})
    found = find_test_set(tmp_path, "SIDD", None, 1)
    assert [image.degraded.name for image in found] == ["their_noisyblocks.mat"] * 2
    savemat(folder / "my_noisyblocks.mat", {"blocks": blocks})  # named alike: this is the one
    found = find_test_set(tmp_path, "SIDD", None, 1)
    assert [image.degraded.name for image in found] == ["my_noisyblocks.mat"] * 2
    (folder / "my_noisyblocks.mat").unlink()
    savemat(folder / "more_noisyblocks.mat", {"blocks": blocks})
    with pytest.raises(ImageError, match="its MATLAB files are more_noisyblocks"):
        find_test_set(tmp_path, "SIDD", None, 1)


def test_guides_of_a_validation_are_read_before_anything_starts(tmp_path):
    image(tmp_path / "hr" / "a.png")
    image(tmp_path / "pan" / "a.png")
    source, guides = str(tmp_path / "hr"), [str(tmp_path / "pan")]
    assert len(validation_images(source, guides=guides)) == 1
    (tmp_path / "pan" / "a.png").write_text("no image")
    with pytest.raises(ImageError, match=r"1 of 1 test images cannot be used: .*pan/a\.png"):
        validation_images(source, guides=guides)


def test_a_file_that_has_the_name_of_a_folder_is_no_folder(tmp_path):
    (tmp_path / "LQ").write_text("a note")
    (tmp_path / "lq" / "10").mkdir(parents=True)
    assert _subfolder(tmp_path, ["lq/10"]) == tmp_path / "lq" / "10"
