"""What may differ when a run is resumed, what is refused and how, and what goes on as it began."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import zoo.training.request as request
from recipes.train import Trainer, train
from tests.helpers.interruption import interrupted_at
from tests.helpers.toy import register_toy
from tests.helpers.toy_training import assert_equal, log_of, recipe_of
from zoo.data import Photo, write_photo
from zoo.errors import CheckpointError
from zoo.recipe import Recipe
from zoo.training.checkpoint import latest_checkpoint
from zoo.training.metrics_log import read_metrics
from zoo.training.request import differences, is_below, refusal, request_of
from zoo.training.settings import BurstDataSettings, DataSettings, TrainSettings


@pytest.fixture(autouse=True)
def _toy():
    register_toy()


def asked(train, budget=None, **more):
    return request_of(Recipe(name="a", network={"type": "toy"}, train=train, **more), budget)


def test_what_differs_is_named_with_both_values():
    before = asked({"clip": 1.0, "schedule": {"type": "cosine", "hold": 3}, "data": {"patch": 8}})
    now = asked({"clip": 0.5, "schedule": {"type": "cosine"}, "data": {"patch": 8}, "ema": 0.9})
    found = differences(before, now)
    assert found.keys() == {"train.clip", "train.schedule.hold", "train.ema"}
    assert found["train.clip"] == (1.0, 0.5)
    told = refusal(found, Path("run"))
    assert told == (
        "the run was begun with other settings (train.clip was 1.0 and is 0.5; train.ema was not "
        "set and is 0.9; train.schedule.hold was 3 and is not set); give the settings of that run, "
        "or choose another --output"
    )


def test_a_few_differences_are_told_and_long_values_are_cut():
    found = {f"train.loss.a{n}": ("x" * 500, ["y" * 50] * 50) for n in range(9)}
    told = refusal(found, Path("run"))
    assert told.count(" was ") == 4 and "; 6 more); " in told and len(told) < 600


@pytest.mark.parametrize("key", ["iterations", "epochs"])
def test_a_longer_training_is_told_how_to_begin(key):
    told = refusal(differences(asked({key: 10}), asked({key: 20})), Path("my/run"))
    assert f"(train.{key} was 10 and is 20); to train longer, choose another --output and" in told
    assert told.endswith(f"initial={Path('my/run/weights.safetensors')}")


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"clip": 1}, {"clip": 1.0}),
        ({"loss": "l1"}, {"loss": {"type": "l1"}}),
        ({"data": {"photos": "a"}}, {"data": {"photos": "./a/"}}),
        ({"data": {"photos": ["a", "b"]}}, {"data": {"photos": ["link", "b/../b"]}}),
        ({"initial": "a/w"}, {"initial": "link/w"}),
    ],
)
def test_another_spelling_is_no_difference(before, now, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "w").touch()
    (tmp_path / "link").symlink_to("a")
    assert differences(asked(before), asked(now)) == {}
    absolute = {"data": {"photos": str(tmp_path / "a")}}
    assert differences(asked({"data": {"photos": "a"}}), asked(absolute)) == {}


def test_a_budget_is_a_time_however_it_is_written():
    assert differences(asked({}, "10m"), asked({}, "600s")) == {}
    found = differences(asked({}, "10m"), asked({}))
    assert "(--budget was '10m' and is not set)" in refusal(found, Path("run"))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"data": {"photos": "samples"}}, {"data": {"photos": "./samples"}}),
        ({"initial": "mambair_tiny_x2"}, {"initial": "./mambair_tiny_x2"}),
        ({"data": {"photos": "a"}}, {"data": {"photos": "b"}}),
        ({"data": {"photos": ["a", "b"]}}, {"data": {"photos": ["b", "a"]}}),
        ({"data": {"photos": ["a"]}}, {"data": {"photos": ["a", "b"]}}),
        ({"data": {"sharpen": {}}}, {"data": {}}),
        ({"data": {"augment": "flip"}}, {"data": {"augment": False}}),
    ],
)
def test_what_trains_something_else_differs(before, now):
    assert refusal(differences(asked(before), asked(now)), Path("run")) is not None


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "[{}]", "{}", "[" * 100_000, '[{}, 1]', "null", None, 7]
)  # fmt: skip
def test_what_is_no_request_is_a_value_error(text):
    with pytest.raises(ValueError):
        differences(text, asked({}))


def test_keys_that_may_differ_exist():
    """And those of the network, the loss and the optimiser are not among them."""
    known = {f"train.{name}" for name in TrainSettings.__dataclass_fields__}
    for kind in (DataSettings, BurstDataSettings):
        known |= {f"train.data.{name}" for name in kind.__dataclass_fields__}
    known |= set(Recipe.__dataclass_fields__)
    assert set(request.FREE) <= known
    measured = {"validate", "validate_degraded", "validate_guides", "validate_real"}
    measured |= {"validate_patch", "validate_bursts"}
    expected = {f"train.data.{name}" for name in measured | {"memory", "paper"}}
    expected |= {"train.log_every", "train.save_every", "train.keep"}
    expected |= {"evaluate", "name", "summary", "paper"}
    assert {key for key in known if is_below(key, request.FREE)} == expected
    for key in ("network.dim", "train.optimizer.lr", "train"):
        assert not is_below(key, request.FREE)
    assert is_below("evaluate.crop", request.FREE) and not is_below("evaluated", request.FREE)


FREE = {
    "save_every": 3,
    "log_every": 2,
    "keep": 5,
    "data": {"memory": 0.0},
}


def test_what_may_differ_changes_no_weight(photos, tmp_path, caplog):
    """Validated on other photos and in another way, saved at other steps, read from the disk."""
    settings = {"network": {"noisy": True, "drop_path": 0.3}, "ema": 0.8}
    settings |= {"optimizer": {"lr": 0.01}, "schedule": {"type": "cosine"}, "iterations": 12}
    whole = train(recipe_of(photos, **settings, save_every=4), tmp_path / "whole", num_workers=0)
    with interrupted_at(6):
        train(recipe_of(photos, **settings, save_every=4), tmp_path / "run", num_workers=0)
    held_out = tmp_path / "held_out"
    held_out.mkdir()
    write_photo(held_out / "z.png", Photo(np.full((20, 20, 3), 0.5, np.float32)))
    changed = {**FREE, "data": {**FREE["data"], "validate": str(held_out)}}
    other = recipe_of(photos, **settings, **changed, evaluation={"crop": 1, "channel": "all"})
    with caplog.at_level(logging.INFO):
        again = train(other, tmp_path / "run", num_workers=0)
    assert "resumed at step 4; changed: " in caplog.text and "train.save_every" in caplog.text
    assert_equal(again.network.state_dict(), whole.network.state_dict())
    assert_equal(again.ema.state, whole.ema.state)
    lines = log_of(tmp_path / "run")
    assert [line["step"] for line in lines if "psnr" in line] == [4, 6, 9, 12]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 6, 8, 10, 12]
    assert [photo["name"] for photo in lines[-1]["photos"]] == ["z"]


def test_what_differs_is_told_and_the_run_is_left_alone(photos, tmp_path):
    train(recipe_of(photos, iterations=2), tmp_path, num_workers=0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    message = (
        r"checkpoint-00000002\.pt: the run was begun with other settings \(train\.clip was not set "
        r"and is 0\.5; train\.iterations was 2 and is 3\); give the settings"
    )
    with pytest.raises(CheckpointError, match=message):
        train(recipe_of(photos, iterations=3, clip=0.5), tmp_path, num_workers=0)
    with pytest.raises(CheckpointError, match=r"initial=.*weights\.safetensors$"):
        train(recipe_of(photos, iterations=3), tmp_path, num_workers=0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_finished_run_is_measured_anew_if_what_is_measured_changes(photos, tmp_path):
    first = train(recipe_of(photos, iterations=2), tmp_path, num_workers=0)
    for _ in range(2):  # once
        other = recipe_of(photos, iterations=2, evaluation={"channel": "all"})
        assert_equal(train(other, tmp_path, num_workers=0).network.state_dict(),
                     first.network.state_dict())  # fmt: skip
        scores = [line["psnr"] for line in read_metrics(tmp_path) if "psnr" in line]
        assert len(scores) == 2 and scores[0] != scores[1]


SCHEDULES = {
    "cosine": {"schedule": {"type": "cosine", "hold": 2, "warmup": 3}},
    "multistep": {"schedule": {"type": "multistep", "milestones": [3, 7]}},
    "adversarial": {
        "schedule": {"type": "multistep", "milestones": [3, 7]},
        "adversarial": {
            "discriminator": {"type": "unet_spectral", "dim": 2},
            "schedule": {"type": "multistep", "milestones": [5]},
        },
    },
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("change", [2, -1])
def test_photos_that_are_added_or_gone_leave_the_schedule_as_it_began(
    change, name, photos, tmp_path, caplog
):
    """Twelve epochs of three photos; with five or two, they would be other numbers of steps."""
    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    settings = {**SCHEDULES[name], "iterations": None, "epochs": 12, "data": {"batch": 3}}
    recipe = recipe_of(mine, **settings, save_every=4)
    whole = train(recipe, tmp_path / "whole", num_workers=0)
    with interrupted_at(6):
        train(recipe, tmp_path / "run", num_workers=0)
    assert not caplog.text
    if change < 0:
        (mine / "2.png").unlink()
    for number in range(change):
        shutil.copy(mine / "0.png", mine / f"more{number}.png")
    again = train(recipe, tmp_path / "run", num_workers=0)
    assert f"has {3 + change} photos or bursts, and had 3 when the run began" in caplog.text
    assert again.recipe.train == whole.recipe.train and again.step == 12
    rates = [
        {line["step"]: line["lr"] for line in log_of(tmp_path / run) if "lr" in line}
        for run in ("run", "whole")
    ]
    assert rates[0] == rates[1]


def test_a_shortened_schedule_goes_on_and_what_is_asked_anew_is_taken(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(Trainer, "measure", lambda self, allowed: (1.0, 0.0))
    monkeypatch.setattr("recipes.train.affordable", lambda *_: 8)
    settings = {"iterations": 100, "schedule": {"type": "multistep", "milestones": [50]}}
    settings |= {"data": {"stages": [{"iterations": 50, "patch": 4, "batch": 2}] * 2}}
    recipe = recipe_of(photos, **settings, save_every=10)
    with interrupted_at(5):
        train(recipe, tmp_path, num_workers=0, budget="10s")
    _, state = latest_checkpoint(tmp_path)
    begun = json.loads(state["recipe"])["train"]
    assert (begun["iterations"], begun["save_every"]) == (8, 2)
    again = train(
        recipe_of(photos, **settings, save_every=3), tmp_path, num_workers=0, budget="10s"
    )
    assert again.step == 8 and list(again.settings.schedule.milestones) == [4]
    assert [stage.iterations for stage in again.task.plan] == [4, 4]
    assert (again.settings.save_every, again.settings.log_every) == (3, 1)
