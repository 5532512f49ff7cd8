"""Metrics of images with several bands, and an eight-band network from training to export."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import tifffile
import torch

import zoo
from tests.helpers.networks import Nearest
from zoo.cli import main
from zoo.data import Bicubic
from zoo.data.bicubic import resize_bicubic
from zoo.data.testsets import TestImage
from zoo.errors import RecipeError
from zoo.evaluation import Protocol, Restored, evaluate, mean_score, score, strip
from zoo.metrics import METRICS, Bands, Ergas, SpectralAngle, psnr, ssim
from zoo.recipe import load_recipe

SIDE = 40


def pair(channels=4, seed=0):
    random = np.random.default_rng(seed)
    clean = random.random((SIDE, SIDE + 3, channels)) * 0.8 + 0.1
    restored = (clean + random.normal(0, 0.05, clean.shape)).clip(0, 1)
    return restored.astype(np.float32), clean.astype(np.float32)


def test_the_spectral_angle_by_loops():
    restored, clean = pair()
    clean[0, 0] = restored[1, 1] = 0  # no angle there
    angles = []
    for row in range(clean.shape[0]):
        for column in range(clean.shape[1]):
            a, b = restored[row, column].tolist(), clean[row, column].tolist()
            lengths = math.hypot(*a) * math.hypot(*b)
            if lengths:
                dot = sum(x * y for x, y in zip(a, b, strict=True))
                angles.append(math.degrees(math.acos(min(1.0, dot / lengths))))
    found = SpectralAngle()(restored, clean, 2)["sam"]
    assert found == pytest.approx(sum(angles) / len(angles), rel=1e-6)
    assert len(angles) == SIDE * (SIDE + 3) - 2


def test_the_spectral_angle_does_not_depend_on_brightness():
    _, clean = pair()
    assert SpectralAngle()(clean * 0.5, clean, 2)["sam"] == pytest.approx(0, abs=0.05)
    across = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), np.float32)
    across[0][..., 0] = across[1][..., 1] = 0.3
    assert SpectralAngle()(*across, 1)["sam"] == pytest.approx(90)
    assert math.isnan(SpectralAngle()(across[0] * 0, across[1], 1)["sam"])


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_ergas_by_loops(scale):
    restored, clean = pair(3)
    total = 0.0
    for band in range(3):
        a, b = (image[..., band].ravel().tolist() for image in (restored, clean))
        error = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)
        total += error / (sum(b) / len(b)) ** 2
    found = Ergas()(restored, clean, scale)["ergas"]
    assert found == pytest.approx(100 / scale * math.sqrt(total / 3), rel=1e-6)
    assert Ergas()(clean, clean, scale)["ergas"] == 0
    clean[..., 1] = 0
    assert math.isnan(Ergas()(restored, clean, scale)["ergas"])


def test_each_band_has_a_psnr_and_an_ssim_that_are_not_rounded():
    restored, clean = pair(3)
    found = Bands()(restored, clean, 2)
    assert list(found) == ["psnr_1", "ssim_1", "psnr_2", "ssim_2", "psnr_3", "ssim_3"]
    for band in range(3):
        a, b = (image[..., band : band + 1].astype(float) for image in (restored, clean))
        expected = -10 * math.log10(((a - b) ** 2).mean())
        assert found[f"psnr_{band + 1}"] == pytest.approx(expected, abs=1e-9)
        assert found[f"ssim_{band + 1}"] == pytest.approx(ssim(a, b, rounded=False), abs=1e-12)
    small = Bands()(restored[:8, :8], clean[:8, :8], 2)
    assert math.isnan(small["ssim_2"]) and small["psnr_2"] > 0


def test_psnr_without_rounding_sees_less_than_a_level():
    clean = np.full((12, 12, 2), 0.5, np.float32)
    close = clean + np.float32(0.0001)
    assert psnr(close, clean) == math.inf
    assert psnr(close, clean, rounded=False) == pytest.approx(80, abs=0.1)
    assert ssim(close, clean, rounded=False) > 0.999


@pytest.mark.parametrize("photographic", [True, False])
def test_data_that_is_no_photograph_is_measured_on_all_channels_and_not_rounded(photographic):
    restored, clean = pair(3)
    protocol = Protocol(photographic=photographic, metrics=(SpectralAngle(), Ergas()), crop=2)
    assert protocol.for_scale(2) == ("y" if photographic else "all", 2)
    found = score("a", Restored(restored, restored, restored, clean), 2, protocol)
    inside = np.s_[2:-2, 2:-2]
    assert found.others["sam"] == SpectralAngle()(restored[inside], clean[inside], 2)["sam"]
    assert found.others["ergas"] == Ergas()(restored[inside], clean[inside], 2)["ergas"]
    if not photographic:
        assert found.psnr == psnr(restored, clean, crop_border=2, rounded=False)
        assert found.ssim == ssim(restored, clean, crop_border=2, rounded=False)
    assert found.data() == {
        "name": "a", "psnr": found.psnr, "ssim": found.ssim, "baseline_psnr": found.psnr,
        "baseline_ssim": found.ssim, **found.others,
    }  # fmt: skip


def test_the_mean_of_other_metrics_leaves_out_photos_without_a_value():
    restored, clean = pair(2)
    protocol = Protocol(photographic=False, metrics=(Ergas(),))
    first = score("a", Restored(restored, restored, restored, clean), 1, protocol)
    empty = score("b", Restored(restored, restored, restored, clean * 0), 1, protocol)
    assert mean_score([first, empty]).others["ergas"] == first.others["ergas"]
    assert math.isnan(mean_score([empty]).others["ergas"])


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (8, 3)])
def test_pictures_of_bands_show_the_first_ones(channels, shown):
    restored, clean = pair(channels)
    picture = strip(Restored(clean, clean, restored, clean), side=SIDE)
    assert picture.shape[2] == shown
    np.testing.assert_array_equal(picture[:, -SIDE:], clean[:, 1 : 1 + SIDE, :shown])


def test_metrics_are_parts_that_recipes_name():
    assert METRICS.names() == ["bands", "ergas", "lpips", "musiq", "niqe", "sam"]
    with pytest.raises(RecipeError, match=r"metrics\[1\].*unknown metric 'sma'"):
        main_settings({"metrics": ["sam", "sma"]})
    assert [type(m) for m in main_settings({"metrics": ["ergas"]}).metrics] == [Ergas]


def main_settings(section):
    from zoo.evaluation.settings import evaluate_settings

    network = {"type": "single_image", "dim": 8, "depths": [1]}
    return evaluate_settings(load_recipe({"network": network, "evaluate": section}))


def test_a_file_that_cannot_be_evaluated_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((8, 8, 2)))
    image = TestImage("a", tmp_path / "a.npy")
    with pytest.raises(zoo.errors.ImageError, match=r"^a: an image of 2 channels cannot become"):
        evaluate(Nearest(1, 3), [image], Bicubic(scale=1))


RECIPE = """
extends: mambair_light_x2
name: eight
summary: Eight bands.
paper: null
network:
  channels: 8
  dim: 12
  depths: [1]
  block: {type: bare, mixer: {d_state: 1}}
