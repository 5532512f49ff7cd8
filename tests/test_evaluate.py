"""Evaluation: layouts of test sets, the table, the authors' tiling, and every mistake named."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from recipes.evaluate import main
from zoo.checkpoints import shipped_weights
from zoo.data import Bicubic, GaussianNoise, Jpeg, Photo, read_photo, write_photo
from zoo.data.pixels import to_array, to_tensor
from zoo.data.testsets import TestImage, find_test_set
from zoo.errors import ImageError, ZooError
from zoo.evaluation import Protocol, evaluate, mean_score, restore_clean
from zoo.evaluation.official_tiling import tiled
from zoo.evaluation.settings import TilingSettings, evaluate_settings
from zoo.metrics import psnr, psnr_y, ssim_y
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
    rows = list(csv.DictReader((out / "summary.csv").open()))
    assert [(row["set"], row["images"], row["inputs"]) for row in rows] == [
        ("Set5", "2", "made"),
        ("Urban100", "1", "files"),
    ]
    images = list(csv.DictReader((out / "images.csv").open()))
    assert [row["image"] for row in images] == ["0", "1", "u"]

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
    assert rows[0]["psnr"] == f"{mean:.2f}" and rows[0]["paper_psnr"] == "30.50"
    assert rows[0]["difference_psnr"] == f"{mean - 30.5:+.2f}"
    assert rows[1]["paper_psnr"] == "32.85"  # of the recipe that this one extends
    kept = read_photo(tmp_path / "kept" / "Set5" / "0.png").color_HWC
    assert np.abs(kept - restored).max() <= 0.5 / 255 + 1e-6

    assert run(*weights, "--data", data / "Set5", "-o", out, "--ensemble", "--sets", "Set5") == 0
    assert "31.00 / 0.9100" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_weights())
def test_the_cards_of_the_weights_tell_what_evaluation_finds(name, tmp_path):
    """The mean over the held-out photographs, to the two decimals of the card."""
    assert run(name, "-o", tmp_path) == 0
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
    # At least one mirrored pixel, up to the next multiple or to twice the tile.
    assert all(height % 8 == 0 and width % 8 == 0 for height, width in seen)


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


def test_curves_of_runs(tmp_path):
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
