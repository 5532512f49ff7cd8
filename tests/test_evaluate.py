"""Evaluation: layouts of test sets, the table, the authors' tiling, and every mistake named."""

from __future__ import annotations

import csv
import json
import logging
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import zoo
from recipes import evaluate as command
from recipes.evaluate import main
from tests.helpers.networks import Nearest
from zoo.checkpoints import shipped_weights
from zoo.checkpoints.scored import scored_weights
from zoo.data import (
    Bicubic,
    BicubicJpeg,
    Degradation,
    GaussianNoise,
    Jpeg,
    Photo,
    read_photo,
    resize_bicubic,
    write_photo,
)
from zoo.data.pixels import to_array, to_tensor, with_channels
from zoo.data.testsets import TestImage, find_test_set, validation_images
from zoo.errors import ImageError, ZooError
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
from zoo.evaluation.official_tiling import tiled
from zoo.evaluation.report import SetResult, markdown, rows
from zoo.evaluation.settings import TilingSettings, evaluate_settings
from zoo.inference import RestoreSettings, restore_photo
from zoo.metrics import psnr, psnr_y, ssim_y
from zoo.networks import Network
from zoo.plots import training_curves
from zoo.plots.training_curves import render_runs
from zoo.recipe import load_recipe


def photo_file(path, seed=0, size=(24, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).random((*size, 3)).astype(np.float32)
    write_photo(path, Photo(pixels))
    return path


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    network = zoo.build("mambair_light_x2", dim=30, depths=[1])
    zoo.save(network, tmp_path / "a.safetensors")
    (tmp_path / "small.yaml").write_text(
        "extends: mambair_light_x2\n"
        "network: {dim: 30, depths: [1]}\n"
        "evaluate: {paper: {Set5: [30.5, 0.9]}, paper_ensemble: {Set5: [31, 0.91]}}\n"
    )
    return tmp_path / "small.yaml", "-w", tmp_path / "a.safetensors"


def run(*words):
    return main([str(word) for word in words])


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
    assert find_test_set(tmp_path, "Manga109", degradation, 2) is None


def test_a_set_without_its_pairs_is_told(tmp_path):
    photo_file(tmp_path / "SIDD" / "target" / "a.png")
    with pytest.raises(ImageError, match="needs a folder of degraded images"):
        find_test_set(tmp_path, "SIDD", None, 1)
    photo_file(tmp_path / "SIDD" / "input" / "b.png")
    with pytest.raises(ImageError, match="no degraded counterpart"):
        find_test_set(tmp_path, "SIDD", None, 1)


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


def by_slices(run, image, scale, limit, shave):
    """The authors' procedure step by step, on a padded image."""
    height, width = image.shape[2:]
    rows, columns = height // limit + 1, width // limit + 1
    below, right = -height % rows, -width % columns
    padded = torch.nn.functional.pad(image, (0, right, 0, below), mode="reflect")
    h, w = padded.shape[2] // rows, padded.shape[3] // columns
    dy, dx = h // shave, w // shave
    result = torch.zeros(1, image.shape[1], padded.shape[2] * scale, padded.shape[3] * scale)
    for i in range(rows):
        for j in range(columns):
            top = i * h - (dy if i else 0)
            bottom = (i + 1) * h + (dy if i < rows - 1 else 0)
            left = j * w - (dx if j else 0)
            end = (j + 1) * w + (dx if j < columns - 1 else 0)
            out = run(padded[:, :, top:bottom, left:end])
            y, x = (dy * scale if i else 0), (dx * scale if j else 0)
            part = out[:, :, y : y + h * scale, x : x + w * scale]
            result[
                :, :, i * h * scale : (i + 1) * h * scale, j * w * scale : (j + 1) * w * scale
            ] = part
    return result[:, :, : height * scale, : width * scale]


@pytest.mark.parametrize("size", [(19, 23), (20, 61), (45, 33)])
def test_the_authors_tiling(size):
    seen = []

    def run(image):
        seen.append(tuple(image.shape[2:]))
        # Not local: what is in a tile changes all of it.
        return torch.nn.functional.interpolate(image, scale_factor=2) + image.mean()

    image = torch.rand(1, 3, *size)
    settings = TilingSettings(limit=20, shave=4)
    assert torch.equal(tiled(run, image, 2, settings), by_slices(run, image, 2, 20, 4))
    seen.clear()
    tiled(run, image, 2, TilingSettings(limit=20, shave=4, grid=8))
    # At least one mirrored pixel, up to the next multiple: a tile of 16 becomes one of 24.
    assert all(height % 8 == 0 and width % 8 == 0 for height, width in seen)


@pytest.mark.parametrize("size", [(16, 16), (9, 20), (3, 5), (2, 1)])
def test_tiles_are_continued_by_their_mirror_image_beyond_the_next_multiple(size):
    """Up to twice the tile, which is all that a mirror shows."""
    seen = []

    def run(image):
        seen.append(image)
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3)

    image = torch.rand(1, 1, *size)
    found = tiled(run, image, 2, TilingSettings(limit=100, shave=4, grid=8))
    assert torch.equal(found, image.repeat_interleave(2, 2).repeat_interleave(2, 3))
    whole = np.pad(image[0, 0].numpy(), [(0, side) for side in size], mode="symmetric")
    height, width = (min((side // 8 + 1) * 8, 2 * side) for side in size)
    assert np.array_equal(seen[0][0, 0].numpy(), whole[:height, :width])


def test_defaults_of_the_authors_tiling_are_those_of_mambair():
    assert TilingSettings() == TilingSettings(limit=200, shave=10, grid=0)


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
    [row] = rows([SetResult("S", [given, given], "files")], {})
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
    [row] = rows(results, {})
    assert (row["psnr"], row["exact"]) == (f"{usual.psnr:.2f}", "1")
    assert row["baseline_psnr"] == f"{usual.baseline_psnr:.2f}"
    line = markdown("title", "notes", results, {}, "bicubic").splitlines()[-1]
    assert line.count("(1 exact, in neither mean)") == 2


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
    paper = {"S": (31.5, 0.8765), "T": (29.25,)}
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


def test_official_tiling_cuts_images_as_the_recipe_says(tmp_path, weights):
    """Limit 12 and a quarter of overlap, mirrored: not whole, and not as by default."""
    recipe = weights[0]
    recipe.write_text(
        recipe.read_text()[:-2].rstrip() + ", tiling: {limit: 12, shave: 4, grid: 8}}\n"
    )
    path = photo_file(tmp_path / "data" / "Set5" / "a.png", size=(40, 28))
    options = [*weights, "--data", tmp_path / "data", "-o", tmp_path / "out"]
    assert run(*options, "--official-tiling") == 0
    [row] = csv.DictReader((tmp_path / "out" / "images.csv").open())
    network = zoo.load(tmp_path / "a.safetensors")
    clean = read_photo(path).color_HWC
    small = Bicubic(scale=2)(to_tensor(clean), np.random.default_rng(0))[None]

    def mirrored(tile):
        height, width = tile.shape[2:]
        below, right = 8 - height % 8, 8 - width % 8
        padded = np.pad(tile[0].numpy(), ((0, 0), (0, below), (0, right)), mode="symmetric")
        with torch.inference_mode():
            return network(torch.from_numpy(padded)[None])[:, :, : 2 * height, : 2 * width]

    restored = by_slices(mirrored, small, 2, 12, 4)[0].clamp(0, 1)
    expected = psnr_y(to_array(restored), clean, crop_border=2)
    assert float(row["psnr"]) == pytest.approx(expected, abs=1e-4)
    with torch.inference_mode():
        whole = network(small)[0].clamp(0, 1)
    assert abs(psnr_y(to_array(whole), clean, crop_border=2) - expected) > 1e-3
    assert "tiled as in the authors' code" in (tmp_path / "out" / "summary.md").read_text()


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


def test_kept_images_never_replace_those_of_the_set(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = photo_file(tmp_path / "data" / "Set5" / "a.png")
    before = path.read_bytes()
    for folder in ("data", tmp_path / "data", "data/Set5/../../data"):
        words = ["--data", tmp_path / "data", "-o", "out", "--save-images", folder]
        assert run(*weights, *words) == 2
        assert "a.png would be replaced" in capsys.readouterr().err
    assert path.read_bytes() == before


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


def test_a_source_without_scores_is_not_told(tmp_path, weights, capsys):
    recipe, *rest = weights
    recipe.write_text(recipe.read_text().partition("evaluate:")[0] + "evaluate: {paper: null}\n")
    photo_file(tmp_path / "Set5" / "a.png")
    words = ["--data", tmp_path, "-o", tmp_path / "out"]
    assert run(recipe, *rest, *words) == 0
    assert "Paper:" not in capsys.readouterr().out


def test_curves_of_runs(tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lines = [f'{{"step": {s}, "loss": {1 / s}}}' for s in range(1, 60)]
        lines += ['{"step": 30, "psnr": 28.5}', '{"step": 59, "psnr": 29.5}', '{"step": 60, "lo']
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(lines))
    one = render_runs([tmp_path / "one"])
    both = render_runs([tmp_path / "one", tmp_path / "two"])
    assert one.shape[1] == both.shape[1] == 2 * 760 and both.shape[0] == one.shape[0] + 22
    # The loss falls: the curve is high at the left and low at the right.
    blue = np.argwhere((one[:440, :760] == (31, 119, 180)).all(axis=2))
    left, right = blue[blue[:, 1] < 200], blue[blue[:, 1] > 650]
    assert left[:, 0].mean() < right[:, 0].mean()
    with pytest.raises(ZooError, match="no run here"):
        render_runs([tmp_path])
    words = [str(tmp_path / "one"), str(tmp_path / "two"), "-o", str(tmp_path / "curves.png")]
    assert training_curves.main(words) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'curves.png'}\n"
    drawn = read_photo(tmp_path / "curves.png").color_HWC
    assert np.array_equal((255 * drawn).round(), both)


@pytest.mark.parametrize("losses", [(10, 1, 0.1), (10, 5, 0)])
def test_curves_lie_where_their_numbers_are(tmp_path, monkeypatch, losses):
    """The loss by its logarithm, unless it is zero somewhere; steps from left to right."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lines = [{"step": 50 * n, "loss": loss} for n, loss in enumerate(losses)]
        lines += [{"step": 75, "loss": float("nan")}]
        lines += [{"step": 50 * n, "psnr": psnr} for n, psnr in enumerate((20, 28, 30))]
        text = "\n".join(json.dumps(line) for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text)
    drawn = []
    monkeypatch.setattr(
        training_curves.cv2,
        "polylines",
        lambda canvas, points, closed, color, *more: drawn.append((points[0], color)),
    )
    render_runs([tmp_path / "one", tmp_path / "two"])
    assert len(drawn) == 4 and drawn[0][1] != drawn[1][1] and drawn[0][1] == drawn[2][1]
    for points, middle in ((drawn[0][0], 0.5), (drawn[2][0], 0.2)):
        (x0, y0), (x1, y1), (x2, y2) = points.tolist()
        assert x0 == 84 and x2 == 740 and abs(x1 - 412) <= 1
        assert abs((y1 - y2) / (y0 - y2) - middle) < 0.01
    assert drawn[0][0][0, 1] < drawn[0][0][2, 1] and drawn[2][0][0, 1] > drawn[2][0][2, 1]