train:
  iterations: 20
  save_every: 20
  data:
    photos: train
    validate: val
    range: [0, 10000]
    patch: 8
    batch: 1
    degradation: bicubic
evaluate: {metrics: [sam, ergas, bands], datasets: [], paper: null}
"""


def test_an_eight_band_network_trains_validates_evaluates_restores_and_exports(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("train/a.tif", "train/b.tif", "val/c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        smooth = random.random((4, 4, 8)).repeat(6, 0).repeat(6, 1) * 8000 + 500
        tifffile.imwrite(name, smooth.astype(np.float32), planarconfig="contig")
    (tmp_path / "eight.yaml").write_text(RECIPE)

    assert main(["train", "eight.yaml", "--device", "cpu"]) == 0
    log = (tmp_path / "runs/eight/metrics.jsonl").read_text().splitlines()
    [entry] = [line for line in map(json.loads, log) if "psnr" in line]
    assert entry["step"] == 20 and 0 < entry["sam"] < 90 and entry["psnr_8"] > 0
    assert (entry["photos"][0]["name"], entry["photos"][0]["sam"]) == ("c", entry["sam"])

    weights = ["-w", "runs/eight/weights.safetensors"]
    words = ["evaluate", "eight.yaml", *weights, "--data", "val", "-o", "out"]
    assert main([*words, "--save-images", "kept"]) == 0
    with (tmp_path / "out/images.csv").open() as file:
        [line] = csv.DictReader(file)
    assert float(line["psnr"]) == pytest.approx(entry["psnr"], abs=0.01)
    assert float(line["ergas"]) == pytest.approx(entry["ergas"], rel=1e-3)
    # The degraded image is not rounded to 8 bits, as one of a photograph is.
    clean_CHW = torch.from_numpy(tifffile.imread("val/c.tif") / 10000).permute(2, 0, 1)
    small_CHW = resize_bicubic(clean_CHW.double(), 0.5).float()
    enlarged_CHW = resize_bicubic(small_CHW[None], 2)[0].clamp(0, 1)
    images = [image_CHW.permute(1, 2, 0).float().numpy() for image_CHW in (enlarged_CHW, clean_CHW)]
    expected = psnr(*images, crop_border=2, rounded=False)
    assert float(line["baseline_psnr"]) == pytest.approx(expected, abs=1e-5)
    text = capsys.readouterr().out
    assert "PSNR (dB) and SSIM on all channels, not rounded" in text and "| sam | ergas |" in text
    assert np.load("kept/val/c.npy").shape == (24, 24, 8)

    assert main(["restore", "val/c.tif", "-o", "c.tif", *weights]) == 0
    restored = tifffile.imread("c.tif")
    assert restored.shape == (48, 48, 8) and restored.dtype == np.float32
    assert restored.min() >= 0 and 1 < restored.max() <= 10_000

    words = ["export", "onnx", "-n", "eight.yaml", *weights, "-o", "eight.onnx", "--verify"]
    assert main(words) == 0
    assert "verified" in capsys.readouterr().out
    words = ["restore", "val/c.tif", "--onnx", "eight.onnx", "-o", "d.tif"]
    assert main([*words, "--range", "0", "10000"]) == 0
    np.testing.assert_allclose(tifffile.imread("d.tif"), restored, atol=1)


def test_the_published_light_network_takes_eight_channels():
    network = zoo.build("mambair_light_x2", channels=8)
    assert (network.channels, network.out_channels) == (8, 8)
    assert network.shallow.weight.shape[1] == 8
