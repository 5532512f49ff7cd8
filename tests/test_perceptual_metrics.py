"""LPIPS, NIQE and MUSIQ: what pyiqa is given, and what is said where it is missing."""

from __future__ import annotations

import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

import recipes.evaluate
import recipes.train
from zoo.cli import main
from zoo.errors import ImageError, ZooError
from zoo.evaluation import Protocol, Restored, mean_score, score
from zoo.metrics import METRICS, Lpips, Musiq, Niqe
from zoo.schema import resolve_part


@pytest.fixture
def pyiqa(monkeypatch):
    """A stand-in for the library: it notes its calls, and a value is the sum of its arguments."""
    module = ModuleType("pyiqa")
    module.made, module.seen = [], []

    class Made:
        def __init__(self, name, device):
            self.name, self.device = name, device

        def __call__(self, *images):
            module.seen.append(images)
            assert torch.is_inference_mode_enabled()
            return torch.stack([image.mean() for image in images]).sum()[None, None]

    def create_metric(name, device=None):
        module.made.append((name, device))
        return Made(name, device)

    module.create_metric = create_metric
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return module


def picture(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.1, 1.1, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options", "model", "images"),
    [
        ("lpips", {}, "lpips", 2),
        ("lpips", {"net": "vgg"}, "lpips-vgg", 2),
        ("niqe", {}, "niqe", 1),
        ("musiq", {}, "musiq", 1),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_pyiqa_gets_8_bit_rgb_of_the_images_it_compares(
    name, options, model, images, channels, pyiqa
):
    metric = resolve_part(METRICS, {"type": name, **options}, "metric")()
    restored, clean = picture(96, 100, channels), picture(96, 100, channels, seed=1)
    found = [metric(restored, clean, 4) for _ in range(2)]
    assert pyiqa.made == [(model, torch.device("cpu"))]  # once
    [(*given,), _] = pyiqa.seen
    assert len(given) == images
    for image, source in zip(given, (restored, clean), strict=False):
        assert image.dtype == torch.float32 and image.shape == (1, 3, 96, 100)
        levels = np.round(np.clip(source, 0, 1) * 255)
        expected = np.broadcast_to(levels, (96, 100, 3))
        np.testing.assert_allclose(image[0].permute(1, 2, 0).numpy() * 255, expected, atol=1e-4)
    assert found == [{name: pytest.approx(float(sum(image.mean() for image in given)))}] * 2


def test_a_protocol_measures_them_without_the_border(pyiqa):
    images = [picture(104, 108, 3, seed=n).clip(0, 1) for n in range(2)]
    strip = Restored(degraded=images[0], baseline=None, restored=images[0], clean=images[1])
    protocol = Protocol(crop=4, metrics=(Lpips(), Niqe()))
    found = score("a", strip, 1, protocol)
    assert set(found.others) == {"lpips", "niqe"}
    assert [image.shape[2:] for images in pyiqa.seen for image in images] == [(96, 100)] * 3
    assert mean_score([found, found]).others == pytest.approx(found.others)


@pytest.mark.parametrize(("metric", "smallest"), [(Lpips, 32), (Niqe, 96), (Musiq, 32)])
def test_small_images_have_no_value(metric, smallest, pyiqa):
    made = metric()
    [found] = made(*[picture(smallest - 1, 200, 3)] * 2, 2).values()
    assert math.isnan(found) and not pyiqa.seen
    [found] = made(*[picture(smallest, smallest, 3)] * 2, 2).values()
    assert math.isfinite(found)


def test_other_channels_are_refused(pyiqa):
    with pytest.raises(ImageError, match="niqe is of gray and RGB images, not of 4 channels"):
        Niqe()(picture(96, 96, 4), picture(96, 96, 4), 1)


def test_a_missing_library_is_one_sentence_with_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ZooError) as error:
        Musiq()(picture(96, 96, 3), picture(96, 96, 3), 1)
    assert "the metric musiq needs pyiqa" in str(error.value)
    assert "pip install pyiqa (the extra [metrics])" in str(error.value)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_missing_library_is_told_before_the_first_step(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    monkeypatch.chdir(tmp_path)
    if command == "train":
        words = ["train", "mambair_tiny_x2", "iterations=1", "evaluate.metrics=[lpips]"]
        monkeypatch.setattr(recipes.train.Trainer, "_train_step", None)
    else:
        file = tmp_path / "mine.yaml"
        file.write_text("extends: mambair_tiny_x2\nevaluate: {metrics: [lpips]}\n")
        words = ["evaluate", str(file), "-w", "mambair_tiny_x2"]
        monkeypatch.setattr(recipes.evaluate, "evaluate", None)
    assert main(words) == 2
    assert "the metric lpips needs pyiqa" in capsys.readouterr().err


def test_weights_that_cannot_be_fetched_are_said(pyiqa, monkeypatch):
    def failing(name, device=None):
        raise OSError("no connection")

    monkeypatch.setattr(pyiqa, "create_metric", failing)
    with pytest.raises(
        ZooError, match=r"cannot load the metric lpips \(OSError: no connection\); .*first use"
    ):
        Lpips()(picture(96, 96, 3), picture(96, 96, 3), 1)


def test_nothing_is_imported_before_a_metric_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    for name in ("lpips", "niqe", "musiq"):
        METRICS.get(name).target()
