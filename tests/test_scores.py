"""Scores of a network: what it and the baseline are given, the protocol, means and strips."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import zoo
from tests.helpers.evaluation import photo_file
from tests.helpers.networks import Nearest
from zoo.data import Bicubic, Degradation, GaussianNoise, read_photo, resize_bicubic
from zoo.data.pixels import to_array, to_tensor, with_channels
from zoo.data.testsets import TestImage
from zoo.errors import ImageError
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
from zoo.evaluation.report import Published, SetResult, markdown, rows
from zoo.evaluation.settings import EvaluateSettings, evaluate_settings, protocol_of
from zoo.inference import restore_photo
from zoo.metrics import psnr
from zoo.networks import Network
from zoo.recipe import load_recipe


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


def test_an_image_that_is_too_small_is_named(tmp_path):
    image = TestImage("tiny", photo_file(tmp_path / "tiny.png", size=(4, 4)))
    with pytest.raises(ImageError, match=r"tiny: crop_border is 2; .* 4x4 pixels"):
        evaluate(Nearest(2), [image], Bicubic(scale=2))
