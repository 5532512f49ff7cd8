"""Bursts evaluated from the command line: the synthetic set, and files in the public layout."""

from __future__ import annotations

import csv
import math
import re

import pytest
import torch

import zoo
from recipes.evaluate import main
from zoo.data.burst.dataset import BurstSample, generator
from zoo.data.burst.reading import BurstFiles, read_burst
from zoo.data.burst.stored import read_clean
from zoo.data.burst.synthesis import BurstSynthesis
from zoo.data.burst.writing import write_burst
from zoo.evaluation import burst as evaluation
from zoo.evaluation.burst import (
    BurstScore,
    BurstTest,
    burst_tests,
    evaluate_burst,
    mean_burst_score,
    score_burst,
)
from zoo.inference import RestoreSettings
from zoo.metrics.burst import linear_psnr
from zoo.networks import Network
from zoo.registry import Capabilities

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
    expected = linear_psnr(restored, read_clean(folder / "gt" / "im_rgb.png", raw=True), border=4)
    assert float(lines[0]["psnr"]) == pytest.approx(expected, abs=0.01)


def test_a_burst_without_a_clean_image_is_named(weights, bursts, capsys):
    (bursts / "burst_1" / "gt" / "im_rgb.png").unlink()
    assert main([*weights, "--data", str(bursts)]) == 2
    said = capsys.readouterr().err
    assert "burst_1" in said and "no clean image" in said


def test_a_report_that_cannot_be_written_is_told_before_the_scoring(weights, bursts, capsys):
    weights = [*weights[:-1], str(bursts / "burst_0" / "meta.json")]
    assert main([*weights, "--data", str(bursts)]) == 2
    said = capsys.readouterr()
    assert "cannot write" in said.err and not said.out


def test_the_frozen_set_is_scored(weights, capsys):
    assert main(weights) == 0
    said = capsys.readouterr().out
    assert (
        re.search(r"\| samples \| \d+ \| made \|", said)
        and "Linear PSNR (dB) and SSIM, 14 bits" in said
    )


def test_scores_of_rgb_bursts_are_not_said_to_be_linear(weights, tmp_path, capsys):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(recipe.read_text().replace("network:\n", "network:\n  channels: 3\n"))
    zoo.save(zoo.build(str(recipe)), tmp_path / "small.safetensors")
    assert main(weights) == 0
    assert (
        "PSNR (dB) and SSIM of RGB values, as they are stored, 14 bits" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "words",
    [["--ensemble"], ["--official-tiling"], ["--degrade"], ["--sets", "Set5"],
     ["--save-images", "kept"]],
)  # fmt: skip
def test_options_for_single_images_are_refused(weights, capsys, words):
    assert main([*weights, *words]) == 2
    assert f"{words[0]} is for single images" in capsys.readouterr().err


def test_tiles_and_precision_of_evaluation_reach_what_restores(weights, bursts, monkeypatch):
    seen = []

    def restored(network, burst, settings):
        seen.append(settings)
        return torch.zeros(3, 64, 64)

    monkeypatch.setattr(evaluation, "restore_burst", restored)
    assert main([*weights, "--data", str(bursts)]) == 0
    assert main([*weights, "--data", str(bursts), "-t", "64", "--precision", "bf16"]) == 0
    assert main([*weights, "--data", str(bursts), "--tf32"]) == 0
    expected = [RestoreSettings(tile=0), RestoreSettings(tile=64, precision="bf16")]
    expected.append(RestoreSettings(tile=0, tf32=True))
    assert seen == [each for each in expected for _ in range(2)]


class Mean(Network):
    """Shows the mean of the frames and how strong the flow is; in training, nothing."""

    scale, channels, capabilities = 2, 3, Capabilities(input="burst")

    def __init__(self, flow_prior):
        super().__init__()
        self.unit, self.flow_prior = torch.nn.Parameter(torch.ones(())), flow_prior

    def forward(self, burst_BTIHW, flow_BT2HW=None):
        image = burst_BTIHW.mean(1)
        if self.flow_prior == "given":
            image = image + 0.01 * flow_BT2HW.abs().mean()
        image = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return image * 0 if self.training else image


@pytest.mark.parametrize("flow_prior", ["none", "given"])
@pytest.mark.parametrize("training", [False, True])
def test_scores_are_of_the_burst_of_the_reference_alone_and_of_its_enlargement(
    flow_prior, training
):
    frames, clean = torch.rand(3, 3, 12, 16) * 0.8, torch.rand(3, 24, 32)
    ramp = torch.arange(24)[:, None] * 0.02 + torch.arange(32) * 0.01
    frames[0] = ramp[::2, ::2]
    flow = torch.rand(3, 2, 12, 16)
    network = Mean(flow_prior).train(training)
    found = score_burst(network, BurstSample(frames, clean, flow), border=6)
    moved = 0.01 * flow.mean() if flow_prior == "given" else 0

    def expected(image):
        x = (image.double() * 2**14).floor()[:, 6:-6, 6:-6] / 2**14
        return float(-10 * (x - clean[:, 6:-6, 6:-6]).square().mean().log10())

    def enlarged(image):
        return image.repeat_interleave(2, 1).repeat_interleave(2, 2)

    assert found.restored == pytest.approx(expected(enlarged(frames.mean(0) + moved)), abs=1e-3)
    assert found.all_reference == pytest.approx(expected(enlarged(frames[0])), abs=1e-3)
    # Pixel i of the frame lies on pixel 2 i: the ramp is whole again.
    assert found.baseline == pytest.approx(expected(ramp.expand(3, -1, -1)), abs=1e-3)
    assert network.training is training
    burst_test = BurstTest("a", lambda: (BurstFiles("a", frames), clean))
    if flow_prior == "none":
        score = evaluate_burst(network, burst_test, 6, RestoreSettings())
        assert score.psnr == pytest.approx(found.restored, abs=1e-4)
        assert score.baseline_psnr == pytest.approx(found.baseline, abs=1e-4)


def test_the_mean_over_bursts_is_that_of_each_column():
    mean = mean_burst_score([BurstScore(1, 2, 3), BurstScore(3, 6, 9), BurstScore(*[math.inf] * 3)])
    assert mean == BurstScore(restored=2, baseline=4, all_reference=6)
    mean = mean_burst_score([BurstScore(1, math.inf, 3), BurstScore(3, 6, 9)])
    assert mean == BurstScore(restored=3, baseline=6, all_reference=9)  # over the same bursts


def test_clean_images_of_the_public_layout_lie_in_a_folder_of_their_own(bursts, tmp_path):
    """``bursts/NAME`` and ``gt/NAME/im_rgb.png``."""
    for folder in bursts.iterdir():
        clean = tmp_path / "public" / "gt" / folder.name
        clean.mkdir(parents=True)
        (folder / "gt" / "im_rgb.png").rename(clean / "im_rgb.png")
    (bursts).rename(tmp_path / "public" / "bursts")
    tests = burst_tests(str(tmp_path / "public"), None)
    assert [test.name for test in tests] == ["burst_0", "burst_1"]
    for test in tests:
        burst, clean = test.load()
        assert burst.name == test.name
        expected = read_clean(tmp_path / "public" / "gt" / test.name / "im_rgb.png", raw=True)
        assert torch.equal(clean, expected)
