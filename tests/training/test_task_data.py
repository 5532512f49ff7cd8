"""What tasks ask of their data: every setting of the recipe arrives where examples are made."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

import zoo.training.burst_task as burst_task
import zoo.training.choose_task as choose_task
import zoo.training.photo_task as photo_task
from zoo.data.sharpening import Sharpening
from zoo.evaluation import Protocol
from zoo.networks import Guide
from zoo.recipe import load_recipe
from zoo.training.burst_task import BurstTask
from zoo.training.photo_task import PhotoTask
from zoo.training.settings import (
    BurstDataSettings,
    BurstTrainSettings,
    DataSettings,
    Stage,
    train_settings,
)


class Record:
    """Stands for functions and classes of a module: keeps what each is called with."""

    def __init__(self, monkeypatch, module, **returned):
        self.calls = []
        for name, value in returned.items():

            def stand_in(*words, name=name, value=value, **options):
                self.calls.append((name, words, options))
                return value

            monkeypatch.setattr(module, name, stand_in)

    def of(self, name):
        return [(words, options) for called, words, options in self.calls if called == name]


NETWORK = {"scale": 2, "channels": 1, "out_channels": 3, "guides": {"pan": Guide(channels=1)}}
SHARPEN = Sharpening(reach=3)


@pytest.fixture
def photos(monkeypatch):
    return Record(
        monkeypatch, photo_task, photo_files="files", counterparts=None, match_guides="guide",
        load_training_photos="photos", validation_images="held out", PatchDataset="patches",
        PairDataset="pairs",
    )  # fmt: skip


def photo_task_of(**data):
    settings = DataSettings(
        photos="clean", validate="valid", patch=5, batch=3, memory=1.5, range=(0, 9), **data
    )
    return PhotoTask(
        settings, SimpleNamespace(**NETWORK), protocol=Protocol(), iterations=4, seed=8,
        progress=True,
    )  # fmt: skip


EXAMPLES = {
    "patch": 5, "channels": 1, "length": 12, "seed": 8, "out_channels": 3, "guides": ["guide"],
    "augment": "flip", "sharpen": SHARPEN,
}  # fmt: skip
READ = {"memory": 1.5, "progress": True, "value_range": (0, 9)}
MORE = {
    "guides": {"pan": "p"}, "validate_guides": {"pan": "v"}, "augment": "flip", "sharpen": SHARPEN,
}  # fmt: skip


def test_photos_that_are_degraded(photos):
    made = []
    degradation = SimpleNamespace(for_data=lambda **options: made.append(options) or "degradation")
    task = photo_task_of(degradation=lambda **options: made.append(options) or degradation, **MORE)
    assert made == [{"scale": 2}, {"photographic": False}]
    assert photos.of("load_training_photos") == [
        (("clean",), {**READ, "floats_only": False}),
        (("p",), {**READ, "floats_only": True}),
    ]
    assert photos.of("match_guides") == [
        (("photos", "photos", NETWORK["guides"]["pan"], 2, "pan"), {})
    ]
    assert photos.of("validation_images") == [
        (("valid", None, 2), {"guides": ["v"], "value_range": (0, 9), "alike": False, "crop": 2})
    ]
    assert task.examples(task.plan[0]) == "patches" and not photos.of("counterparts")
    expected = {**EXAMPLES, "degradation": "degradation"}
    assert photos.of("PatchDataset") == [(("photos",), expected)] * 2  # once before the first step


def test_pairs_of_files(photos, caplog):
    with caplog.at_level(logging.INFO):
        task = photo_task_of(degraded="noisy", validate_degraded="vn", **MORE)
    assert not caplog.records  # no degradation is replaced
    assert photos.calls[:3] == [  # names are compared before any photo is read
        *(("photo_files", (name,), {}) for name in ("clean", "noisy")),
        ("counterparts", ("files", "files", 2), {}),
    ]
    assert photos.of("load_training_photos") == [
        *(((name,), {**READ, "floats_only": False}) for name in ("clean", "noisy")),
        (("p",), {**READ, "floats_only": True}),
    ]
    assert photos.of("validation_images") == [
        (("valid", "vn", 2), {"guides": ["v"], "value_range": (0, 9), "alike": False, "crop": 2})
    ]
    assert task.examples(task.plan[0]) == "pairs"
    assert photos.of("PairDataset")[-1] == (("photos", "photos"), {**EXAMPLES, "scale": 2})


@pytest.fixture
def bursts(monkeypatch):
    return Record(
        monkeypatch, burst_task, real_bursts="bursts", RealBurstDataset="examples",
        load_training_photos="photos", BurstDataset="made", ValidationBursts="held out",
        RealValidation="real", _validation_photos="valid",
    )  # fmt: skip


def burst_task_of(*, align_loss=False, progress=False, **data):
    settings = BurstTrainSettings(
        data=BurstDataSettings(
            patch=5, batch=3, validate_patch=6, validate_bursts=7, border=8, **data
        ),
        iterations=4, seed=8, align_loss=align_loss,
    )  # fmt: skip
    network = SimpleNamespace(needs_flow=False, channels=4, scale=8, burst=3)
    return BurstTask(settings, network, progress=progress)


@pytest.mark.parametrize("align", [True, False])
def test_real_bursts(bursts, align):
    task = burst_task_of(align_loss=align, real="r", validate_real="v")
    assert bursts.of("real_bursts") == [((name, 3, 8, 4), {}) for name in ("r", "v")]
    assert task.validation == "real" and task.aligned_validation == align
    assert bursts.of("RealValidation") == [(("bursts",), {"frames": 3, "scale": 8})]
    assert task.examples(task.plan[0]) == "examples"
    expected = {"frames": 3, "scale": 8, "patch": 5, "length": 12, "seed": 8}
    assert bursts.of("RealBurstDataset") == [(("bursts",), expected)]
    assert not bursts.of("load_training_photos")
    assert not burst_task_of(align_loss=True, real="r").aligned_validation


@pytest.mark.parametrize("progress", [True, False])
def test_bursts_that_are_made(bursts, progress):
    asked = []
    task = burst_task_of(
        progress=progress, photos="p", validate="v",
        synthesis=lambda **options: asked.append(options) or "synthesis",
    )  # fmt: skip
    assert asked == [{"frames": 3, "factor": 4, "mode": "raw"}] * 2
    assert bursts.of("load_training_photos") == [(("p",), {"progress": progress})]
    assert task.validation == "held out"
    assert bursts.of("ValidationBursts") == [
        (("valid",), {"synthesis": "synthesis", "patch": 6, "per_photo": 7})
    ]
    assert task.examples(task.plan[0]) == "made"
    expected = {"synthesis": "synthesis", "patch": 5, "length": 12, "seed": 8}
    assert bursts.of("BurstDataset") == [(("photos",), expected)]


@pytest.mark.parametrize(
    ("photos", "paper", "told"),
    [("samples", "theirs", True), ("samples", "", False), ("mine", "theirs", False)],
)
def test_the_papers_photos_are_named_where_others_are_trained_on(
    photos, paper, told, bursts, caplog, monkeypatch
):
    with caplog.at_level(logging.INFO, logger="zoo.train"):
        burst_task_of(photos=photos, paper=paper, synthesis=lambda **_: "synthesis")
    assert ("bundled photos; the paper uses theirs" in caplog.text) == told


@pytest.mark.parametrize("progress", [True, False, None])
def test_the_task_of_a_recipe_gets_its_settings(progress, monkeypatch):
    chosen = Record(
        monkeypatch, choose_task, PhotoTask="photos", BurstTask="bursts", protocol_of="protocol",
        evaluate_settings="wanted",
    )  # fmt: skip
    shown = {} if progress is None else {"progress": progress}
    recipe = load_recipe("mambair_light_x2", {"train.data.range": [0, 9], "train.seed": 3})
    settings, network = train_settings(recipe), SimpleNamespace(takes_burst=False)
    assert choose_task.make_task(recipe, settings, network, **shown) == "photos"
    assert chosen.of("protocol_of") == [(("wanted", network, (0, 9)), {})]
    told = {"protocol": "protocol", "iterations": settings.iterations, "seed": 3}
    told["progress"] = bool(progress)
    assert chosen.of("PhotoTask") == [((settings.data, network), told)]
    recipe = load_recipe("qmambabsr_tiny")
    settings, network = train_settings(recipe), SimpleNamespace(takes_burst=True)
    assert choose_task.make_task(recipe, settings, network, **shown) == "bursts"
    assert chosen.of("BurstTask") == [((settings, network), {"progress": bool(progress)})]


def test_examples_of_a_stage_are_indexed_from_the_first_of_the_training(photos):
    stages = (Stage(iterations=2, patch=5, batch=3), Stage(iterations=2, patch=7, batch=1))
    settings = DataSettings(degradation=lambda **_: SimpleNamespace(for_data=lambda **_: "d"),
                            photos="clean", validate="valid", stages=stages)  # fmt: skip
    network = SimpleNamespace(**{**NETWORK, "guides": {}})
    PhotoTask(settings, network, protocol=Protocol(), iterations=4, seed=8)
    found = [(options["patch"], options["length"]) for _, options in photos.of("PatchDataset")]
    assert found == [(5, 8), (7, 8)]
