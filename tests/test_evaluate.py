"""Evaluation: protocols, scores, the table, weights by name, and every mistake named."""

from __future__ import annotations

import csv
import logging
import re
import zlib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from scipy.io import loadmat
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import zoo
from recipes import evaluate as command
from tests.helpers.author_layouts import sidd
from tests.helpers.evaluation import photo_file, run, weights_in
from tests.helpers.networks import Nearest
from tests.helpers.training import Rank
from zoo.checkpoints import shipped_weights
from zoo.checkpoints.scored import scored_weights
from zoo.data import (
    Bicubic,
    BicubicJpeg,
    Degradation,
    GaussianNoise,
    read_photo,
    resize_bicubic,
)
from zoo.data.pixels import to_array, to_tensor, with_channels
from zoo.data.testsets import TestImage
from zoo.errors import ImageError, RecipeError, ZooError
from zoo.evaluation import (
    Protocol,
    Restored,
    Score,
    evaluate,
    exact,
    mean_score,
    restore_clean,
    score,
    strip,
)
from zoo.evaluation.keeping import check_nothing_is_replaced, image_keeper
from zoo.evaluation.report import Published, SetResult, markdown, rows
from zoo.evaluation.settings import EvaluateSettings, evaluate_settings, protocol_of
from zoo.inference import RestoreSettings, restore_photo
from zoo.metrics import psnr, psnr_y, ssim_y
from zoo.metrics.volume import ssim_volume
from zoo.networks import Network
from zoo.recipe import load_recipe


@pytest.fixture
def weights(tmp_path):
    return weights_in(tmp_path)


def test_the_table_and_its_files(tmp_path, weights, capsys):
    data = tmp_path / "data"
    for index in range(2):
        photo_file(data / "Set5" / f"{index}.png", index)
    photo_file(data / "Urban100" / "HR" / "u.png", 5)
    photo_file(data / "Urban100" / "LR_bicubic" / "X2" / "ux2.png", 6, (12, 15))
    out = tmp_path / "out"
    assert run(*weights, "--data", data, "-o", out, "--save-images", tmp_path / "kept") == 0
    table = capsys.readouterr().out
    assert (out / "summary.md").read_text() == table
    assert "Paper:" not in table  # the source is that of another recipe
    assert b"\r" not in (out / "summary.csv").read_bytes() + (out / "images.csv").read_bytes()
    table = list(csv.DictReader((out / "summary.csv").open()))
    assert [(row["set"], row["images"], row["inputs"]) for row in table] == [
        ("Set5", "2", "made"),
        ("Urban100", "1", "files"),
    ]
    images = list(csv.DictReader((out / "images.csv").open()))
    assert [row["image"] for row in images] == ["0", "1", "u"]
    scores = ["baseline_psnr", "baseline_ssim", "psnr", "ssim"]
    paper = ["paper_psnr", "paper_ssim", "difference_psnr"]
    assert list(table[0]) == ["set", "images", "inputs", *scores, *paper, "exact", "baseline_exact"]
    assert list(images[0]) == ["set", "image", *scores[2:], *scores[:2]]

    # By hand: the first image, whole, on Y with 2 pixels cut.
    network = zoo.load(tmp_path / "a.safetensors")
    clean = read_photo(data / "Set5" / "0.png").color_HWC
    tensor = to_tensor(clean)
    with torch.inference_mode():
        small = Bicubic(scale=2)(tensor, np.random.default_rng(0))
        restored = to_array(network(small[None])[0].clamp(0, 1))
    assert float(images[0]["psnr"]) == pytest.approx(psnr_y(restored, clean, crop_border=2))
    assert float(images[0]["ssim"]) == pytest.approx(ssim_y(restored, clean, crop_border=2))
    mean = (float(images[0]["psnr"]) + float(images[1]["psnr"])) / 2
    assert table[0]["psnr"] == f"{mean:.2f}" and table[0]["paper_psnr"] == "30.50"
    assert table[0]["difference_psnr"] == f"{mean - 30.5:+.2f}"
    assert table[1]["paper_psnr"] == "-"  # the recipe that this one extends has a score
    kept = read_photo(tmp_path / "kept" / "Set5" / "0.png").color_HWC
    assert np.abs(kept - restored).max() <= 0.5 / 255 + 1e-6

    assert run(*weights, "--data", data / "Set5", "-o", out, "--ensemble", "--sets", "Set5") == 0
    assert "31.00 / 0.9100" in capsys.readouterr().out


