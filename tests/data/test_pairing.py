"""Pairs of files: by folder, then by name; what is not sure is refused before training."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.toy import register_toy
from zoo.data import PairDataset, Photo, load_training_photos, write_photo
from zoo.data.pair_folders import check_order, folder_pair
from zoo.data.pair_names import (
    CLEAN,
    DEGRADED,
    MAKERS,
    topics,
    without_roles,
    without_scale,
    words,
)
from zoo.data.pairing import counterparts
from zoo.data.testsets import find_test_set, validation_images
from zoo.errors import ImageError
from zoo.evaluation import Protocol
from zoo.recipe import build
from zoo.training.photo_task import PhotoTask
from zoo.training.settings import DataSettings


def image(path, level, side=8, channels=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_photo(path, Photo(np.full((side, side, channels), level, np.float32)))


def levels(clean, degraded, scale):
    """The levels of all pairs that a training draws."""
    found = PairDataset(
        load_training_photos(clean), load_training_photos(degraded),
        scale=scale, patch=4, channels=3, length=40, seed=0,
    )  # fmt: skip
    pairs = (found[number] for number in range(40))
    return {(round(float(c.mean()), 2), round(float(d.mean()), 2)) for d, c in pairs}


def test_equal_names_in_two_folders_are_paired_by_folder(tmp_path):
    for folder, level in (("oak", 0.2), ("elm", 0.6)):
        image(tmp_path / f"{folder}_gt" / "0001.png", level)
        image(tmp_path / f"{folder}_lq" / "0001.png", level + 0.2, side=4)
    clean, degraded = (
        [str(tmp_path / f"{folder}_{end}") for folder in ("oak", "elm")] for end in ("gt", "lq")
    )
    expected = {(0.2, 0.4), (0.6, 0.8)}
    assert levels(clean, degraded, 2) == expected
    with pytest.raises(ImageError, match=r"another order: '.*oak_gt' would belong to '.*elm_lq'"):
        levels(clean, degraded[::-1], 2)
    # A folder that counts twice, and one with two degraded versions.
    assert levels([clean[0], *clean], [degraded[0], *degraded], 2) == expected
    both = levels([clean[0], clean[0]], [degraded[0], str(tmp_path / "elm_lq")], 2)
    assert both == {(0.2, 0.4), (0.2, 0.8)}


def test_equal_names_are_refused_where_folders_do_not_tell(tmp_path):
    clean = ["A/0001.png", "A/0002.png", "B/0001.png"]
    with pytest.raises(ImageError, match=r"'A/0001.png' and 'B/0001.png' have the same name"):
        counterparts(clean, ["lq/0001.png", "lq/0002.png"], 1)
    assert counterparts(["A/1.png", "B/2.png"], ["lq/2.png", "lq/1.png"], 1) == [1, 0]


def files_in(folders):
    return [f"{folder}/1.png" for folder in folders]


@pytest.mark.parametrize(
    ("clean", "degraded"),
    [
        (["A/train/gt", "B/train/gt"], ["A/train/lq", "B/train/lq"]),
        (["A/hr/images", "B/hr/images"], ["A/lr/images", "B/lr/images"]),
        (["A/HR/train", "B/HR/train"], ["A/LR/train", "B/LR/train"]),
        (["a/HR/2", "b/HR/2"], ["a/LR/2", "b/LR/2"]),
        (["DIV2K_HR", "Flickr2K_HR"], ["DIV2K_LR_jpeg", "Flickr2K_LR_jpeg"]),
        (["a_targets", "b_targets"], ["a_inputs", "b_inputs"]),
        (["gtA", "gtB"], ["lqA", "lqB"]),
        (["HR1", "HR2"], ["LR1", "LR2"]),
        (["rain/gt", "noise/gt"], ["rain/input", "noise/input"]),
        (["X/gt", "X_more/clean"], ["X/lq", "X_more/noisy"]),
        (["Rain100H/norain", "Rain100L/norain"], ["Rain100H/rain", "Rain100L/rain"]),
        (["ä/gt", "ö/gt"], ["ä/lq", "ö/lq"]),
    ],
)
def test_whole_paths_say_the_order_of_folders_with_equal_names(clean, degraded):
    assert counterparts(files_in(clean), files_in(degraded), 2) == [0, 1]
    with pytest.raises(ImageError, match=r"in another order|the paths do not say which"):
        counterparts(files_in(clean), files_in(degraded[::-1]), 2)


def test_two_folders_of_clean_images_may_share_one_of_degraded_ones():
    clean, degraded = ["a/HR1/1.png", "a/HR2/2.png"], ["a/LR/1.png", "a/LR/2.png"]
    pairs = [folder_pair([name], degraded, 1) for name in clean]
    check_order(pairs)  # each has its own files in it
    again = folder_pair(["a/HR2/1.png"], degraded, 1)
    with pytest.raises(ImageError, match="hold files of the same names"):
        check_order([pairs[0], again])


def test_a_pair_of_folders_has_the_names_of_each_side():
    pair = folder_pair(["a/HR/1.png", "a/HR/2.png"], ["a/LR/1x2.png", "a/LR/3x2.png"], 2)
    assert (pair.clean, pair.degraded) == ("a/HR", "a/LR")
    assert (pair.names, pair.others) == ({"1", "2"}, {"1", "3"})


@pytest.mark.parametrize(
    ("clean", "degraded"),
    [
        (["A_gt", "B_gt"], ["B_lq", "C_lq"]),
        (["A_gt", "B_gt"], ["A_lq", "C_lq"]),
        (["A_gt", "B_gt"], ["lq", "lq"]),
        (["x", "y"], ["p", "q"]),
        (["A/B/gt", "B/A/gt"], ["A/B/lq", "B/A/lq"]),
        (["rain_city", "snow_wood"], ["rain_wood", "snow_city"]),
    ],
)
def test_folders_with_equal_names_whose_paths_say_no_order_are_refused(clean, degraded):
    with pytest.raises(ImageError, match=r"hold files of the same names, and the paths do not say"):
        counterparts(files_in(clean), files_in(degraded), 2)


def test_an_image_is_not_its_own_degraded_version(tmp_path):
    image(tmp_path / "one" / "1.png", 0.5)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    clean = str(tmp_path / "one")
    for other in (clean, str(tmp_path / "link"), f"{clean}/../one"):
        with pytest.raises(ImageError, match=r"1\.png' is its own degraded version; give two fold"):
            levels(clean, other, 1)
        with pytest.raises(ImageError, match=r"1\.png' is its own degraded version; give two fold"):
            validation_images(clean, other)
    # A network that colours gray images learns from one folder.
    assert validation_images(clean, clean, alike=False)


@pytest.mark.parametrize(
    ("degraded", "clean"),
    [
        ("A_noisy/1.png", "A_gt/1.png"),
        ("SIDD/input/1.png", "SIDD/target/1.png"),
        ("blurs/1.png", "sharps/1.png"),
        ("set/img_LR.png", "set2/img_HR.png"),
        ("lqA/1.png", "gtA/1.png"),
    ],
)
def test_sides_that_are_exchanged_are_refused(degraded, clean):
    with pytest.raises(ImageError, match=r"clean and degraded images are exchanged: '.*; exchange"):
        counterparts([degraded], [clean], 1)
    assert counterparts([clean], [degraded], 1) == [0]
    assert counterparts(["noisy/gt/1.png"], ["noisy/in/1.png"], 1) == [0]  # the set's name


def test_a_counterpart_in_the_folder_of_others_is_not_taken():
    clean, degraded = ["A/1.png", "B/2.png"], ["C/2.png", "D/1.png"]
    with pytest.raises(ImageError, match=r"2 of 2 pairs do not match: 'A/1\.png' has no degraded"):
        counterparts(clean, degraded, 1)


@pytest.mark.parametrize(
    ("clean", "degraded"),
    [
        ("0801.png", "0801.png"),
        ("0801.png", "0801.jpg"),
        ("0801.png", "0801x2.png"),
        ("0801.png", "0801_x2.png"),
        ("0801.png", "0801-X2.PNG"),
        ("img.png", "img_LR.png"),
        ("img_HR.png", "img_LR.png"),
        ("img_HR.png", "img_LRx2.png"),
        ("Canon_001_HR.png", "Canon_001_LR2.png"),
        ("img_001_SRF_2_HR.png", "img_001_SRF_2_LR.png"),
        ("0001_GT_SRGB_010.PNG", "0001_NOISY_SRGB_010.PNG"),
        ("norain-001.png", "rain-001.png"),
        ("7_gt.png", "7_hazy.jpg"),
        ("img_HR_x2.png", "img_x2.png"),
        ("x2.png", "x2.png"),
        ("0001.png", "0001x2m.png"),
        ("0001.png", "0001x2w1.png"),
        ("0001_s001.png", "0001x2_s001.png"),
        ("0001_s1000.png", "0001x2m_s1000.npy"),
        ("img_HR_s001.png", "img_LRx2_s001.png"),
        ("normal00001.png", "low00001.png"),
        ("p_1_x1.png", "p_1_x2.png"),
        ("imgHR.png", "imgLR.png"),
        ("gtA.png", "lqA.png"),
        ("1_targets.png", "1_inputs.png"),
    ],
)
def test_usual_names_pair(clean, degraded):
    ours, theirs = [f"a/{clean}", "a/other.png"], ["b/other.png", f"b/{degraded}"]
    assert counterparts(ours, theirs, 2) == [1, 0]


def test_names_of_other_scales_and_words_inside_names_do_not_pair():
    others = [("lowland", "land"), ("1_low_2", "1_2_3"), ("1_s001", "1x2_s002")]
    scaled = [("0801", "0801x4"), ("1_s001", "1x4_s001"), ("1_001", "1x2_001")]
    for clean, degraded in [*others, *scaled]:
        with pytest.raises(ImageError, match="has no degraded counterpart"):
            counterparts([f"a/{clean}.png"], [f"b/{degraded}.png"], 2)
    assert without_scale("0001x4", 2) == "0001x4" and without_scale("x2", 2) == "x2"
    assert without_roles("LR", 2) == "lr" and without_roles("Low_Tide_HR", 2) == "tide"


@pytest.mark.parametrize(
    ("clean", "degraded", "message"),
    [
        (["1.png"], ["1.png", "1.jpg"], r"'a/1.png' may belong to 'b/1.png' or to 'b/1.jpg'"),
        (["1.png"], ["1.bmp", "1.jpg"], "'b/1.bmp' and 'b/1.jpg' have the same name"),
        (["1.png"], ["1.png", "1x2.png"], "may belong to 'b/1.png' or to 'b/1x2.png'"),
        (["1.png"], ["1.bmp", "1.gif", "1.jpg"], "match: 'b/1.bmp' and 'b/1.gif' have the same"),
        (["1.png", "1.bmp"], ["1.jpg"], "'a/1.png' and 'a/1.bmp' have the same name"),
        (["1_HR.png", "1_GT.png"], ["1_LR.png"], "'a/1_HR.png' and 'a/1_GT.png' have the same"),
    ],
)
def test_what_is_not_sure_is_refused(clean, degraded, message):
    with pytest.raises(ImageError, match=message):
        counterparts([f"a/{name}" for name in clean], [f"b/{name}" for name in degraded], 2)


def test_exact_names_count_more_than_words_in_them():
    names = ["low_1.png", "high_1.png", "1.png", "1.bmp"]
    ours, theirs = [f"a/{name}" for name in names], [f"b/{name}" for name in names[::-1]]
    assert counterparts(ours, theirs, 1) == [3, 2, 1, 0]


@pytest.fixture
def toy():
    register_toy()


def pairs_task(folder, scale=2, **validation):
    network = build({"network": {"type": "toy", "scale": scale}})
    settings = DataSettings(
        photos=str(folder / "gt"), degraded=str(folder / "lq"), patch=2, batch=1,
        validate=str(folder / "gt"), validate_degraded=str(folder / validation.get("lq", "lq")),
    )  # fmt: skip
    return PhotoTask(settings, network, protocol=Protocol(), iterations=1, seed=0)


def test_sizes_and_channels_are_checked_before_training(tmp_path, toy):
    for number in range(3):
        image(tmp_path / "gt" / f"{number}.png", 0.5)
        for folder in ("lq", "bad"):
            image(tmp_path / folder / f"{number}.png", 0.5, side=4)
    assert pairs_task(tmp_path)
    image(tmp_path / "bad" / "0.png", 0.5, side=5)
    image(tmp_path / "bad" / "2.png", 0.5, side=4, channels=1)
    with pytest.raises(ImageError) as error:
        pairs_task(tmp_path, lq="bad")  # the validation's
    said = str(error.value)
    assert said.startswith("2 of 3 test images cannot be used: ")
    assert "gt/0.png' has 8x8 pixels and " in said and "bad/0.png' 5x5, which is not 1/2" in said
    (tmp_path / "lq").rename(tmp_path / "good")
    (tmp_path / "bad").rename(tmp_path / "lq")
    with pytest.raises(ImageError, match=r"2 of 3 pairs do not match: .*; '.*gt/2\.png' has 3 ch"):
        pairs_task(tmp_path, lq="good")


def test_names_are_compared_before_files_are_read(tmp_path, toy):
    (tmp_path / "gt").mkdir()
    (tmp_path / "lq").mkdir()
    for path in ("gt/1.png", "gt/2.png", "lq/1.png", "lq/3.png"):
        (tmp_path / path).write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"1 of 2 pairs do not .*gt/2\.png' has no degraded"):
        pairs_task(tmp_path)


def test_test_sets_are_paired_by_the_same_rules(tmp_path):
    image(tmp_path / "Set" / "GT" / "1_GT.png", 0.5)
    image(tmp_path / "Set" / "input" / "1_NOISY.png", 0.6)
    [found] = find_test_set(tmp_path, "Set", None, 1)
    assert found.degraded.name == "1_NOISY.png"
    image(tmp_path / "Set" / "input" / "1_LQ.png", 0.6)
    with pytest.raises(ImageError, match=r"1_LQ\.png' and .*1_NOISY\.png' have the same"):
        find_test_set(tmp_path, "Set", None, 1)
    with pytest.raises(ImageError, match="have the same name"):
        validation_images(str(tmp_path / "Set" / "GT"), str(tmp_path / "Set" / "input"))


WORDS = {
    CLEAN: "gt hr hq clean sharp target original clear norain high normal",
    DEGRADED: "lr lrbi lq sr degraded noisy noise blur blurry input hazy haze rain rainy low",
    MAKERS: "bicubic unknown mild difficult wild",
}


@pytest.mark.parametrize("role", WORDS, ids=["clean", "degraded", "makers"])
def test_every_word_of_a_role_is_known(role):
    wanted = WORDS[role].split()
    assert sorted(role) == sorted(wanted)
    for word in wanted:
        for found in (word, f"{word}s", word.upper()):
            assert topics(words(f"tide_{found}")) == {"tide"}
            if role is not MAKERS:
                assert without_roles(f"7_{found}", 2) == "7"
