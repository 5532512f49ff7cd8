"""The trainer: it learns, resumes bit for bit, survives a kill, and names mistakes early."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.data import Photo, write_photo
from zoo.losses import L1, Charbonnier
from zoo.settings import ScheduleSettings

sys.path.insert(0, str(Path(__file__).parent.parent))
from recipes.train import main

SETTINGS = [
    "network.dim=32",
    "network.depths=[1]",
    "network.drop_path=0.3",
    "network.scans=[{type: raster, directions: [row]}]",
    "data.patch=8",
    "data.batch=2",
    "iterations=6",
    "save_every=3",
    "log_every=1",
]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).random((40, 48, 3)).astype(np.float32)
        write_photo(folder / f"{index}.png", Photo(pixels))
    return folder


def train(photos, output, *more, workers="0"):
    words = [
        "mambair_tiny_x2",
        *SETTINGS,
        f"data.photos={photos}",
        f"data.validate={photos}",
        *more,
    ]
    return main([*words, "--output", str(output), "--workers", workers])


def losses(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_a_resumed_run_is_the_uninterrupted_one(photos, tmp_path, monkeypatch):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert train(photos, whole) == 0

    from recipes.train import Trainer

    step = Trainer._train_step

    def killed(self, *batch):
        if self.step == 4:
            raise RuntimeError("killed")
        return step(self, *batch)

    monkeypatch.setattr(Trainer, "_train_step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        train(photos, parted)
    monkeypatch.undo()
    assert train(photos, parted, workers="1") == 0
    assert losses(parted) == losses(whole)
    first, second = (torch.load(f / "checkpoint.pt", weights_only=True) for f in (whole, parted))
    for key, value in first["network"].items():
        assert torch.equal(value, second["network"][key]), key
    assert not [p for p in parted.iterdir() if p.name.startswith(".")]


def test_an_interrupt_saves(photos, tmp_path, monkeypatch):
    from recipes.train import Trainer

    step = Trainer._train_step

    def interrupted(self, *batch):
        if self.step == 2:
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    assert train(photos, tmp_path / "run") == 130
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 2


def test_training_lowers_the_loss(photos, tmp_path):
    assert train(photos, tmp_path / "run", "iterations=40", "optimizer.lr=3e-3") == 0
    found = losses(tmp_path / "run")
    assert np.mean([found[s] for s in range(36, 41)]) < 0.8 * np.mean(
        [found[s] for s in range(1, 4)]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.lrr=1"], r"train\.optimizer\.lrr: unknown option.*did you mean 'lr'"),
        (["iterations=many"], r"train\.iterations: expected a whole number"),
        (["nonsense"], "write key=value"),
        (["data.patch=100"], r"has 48x40 pixels, but patches of 100"),
        (["loss=l3"], "unknown loss 'l3'"),
        (["data.degradation=noise"], "needs the option 'sigma'"),
        (["data.photos=/nowhere"], "'/nowhere' does not exist"),
        (["optimizer.lr=1e30"], "training diverged"),
        (["--import", "nothing_here"], "no module 'nothing_here'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(photos, tmp_path, caplog, words, message):
    with caplog.at_level(logging.ERROR):
        assert train(photos, tmp_path / "run", *words) == 2
    import re

    assert re.search(message, caplog.text), caplog.text


def test_another_recipe_does_not_resume_and_damage_is_told(photos, tmp_path, caplog):
    run = tmp_path / "run"
    assert train(photos, run) == 0
    assert train(photos, run, "optimizer.lr=1e-5") == 2
    assert "belongs to another recipe" in caplog.text
    (run / "checkpoint.pt").write_bytes(b"half")
    assert train(photos, run) == 2
    assert "checkpoint is damaged" in caplog.text


def test_a_recipe_without_training_says_so(tmp_path, caplog):
    assert main(["mambair_realdn", "--output", str(tmp_path / "run")]) == 2
    assert "no 'train' section" in caplog.text


def test_schedules():
    steps = ScheduleSettings(type="multistep", milestones=(10, 20), gamma=0.5)
    assert [steps.factor(s, 30, 1.0) for s in (0, 9, 10, 20)] == [1, 1, 0.5, 0.25]
    cosine = ScheduleSettings(type="cosine", minimum=0.1)
    assert cosine.factor(0, 10, 1.0) == pytest.approx(1)
    assert cosine.factor(5, 10, 1.0) == pytest.approx(0.55)
    assert cosine.factor(10, 10, 1.0) == pytest.approx(0.1)


def test_losses():
    a, b = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    assert L1()(a, b) == 1.5
    assert Charbonnier(epsilon=1e-3)(a, b) == pytest.approx(1.5, abs=1e-5)
    assert Charbonnier(epsilon=1e-3)(a, a) == pytest.approx(1e-3)