def test_the_source_of_scores_stands_only_where_scores_stand(tmp_path, capsys):
    """A table of plain scores is not the source of a report with self-ensemble."""
    recipe, *weights = weights_in(tmp_path)
    photo_file(tmp_path / "Set5" / "a.png")
    words = [*weights, "--data", tmp_path, "-o", tmp_path / "out"]
    text = recipe.read_text().replace("0.91]}}", "0.91]}, source: Table 5}")
    for given, plain, ensemble in (
        (text, True, True),
        (text.replace(", paper_ensemble: {Set5: [31, 0.91]}", ""), True, False),
    ):
        recipe.write_text(given)
        assert run(recipe, *words) == 0
        assert ("Paper: Table 5." in capsys.readouterr().out) is plain
        assert run(recipe, *words, "--ensemble") == 0
        assert ("Paper: Table 5." in capsys.readouterr().out) is ensemble


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_weights())
def test_the_cards_of_the_weights_tell_what_evaluation_finds(name, tmp_path):
    """The mean over the held-out photographs, to the two decimals of the card."""
    assert run(name, "-w", name, "-o", tmp_path) == 0
    [row] = csv.DictReader((tmp_path / "summary.csv").open())
    card = (Path(zoo.__file__).parent / "weights" / f"{name}.md").read_text()
    baseline, ours = re.search(r"\| \*\*mean\*\* \| ([\d.]+) \| ([\d.]+) \|", card).groups()
    assert float(row["baseline_psnr"]) == pytest.approx(float(baseline), abs=0.0101)
    assert float(row["psnr"]) == pytest.approx(float(ours), abs=0.0101)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "/nowhere"], "'/nowhere' does not exist"),
        (["--data", "DATA", "--sets", "Set6"], "'Set6' is not in"),
        (["-w", "missing.pth"], "does not exist"),
    ],
)
def test_mistakes(tmp_path, weights, capsys, words, message):
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    words = [word.replace("DATA", str(tmp_path / "data")) for word in words]
    assert run(*weights, *words, "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert message in said
    assert run("mambair_classic_x2", "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "no weights ship" in said


def test_another_spelling_of_a_set_stands_beside_the_papers_score(
    tmp_path, weights, capsys, monkeypatch
):
    photo_file(tmp_path / "data" / "Set5" / "HR" / "a.png")
    words = [*weights, "-o", tmp_path / "out"]
    assert run(*words, "--data", tmp_path / "data", "--sets", "set5", "SET5") == 0
    monkeypatch.chdir(tmp_path / "data" / "Set5")
    assert run(*words, "--data", ".") == 0
    assert capsys.readouterr().out.count("| Set5 | 1 | made |") == 2
    [row] = csv.DictReader((tmp_path / "out" / "summary.csv").open())
    assert row["paper_psnr"] == "30.50"


def test_a_folder_without_the_recipes_sets_is_told_by_name(tmp_path, weights, capsys):
    photo_file(tmp_path / "data" / "RealSR" / "a.png")
    assert run(*weights, "--data", tmp_path / "data", "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "has none of the recipe's test sets (Set5, Set14, B100, Urban100, Manga109)" in said
    assert "with --sets: RealSR" in said
    assert run(*weights, "--data", tmp_path / "data" / "RealSR", "-o", tmp_path / "out") == 0
    assert "| RealSR | 1 | made |" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_told_before_the_scoring(tmp_path, weights, capsys):
    path = photo_file(tmp_path / "data" / "Set5" / "a.png")
    (tmp_path / "out" / "summary.md").mkdir(parents=True)
    for out in (path, tmp_path / "out"):
        assert run(*weights, "--data", tmp_path / "data", "-o", out) == 2
        said = capsys.readouterr()
        assert "cannot write" in said.err and not said.out


def test_a_folder_without_images_is_told(tmp_path, weights, capsys):
    recipe, *rest = weights
    recipe.write_text(recipe.read_text().replace("evaluate: {", "evaluate: {datasets: [], "))
    (tmp_path / "empty").mkdir()
    assert run(recipe, *rest, "--data", tmp_path / "empty", "-o", tmp_path / "out") == 2
    assert f"{tmp_path / 'empty'} has no images; check the path" in capsys.readouterr().err


def test_processes_beside_the_first_write_and_say_nothing(
    tmp_path, weights, capsys, caplog, monkeypatch
):
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    words = [*weights, "--data", tmp_path / "data", "-o", tmp_path / "out"]
    for rank in (1, 0):
        monkeypatch.setattr(
            command, "process_group", lambda rank=rank: nullcontext(Rank(rank, 2, {}))
        )
        with caplog.at_level(logging.INFO):
            assert run(*words) == 0
        said = bool(rank == 0)
        assert bool(capsys.readouterr().out) == (tmp_path / "out").exists() == said
        assert ("weights: " in caplog.text) == said


def test_protocols():
    assert Protocol().for_scale(3) == ("y", 3) and Protocol().for_scale(1) == ("all", 0)
    assert Protocol(channel="all", crop=7).for_scale(2) == ("all", 7)
    assert evaluate_settings(load_recipe("mambair_dn25")).paper["Kodak24"] == (32.99,)
    assert evaluate_settings(load_recipe("mambair_light_x3_gen_b")).paper["Set5"][0] == 34.72
    assert evaluate_settings(load_recipe("mambair_classic_x2_mlp")).paper_ensemble is None


def test_noise_is_scored_without_clipping_its_input(tmp_path):
    network = zoo.build("mambair_dn25", dim=30, depths=[1]).eval()
    path = photo_file(tmp_path / "a.png", size=(16, 16))
    [found] = evaluate(network, [TestImage("a", path)], GaussianNoise(scale=1, sigma=25))
    clean = read_photo(path).color_HWC
    assert found.baseline_psnr == pytest.approx(20.7, abs=1.5) and found.name == "a"
    with pytest.raises(ImageError, match="for a clean image of"):
        restore_clean(
            network,
            to_tensor(clean),
            None,
            degraded_IHW=torch.rand(3, 8, 16),
        )
    assert psnr(clean, clean) == np.inf
    assert mean_score([found]).psnr == found.psnr


class Seeded(Degradation):
    """Shows the seed that it is called with."""

    scale = 1

    def __init__(self):
        self.seeds = []

    def __call__(self, clean_CHW, rng):
        raise AssertionError("test images are made by for_test")

    def for_test(self, clean_CHW, seed):
        self.seeds.append(seed)
        return clean_CHW


def test_each_test_image_is_degraded_by_a_seed_of_its_own_name(tmp_path):
    images = [TestImage(name, photo_file(tmp_path / f"{name}.png")) for name in "abc"]
    degradation = Seeded()
    for _ in range(2):
        evaluate(Nearest(1), images, degradation)
    evaluate(Nearest(1), images[2:], degradation)
    seeds = [zlib.crc32(name) for name in (b"a", b"b", b"c")]
    assert degradation.seeds == [*seeds, *seeds, seeds[2]]


def reference_scores(restored, clean, crop, luma):
    """PSNR and SSIM by scikit-image of 8-bit images, RGB or Y."""
    a, b = (np.floor(np.clip(x, 0, 1) * 255 + 0.5) for x in (restored, clean))
    inside = np.s_[crop : -crop or None, crop : -crop or None]
    if luma:
        a, b = (rgb2ycbcr(x.astype(np.uint8))[inside][..., :1] for x in (a, b))
    else:
        a, b = a[inside], b[inside]
    ssim = structural_similarity(
        a, b, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    return peak_signal_noise_ratio(b, a, data_range=255), ssim


@pytest.mark.parametrize(
    ("protocol", "scale", "crop", "luma"),
    [
        (None, 3, 3, True),
        (None, 1, 0, False),
        (Protocol(channel="all"), 3, 3, False),
        (Protocol(channel="y", crop=5), 1, 5, True),
    ],
)
def test_scores_of_network_and_baseline_are_those_of_the_protocol(
    tmp_path, protocol, scale, crop, luma
):
    """The network repeats pixels; the baseline is bicubic, or the degraded image itself."""
    path = photo_file(tmp_path / "a.png", size=(50, 40))
    seen = {}
    degradation = Bicubic(scale=3) if scale == 3 else GaussianNoise(scale=1, sigma=50)
    [found] = evaluate(
        Nearest(scale),
        [TestImage("a", path)],
        degradation,
        protocol=protocol,
        seen=seen.__setitem__,
    )
    clean = read_photo(path).color_HWC[: 50 // scale * scale, : 40 // scale * scale]
    degraded = degradation.for_test(to_tensor(clean), 0)
    baseline = resize_bicubic(degraded[None], scale)[0] if scale > 1 else degraded
    repeated = to_array(degraded).repeat(scale, axis=0).repeat(scale, axis=1)
    expected = (
        *reference_scores(repeated, clean, crop, luma),
        *reference_scores(to_array(baseline), clean, crop, luma),
    )
    np.testing.assert_allclose(found[1:5], expected, atol=1e-5)
    pictures = (to_array(degraded), to_array(baseline), repeated, clean)
    for shown, image in zip(seen["a"], pictures, strict=True):
        np.testing.assert_allclose(shown, np.clip(image, 0, 1), atol=1e-6)


@pytest.mark.parametrize(("channels", "out"), [(1, 3), (3, 1)])
def test_a_network_may_have_other_channels_out_than_in(tmp_path, channels, out):
    """Gray is the luma of the photo, whichever side it is on."""
    path, seen = photo_file(tmp_path / "a.png", size=(30, 40)), {}
    network = Mean(channels, out)
    [found] = evaluate(network, [TestImage("a", path)], Bicubic(scale=1), seen=seen.__setitem__)
    shown = seen["a"]
    photo = read_photo(path)
    gray = with_channels(photo.color_HWC, 1)
    assert [image.shape[2] for image in shown] == [channels, out, out, out]
    np.testing.assert_allclose(shown.clean, photo.color_HWC if out == 3 else gray, atol=1e-6)
    rounded = 0.501 / 255  # the degradation rounds to 8 bits
    given = gray if out == 3 else photo.color_HWC
    np.testing.assert_allclose(shown.degraded, given, rtol=0, atol=rounded)
    np.testing.assert_allclose(shown.baseline, np.repeat(gray, out, 2), rtol=0, atol=rounded)
    assert strip(shown).shape[2] == out and np.isfinite(found.psnr)
    restored = restore_photo(network, photo).color_HWC
    np.testing.assert_allclose(restored, shown.restored, rtol=0, atol=rounded)


@pytest.mark.parametrize(("channels", "out"), [(4, 2), (8, 3), (4, 1), (8, 1), (1, 2), (3, 8)])
def test_an_input_of_other_channels_is_no_baseline(channels, out):
    """No conversion is right, so scores and pictures have none."""
    clean, degraded = torch.rand(out, 12, 16), torch.rand(channels, 12, 16)
    found = restore_clean(Mean(channels, out), clean, None, degraded_IHW=degraded)
    assert found.baseline is None and found.degraded.shape == (12, 16, channels)
    given = score("a", found, 1, Protocol(photographic=False))
    assert np.isfinite(given.psnr) and np.isnan([given.baseline_psnr, given.baseline_ssim]).all()
    [row] = rows([SetResult("S", [given, given], "files")], Published())
    assert (row["baseline_psnr"], row["baseline_ssim"], row["baseline_exact"]) == ("-", "-", "0")
    assert strip(found).shape == (12, 3 * 16 + 2 * 6, 3 if out >= 3 else 1)


class Mean(Network):
    """The mean of the channels, in as many as come out."""

    def __init__(self, channels, out):
        super().__init__()
        self._set_sizes(scale=1, channels=channels, out_channels=out)
        self.unit = torch.nn.Parameter(torch.ones(()))

    def forward(self, image_BIHW):
        return image_BIHW.mean(1, keepdim=True).repeat(1, self.out_channels, 1, 1) * self.unit


def test_the_network_sees_noise_as_it_is_drawn_and_runs_as_it_is_told(tmp_path):
    image, seen = TestImage("a", photo_file(tmp_path / "a.png")), []

    def run(image_BIHW):
        seen.append(image_BIHW)
        return 0 * image_BIHW

    degradation = GaussianNoise(scale=1, sigma=50)
    [found] = evaluate(Nearest(1), [image], degradation, run=run)
    assert torch.equal(seen[0][0], degradation.for_test(image.read_clean(), 0))
    assert seen[0].min() < 0 and seen[0].max() > 1 and found.psnr < 9


def test_test_images_are_restored_whole_unless_told_otherwise(tmp_path):
    network = Nearest(1)
    image = TestImage("a", photo_file(tmp_path / "a.png", size=(600, 12)))
    evaluate(network, [image], GaussianNoise(scale=1, sigma=9))
    assert network.sizes == [(600, 12)]


def test_degraded_files_are_used_even_where_a_degradation_is_known(tmp_path):
    files = (photo_file(tmp_path / name, seed) for seed, name in enumerate(("a.png", "b.png")))
    image, seen = TestImage("a", *files), {}
    evaluate(Nearest(1), [image], GaussianNoise(scale=1, sigma=9), seen=seen.__setitem__)
    assert np.array_equal(seen["a"].restored, read_photo(tmp_path / "b.png").color_HWC)


def test_images_too_small_for_ssim_have_none_and_do_not_count_in_its_mean():
    def scored(side):
        clean = np.random.default_rng(side).random((side, side, 3))
        return score("a", Restored(clean, 0.9 * clean, 0.8 * clean, clean), 2)

    small, large = scored(14), scored(15)
    assert np.isnan(small.ssim) and np.isnan(small.baseline_ssim) and not np.isnan(large.ssim)
    mean = mean_score([small, large, scored(16)])
    assert mean.ssim == pytest.approx((large.ssim + scored(16).ssim) / 2)
    assert mean.psnr == pytest.approx((small.psnr + large.psnr + scored(16).psnr) / 3)
    assert np.isnan(mean_score([small]).ssim)


def test_a_result_of_nan_is_not_left_out_of_the_mean():
    scores = [Score("a", 30.0, 0.9, 20.0, 0.5), Score("b", float("nan"), float("nan"), 20.0, 0.5)]
    mean = mean_score(scores)
    assert np.isnan(mean.psnr) and mean.baseline_psnr == 20


def test_an_image_that_is_restored_exactly_is_counted_apart_and_not_in_the_mean():
    clean = np.random.default_rng(0).random((20, 20, 3))
    same = score("a", Restored(clean, 0.9 * clean, clean, clean), 1)
    other = score("b", Restored(clean, clean, 0.8 * clean, clean), 1)
    assert same.psnr == other.baseline_psnr == np.inf
    usual = score("c", Restored(clean, 0.5 * clean, 0.7 * clean, clean), 1)
    mean = mean_score([same, other, usual])
    assert (mean.psnr, mean.baseline_psnr) == (usual.psnr, usual.baseline_psnr)
    assert mean.ssim == pytest.approx((1 + other.ssim + usual.ssim) / 3)
    alone = mean_score([same, same])
    assert alone.psnr == np.inf and alone.baseline_psnr == pytest.approx(same.baseline_psnr)
    assert np.isnan(mean_score([same, other]).psnr)  # no image is in both means
    assert exact([same, other, same]) == (2, 1)
    results = [SetResult("S", [same, other, usual], "made")]
    [row] = rows(results, Published())
    assert (row["psnr"], row["exact"]) == (f"{usual.psnr:.2f}", "1")
    assert row["baseline_psnr"] == f"{usual.baseline_psnr:.2f}"
    line = markdown("title", "notes", results, Published(), "bicubic").splitlines()[-1]
    assert line.count("(1 exact, in neither mean)") == 2


@pytest.mark.parametrize("scale", [1, 2])
def test_all_images_of_a_score_are_between_0_and_1(scale):
    """The network sees its input as it is, but files and pictures have a range."""
    clean = torch.rand(3, 8, 12)
    given = clean[:, ::scale, ::scale] * 3 - 1
    seen = []

    def run(image_BIHW):
        seen.append(image_BIHW)
        return clean[None] * 3 - 1

    found = restore_clean(Nearest(scale), clean, None, degraded_IHW=given, run=run)
    assert torch.equal(seen[0][0], given)
    for image in (found.degraded, found.baseline, found.restored):
        assert image.min() == 0 and image.max() == 1
    assert np.array_equal(found.restored, to_array((clean * 3 - 1).clamp(0, 1)))


@pytest.mark.parametrize(("height", "width"), [(4, 8), (8, 4), (5, 5)])
def test_a_strip_of_a_small_image_shows_all_of_it(height, width):
    clean = np.random.default_rng(0).random((height, width, 3), np.float32)
    found = strip(Restored(clean, None, clean, clean), side=6)
    top, left = max(0, height - 6) // 2, max(0, width - 6) // 2
    assert np.array_equal(found[:, -min(6, width) :], clean[top : top + 6, left : left + 6])
    assert found.shape == (min(6, height), 3 * min(6, width) + 2 * 6, 3)


def test_a_strip_shows_input_baseline_result_and_truth_from_the_middle():
    pictures = [np.full((4, 6, 1), value, np.float32) for value in (0.1, 0.2, 0.3, 0.4)]
    pictures[0] = pictures[0][::2, ::2]
    pictures[3][1:3, 2:4] = 0.9  # the middle
    found = strip(Restored(*pictures), side=2)[..., 0]
    assert found.shape == (2, 4 * 2 + 3 * 6)
    np.testing.assert_allclose(found[0, ::8], [0.1, 0.2, 0.3, 0.9])
    assert (found[:, 2:8] == 1).all() and (found[:, -2:] == np.float32(0.9)).all()


def test_the_table_has_each_number_in_its_column():
    scores = [Score("a", 30.0, 0.9, 20.0, 0.5), Score("b", 32.0, 0.8, 22.0, float("nan"))]
    results = [SetResult("S", scores, "made"), SetResult("T", scores[:1], "files")]
    paper = Published({"S": (31.5, 0.8765), "T": (29.25,)})
    text = markdown("title", "notes", results, paper, "bicubic").splitlines()
    assert "| bicubic PSNR / SSIM | ours PSNR / SSIM | paper PSNR / SSIM |" in text[4]
    assert text[6:] == [
        "| S | 2 | made | 21.00 / 0.5000 | 31.00 / 0.8500 | 31.50 / 0.8765 | -0.50 |",
        "| T | 1 | files | 20.00 / 0.5000 | 30.00 / 0.9000 | 29.25 / - | +0.75 |",
    ]
    assert list(rows(results, paper)[0].values()) == [
        "S", "2", "made", "21.00", "0.5000", "31.00", "0.8500", "31.50", "0.8765", "-0.50",
        "0", "0",
    ]  # fmt: skip
    both = Published(paper.paper, {"T": (28.5, 0.75)})
    text = markdown("title", "notes", results, both, "bicubic").splitlines()
    assert text[4].endswith("| difference PSNR | released weights PSNR / SSIM |")
    assert text[5].count("---") == 8
    assert [line.split(" | ")[-2:] for line in text[6:]] == [
        ["-0.50", "- / - |"], ["+0.75", "28.50 / 0.7500 |"],
    ]  # fmt: skip


def test_scores_of_released_weights_stand_beside_those_of_the_paper(tmp_path, capsys):
    network = {"dim": 30, "depths": [1]}
    zoo.save(zoo.build("mambair_dn25", **network), tmp_path / "a.safetensors")
    recipe = tmp_path / "dn.yaml"
    recipe.write_text(
        "extends: mambair_dn25\nnetwork: {dim: 30, depths: [1]}\n"
        "evaluate: {paper: {Urban100: [33.21]}, released: {Urban100: [32.99]}}\n"
    )
    photo_file(tmp_path / "data" / "Urban100HQ" / "a.png")
    words = ["-w", tmp_path / "a.safetensors", "--data", tmp_path / "data", "-o", tmp_path]
    assert run(recipe, *words) == 0
    assert "| 33.21 / - | " in (table := capsys.readouterr().out) and "| 32.99 / - |" in table
    [row] = csv.DictReader((tmp_path / "summary.csv").open())
    assert (row["paper_psnr"], row["released_psnr"], row["released_ssim"]) == (
        "33.21",
        "32.99",
        "-",
    )
    assert run(recipe, *words, "--ensemble") == 0  # the weights were scored without
    assert "released weights" not in capsys.readouterr().out


def test_sidd_is_scored_as_its_script_does_not_rounded_and_as_a_volume(tmp_path, capsys):
    sidd(tmp_path / "data")
    data = load_recipe("mambair_realdn").data()
    data["network"] |= {"dim": 30, "depths": [1, 1, 1, 1], "refinement": 1}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(data))
    network = zoo.build(str(tmp_path / "small.yaml"))
    zoo.save(network, tmp_path / "a.safetensors")
    words = ["-w", tmp_path / "a.safetensors", "--data", tmp_path / "data", "-o", tmp_path]
    assert run(tmp_path / "small.yaml", *words) == 0
    told = capsys.readouterr().out
    assert "not rounded, 0 border" in told and "as a volume, as in MATLAB" in told
    assert "| 39.89 / 0.9600 |" in told
    clean, noisy = (
        loadmat(tmp_path / "data" / "SIDD" / f"{key}.mat")[key].reshape(-1, 16, 16, 3) / 255
        for key in ("ValidationGtBlocksSrgb", "ValidationNoisyBlocksSrgb")
    )
    images = list(csv.DictReader((tmp_path / "images.csv").open()))
    assert len(images) == 6
    for number, row in enumerate(images):
        block = torch.from_numpy(noisy[number]).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            restored = network.eval()(block)[0].permute(1, 2, 0).clamp(0, 1).double().numpy()
        error = ((restored - clean[number]) ** 2).mean()
        assert float(row["psnr"]) == pytest.approx(-10 * np.log10(error), abs=1e-4)
        likeness = ssim_volume(restored, clean[number], crop_border=0, rounded=False)
        assert float(row["ssim"]) == pytest.approx(likeness, abs=1e-5)


@pytest.mark.parametrize("option", ["rounded: false", "ssim: volume"])
def test_what_only_scores_of_all_channels_have_is_refused_for_luma(tmp_path, option):
    (tmp_path / "a.yaml").write_text(f"extends: mambair_light_x2\nevaluate: {{{option}}}\n")
    with pytest.raises(RecipeError, match="add channel: all"):
        evaluate_settings(load_recipe(tmp_path / "a.yaml"))


def test_compat_reaches_the_network_or_is_refused(tmp_path, weights, capsys):
    """12 x 24 pixels are 1 x 2 windows of 16: not square, so the mapping back matters."""
    data = load_recipe("mambacsr_final").data()
    data["network"] |= {"dim": 30, "depths": [1]}
    data["network"]["coarse"]["depths"] = [1]
    (tmp_path / "csr.yaml").write_text(yaml.safe_dump(data))
    torch.manual_seed(1)
    zoo.save(zoo.build(str(tmp_path / "csr.yaml")), tmp_path / "csr.safetensors")
    photo_file(tmp_path / "data" / "Set5" / "a.png", size=(48, 128))
    words = ["-w", tmp_path / "csr.safetensors", "--data", tmp_path / "data"]
    found = {}
    for name, options in {"ours": [], "theirs": ["--compat", "official"]}.items():
        out = tmp_path / name
        assert run(tmp_path / "csr.yaml", *words, "-o", out, *options) == 0
        assert ("--compat official" in capsys.readouterr().out) == bool(options)
        found[name] = (out / "images.csv").read_text()
    assert found["ours"] != found["theirs"]
    assert run(*weights, "--data", tmp_path / "data", "--compat", "official") == 2
    assert "--compat has no effect on small" in capsys.readouterr().err
    assert run("qmambabsr_tiny", "--compat", "official") == 2
    assert "--compat has no effect on qmambabsr_tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected", "said"),
    [
        ([], {"tile": 0}, "each image whole."),
        (["-t", "64"], {"tile": 64}, "each image in blended tiles of 64 pixels."),
        (
            ["--ensemble"],
            {"tile": 0, "ensemble": True},
            "Self-ensemble of 8 flips and quarter turns.",
        ),
        (["--precision", "bf16"], {"tile": 0, "precision": "bf16"}, "Precision bf16."),
        (["--tf32"], {"tile": 0, "tf32": True}, "TF32 was allowed."),
        (["--tile", "0"], {"tile": 0}, "each image whole."),
    ],
)
def test_options_of_evaluation_reach_what_restores(
    tmp_path, weights, capsys, monkeypatch, words, expected, said
):
    seen = []

    def restored(network, image_BIHW, settings, guides):
        seen.append(settings)
        return image_BIHW.repeat_interleave(2, 2).repeat_interleave(2, 3)

    monkeypatch.setattr(command, "restore_tensor", restored)
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    assert run(*weights, "--data", tmp_path / "data", "-o", tmp_path / "out", *words) == 0
    assert seen == [RestoreSettings(**expected)]
    text = capsys.readouterr().out
    assert said in text and "on the Y channel (BT.601), 8 bits, 2 border pixels" in text


def test_protocol_and_degradation_of_a_recipe_are_those_of_evaluation(tmp_path, weights):
    """All channels, 5 pixels cut, JPEG after bicubic: none of it is the default."""
    recipe = weights[0]
    recipe.write_text(
        recipe.read_text()[:-2].rstrip()
        + ", channel: all, crop: 5, degradation: {type: bicubic_jpeg, quality: 10}}\n"
    )
    path = photo_file(tmp_path / "data" / "Set5" / "a.png", size=(40, 28))
    kept = tmp_path / "kept"
    options = ["--data", tmp_path / "data", "-o", tmp_path / "out", "--save-images", kept]
    assert run(*weights, *options) == 0
    [row] = csv.DictReader((tmp_path / "out" / "images.csv").open())
    restored, clean = (read_photo(p).color_HWC for p in (kept / "Set5" / "a.png", path))
    assert float(row["psnr"]) == pytest.approx(psnr(restored, clean, crop_border=5))
    small = BicubicJpeg(scale=2, quality=10)(to_tensor(clean), None)
    baseline = to_array(resize_bicubic(small[None], 2)[0])
    assert float(row["baseline_psnr"]) == pytest.approx(psnr(baseline, clean, crop_border=5))
    assert "all channels, 8 bits, 5 border" in (tmp_path / "out" / "summary.md").read_text()


def test_the_current_folder_may_be_the_set(tmp_path, weights, monkeypatch):
    photo_file(tmp_path / "Mine" / "a.png", 5)
    monkeypatch.chdir(tmp_path / "Mine")
    assert run(*weights, "--data", ".", "-o", tmp_path / "out") == 0
    [row] = csv.DictReader((tmp_path / "out" / "summary.csv").open())
    assert row["set"] == "Mine"


@pytest.mark.parametrize("inside", [False, True])
def test_degraded_files_are_left_aside_when_asked_for(tmp_path, weights, inside):
    """The set is found below the folder, or is the folder."""
    data = tmp_path / "data"
    name = "Mine" if inside else "Set5"
    photo_file(data / name / "HR" / "a.png", 5)
    photo_file(data / name / "LR_bicubic" / "X2" / "ax2.png", 6, (12, 15))
    for words, inputs in (([], "files"), (["--degrade"], "made")):
        root = data / name if inside else data
        assert run(*weights, "--data", root, "-o", tmp_path / "out", *words) == 0
        [row] = csv.DictReader((tmp_path / "out" / "summary.csv").open())
        assert row["inputs"] == inputs


@pytest.fixture
def trained(tmp_path, weights, monkeypatch):
    """The recipe ``small``, trained in the current folder, and a tiny test set ``data``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "small").mkdir(parents=True)
    (tmp_path / "a.safetensors").rename(tmp_path / "runs" / "small" / "weights.safetensors")
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    return weights[0]


def test_weights_of_a_run_are_found_and_named(trained, capsys, caplog):
    with caplog.at_level(logging.INFO):
        assert run(trained, "--data", "data") == 0
    table = capsys.readouterr().out
    told = "runs/small/weights.safetensors, trained here"
    assert f"Weights: {told}." in table and f"weights: {told}" in caplog.text
    assert Path("results/small/summary.md").read_text() == table


def test_after_a_training_a_name_means_what_was_trained(trained, monkeypatch, capsys):
    """Weights of that name in the package are only used where nothing was trained."""
    monkeypatch.setattr("zoo.checkpoints.scored.shipped_weights", lambda: ["small"])
    assert run(trained, "--data", "data") == 0
    assert "Weights: runs/small/weights.safetensors, trained here." in capsys.readouterr().out
    recipe = load_recipe(trained)
    for name in ("small", "b.pth"):
        told = "those of small in the package" if name == "small" else "b.pth"
        assert scored_weights(recipe, Path(name)) == (Path(name), told, False)
    Path("runs/small/weights.safetensors").unlink()
    assert scored_weights(recipe, None) == ("small", "those of small in the package", False)


def test_what_was_trained_with_other_settings_is_not_scored(trained, capsys):
    text = trained.read_text().replace("dim: 30", "dim: 32")
    trained.write_text(text)
    assert run(trained, "--data", "data") == 2
    said = capsys.readouterr().err
    assert "it was trained with other settings than those of small" in said
    Path("runs/small/weights.safetensors").unlink()
    assert run(trained, "--data", "data") == 2
    said = capsys.readouterr().err
    assert "no weights ship for 'small', and runs/small/weights.safetensors does not exist" in said


def test_where_sizes_are_equal_the_baseline_is_the_input_on_all_channels(tmp_path, capsys):
    zoo.save(zoo.build("mambair_dn25", dim=30, depths=[1]), tmp_path / "a.safetensors")
    recipe = tmp_path / "small.yaml"
    recipe.write_text("extends: mambair_dn25\nnetwork: {dim: 30, depths: [1]}\n")
    photo_file(tmp_path / "data" / "CBSD68" / "a.png")
    words = ["-w", tmp_path / "a.safetensors", "--data", tmp_path / "data", "-o", tmp_path / "out"]
    assert run(recipe, *words) == 0
    text = capsys.readouterr().out
    assert "| input PSNR / SSIM |" in text and "all channels, 8 bits, 0 border pixels" in text
    assert "volume" not in text and "Precision" not in text and "TF32" not in text


def test_kept_images_never_replace_those_of_the_set(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = photo_file(tmp_path / "data" / "Set5" / "a.png")
    before = path.read_bytes()
    for folder in ("data", tmp_path / "data", "data/Set5/../../data"):
        words = ["--data", tmp_path / "data", "-o", "out", "--save-images", folder]
        assert run(*weights, *words) == 2
        assert "a.png would be replaced" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
@pytest.mark.parametrize("which", ["clean", "degraded"])
def test_kept_images_replace_neither_pictures_nor_arrays_of_a_set(tmp_path, name, which):
    (tmp_path / name).touch()
    files = {"clean": None, "degraded": None, which: tmp_path / name}
    image = TestImage("a", **files)
    with pytest.raises(ZooError, match=rf"--save-images: .*{name} would be replaced"):
        check_nothing_is_replaced([image], tmp_path)
    check_nothing_is_replaced([image], tmp_path / "other")
    (tmp_path / "a.png").touch()
    both = TestImage("a", clean=tmp_path / "a.png", degraded=tmp_path / name)
    with pytest.raises(ZooError, match=r"a\.png would be replaced"):
        check_nothing_is_replaced([both], tmp_path)


def test_kept_images_are_pictures_of_8_bits_and_arrays_of_all_of_theirs(tmp_path):
    image_keeper(None)("a", None)  # keeps nothing
    folder = tmp_path / "new" / "folder"
    keep = image_keeper(folder)
    for channels in (1, 2, 3, 4):
        values = np.full((4, 5, channels), 0.123456, np.float32)
        keep(f"x{channels}", Restored(values, None, values, values))
    assert sorted(path.name for path in folder.iterdir()) == [
        "x1.png", "x2.npy", "x3.png", "x4.npy"
    ]  # fmt: skip
    assert read_photo(folder / "x3.png").bit_depth == 8
    assert np.load(folder / "x4.npy").dtype == np.float32
    np.testing.assert_allclose(np.load(folder / "x4.npy"), 0.123456)


def test_a_source_without_scores_is_not_told(tmp_path, weights, capsys):
    recipe, *rest = weights
    recipe.write_text(recipe.read_text().partition("evaluate:")[0] + "evaluate: {paper: null}\n")
    photo_file(tmp_path / "Set5" / "a.png")
    words = ["--data", tmp_path, "-o", tmp_path / "out"]
    assert run(recipe, *rest, *words) == 0
    assert "Paper:" not in capsys.readouterr().out


def test_sets_that_are_not_there_are_told(tmp_path, weights, caplog):
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    with caplog.at_level(logging.INFO):
        assert run(*weights, "--data", tmp_path / "data", "-o", tmp_path / "out") == 0
    assert f"skipped, not in {tmp_path / 'data'}: Set14, B100, Urban100, Manga109" in caplog.text


@pytest.mark.parametrize("stated", ["null", "[0, 255]"])
def test_only_photographs_are_degraded_to_8_bits(tmp_path, weights, monkeypatch, stated):
    """Levels of a stated range were rounded for scores, and not in training."""
    recipe, *rest = weights
    recipe.write_text(recipe.read_text() + f"train: {{data: {{range: {stated}}}}}\n")
    zoo.save(zoo.build(str(recipe)), tmp_path / "a.safetensors")
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    seen = []

    def noted(network, images, degradation, **_):
        seen.append((degradation.rounded, images[0].value_range))
        return [Score("a", 30.0, 0.9, 20.0, 0.5)]

    monkeypatch.setattr(command, "evaluate", noted)
    assert run(recipe, *rest, "--data", tmp_path / "data", "-o", tmp_path / "out") == 0
    assert seen == [(True, None) if stated == "null" else (False, (0.0, 255.0))]


def test_the_protocol_is_that_of_the_recipe_with_metrics_that_are_ready():
    prepared = []
    metric = SimpleNamespace(prepare=lambda: prepared.append(1))
    settings = EvaluateSettings(
        channel="all", crop=3, rounded=False, ssim="volume", metrics=(metric, metric)
    )
    for channels, value_range, photographic in (
        (3, None, True),
        (4, None, False),
        (3, (0, 9), False),
    ):
        network = SimpleNamespace(out_channels=channels)
        assert protocol_of(settings, network, value_range) == Protocol(
            channel="all", crop=3, rounded=False, ssim="volume", photographic=photographic,
            metrics=(metric, metric),
        )  # fmt: skip
    assert len(prepared) == 6
    usual = protocol_of(EvaluateSettings(), SimpleNamespace(out_channels=1), None)
    assert usual == Protocol(photographic=True)
