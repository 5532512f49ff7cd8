"""Bursts evaluated from the command line: the synthetic set, and files in the public layout."""

from __future__ import annotations

import csv

import pytest
import torch

import zoo
from recipes.evaluate import main
from zoo.data.burst.dataset import generator
from zoo.data.burst.reading import read_burst, read_clean
from zoo.data.burst.synthesis import BurstSynthesis
from zoo.data.burst.writing import write_burst
from zoo.metrics.burst import linear_psnr

CHANGES = {
    "burst": 3, "dim": 8, "align": "none", "flow_prior": "none", "skip": "corner", "stages": [1],
}  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    network = zoo.build("qmambabsr_tiny", **CHANGES, **{"body.heads": 2})
    zoo.save(network, tmp_path / "small.safetensors")
    text = "\n".join(f"  {key}: {value}" for key, value in CHANGES.items())
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        f"extends: qmambabsr_tiny\nnetwork:\n{text}\n  body: {{heads: 2}}\n"
        "train: {data: {validate_patch: 8, validate_bursts: 1, border: 4}}\n"
    )
    return [str(recipe), "-w", str(tmp_path / "small.safetensors"), "-o", str(tmp_path / "out")]


@pytest.fixture
def bursts(tmp_path):
    synthesis = BurstSynthesis(frames=3, factor=4, mode="raw")
    for number in range(2):
        rng = generator(number)
        side = synthesis.window(8 * synthesis.scale)
        photo_3HW = torch.rand(3, side, side, generator=rng)
        write_burst(tmp_path / "set" / f"burst_{number}", synthesis(photo_3HW, rng))
    return tmp_path / "set"


def test_files_are_scored_in_linear_space(weights, bursts, tmp_path):
    assert main([*weights, "--data", str(bursts)]) == 0
    with (tmp_path / "out" / "images.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2
    network = zoo.load(tmp_path / "small.safetensors").eval()
    folder = bursts / "burst_0"
    with torch.inference_mode():
        restored = network(read_burst(folder).frames_TIHW[None])[0]
    expected = linear_psnr(restored, read_clean(folder / "gt" / "im_rgb.png"), border=4)
    assert float(lines[0]["psnr"]) == pytest.approx(expected, abs=0.01)


def test_a_burst_without_a_clean_image_is_named(weights, bursts, capsys):
    (bursts / "burst_1" / "gt" / "im_rgb.png").unlink()
    assert main([*weights, "--data", str(bursts)]) == 2
    said = capsys.readouterr().err
    assert "burst_1" in said and "no clean image" in said


def test_the_frozen_set_is_scored(weights, capsys):
    assert main(weights) == 0
    assert "| samples |" in capsys.readouterr().out


def test_options_for_single_images_are_refused(weights, capsys):
    assert main([*weights, "--ensemble"]) == 2
    assert "--ensemble is for single images" in capsys.readouterr().err
