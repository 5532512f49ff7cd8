"""What a trainer keeps beside the weights: random states, time, steps done, files of the run."""

from __future__ import annotations

import math
import os
import random
import signal

import numpy as np
import pytest
import torch

import recipes.train
import zoo
from recipes.train import Trainer, train
from tests.helpers.interruption import interrupted_at
from tests.helpers.toy import register_toy
from tests.helpers.toy_training import (
    ADAMW,
    STEPS,
    Several,
    assert_equal,
    log_of,
    recipe_of,
    trainer_of,
)
from zoo.distributed import ProcessGroup
from zoo.errors import WriteError, ZooError
from zoo.training import Progress
from zoo.training.photo_task import PhotoTask


@pytest.fixture(autouse=True)
def _toy():
    register_toy()


def test_a_trainer_counts_epochs_in_steps(photos, tmp_path):
    recipe = recipe_of(photos, epochs=3, iterations=None, data={"batch": 2})
    count = len(list(photos.iterdir()))
    trainer = Trainer(recipe, tmp_path, device="cpu", num_workers=0)
    assert trainer.settings.iterations == 3 * -(-count // 2) and not trainer.settings.epochs
    assert trainer.recipe.train["iterations"] == trainer.settings.iterations


def test_a_resume_restores_every_random_state_and_the_loss_scale(photos, tmp_path, lively_scale):
    """Python's, NumPy's and torch's numbers go on, as do scale, averages and means of the log."""
    settings = {
        "network": {"noisy": True, "drop_path": 0.3},
        "precision": "fp16",
        "ema": 0.8,
        "clip": 0.1,
        "save_every": 5,
        "log_every": 3,  # the checkpoint of step 10 holds a loss that is not logged yet
        "data": {"mixup": 0.5},
        "optimizer": ADAMW,
    }
    recipe = recipe_of(photos, **settings)
    whole = train(recipe, tmp_path / "whole", num_workers=0)
    with interrupted_at(13):
        train(recipe, tmp_path / "parted", num_workers=0)
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    parted = train(recipe, tmp_path / "parted", num_workers=0)
    assert_equal(parted.network.state_dict(), whole.network.state_dict())
    assert_equal(parted.ema.state, whole.ema.state)
    assert parted.scaler.state_dict() == whole.scaler.state_dict()
    first, second = (
        [(line["step"], line["loss"]) for line in log_of(tmp_path / run) if "loss" in line]
        for run in ("whole", "parted")
    )
    assert [number for number, _ in first] == [3, 6, 9, 12, 15, 18, 20]
    assert second == first


def test_processes_start_from_equal_weights_and_draw_drop_path_differently(photos, tmp_path):
    trainers, drawn = [], []
    for rank in range(3):
        trainers.append(trainer_of(photos, tmp_path, group=Several(rank, 3), seed=5))
        drawn.append(float(torch.rand(())))
    assert len(set(drawn)) == 3
    for other in trainers[1:]:
        assert_equal(other.network.state_dict(), trainers[0].network.state_dict())


def test_each_process_resumes_with_its_own_random_state(photos, tmp_path):
    trainer = trainer_of(photos, tmp_path, group=Several(1, 2))
    state = trainer.state()
    expected = float(torch.rand(()))
    other = dict(state["rng"][0], torch=torch.manual_seed(99).get_state())
    trainer.restore({**state, "rng": [other, state["rng"][1]]})
    assert float(torch.rand(())) == expected


@pytest.mark.parametrize("error", [ZooError, OSError, RuntimeError, MemoryError])
@pytest.mark.parametrize("step", [4, 8])
def test_no_error_of_a_validation_costs_a_step(step, error, photos, tmp_path, monkeypatch):
    """The last step, too; the validation is done again, and all is as if it had not failed."""
    recipe = recipe_of(photos, iterations=8, save_every=4, ema=0.8, network={"drop_path": 0.3})
    whole = train(recipe, tmp_path / "whole", num_workers=0)
    validate = PhotoTask.validate

    def failing(self, network, group):
        if trainers[-1].step == step:
            raise error("no space left")
        return validate(self, network, group)

    trainers, run = [], Trainer.run
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", lambda self: trainers.append(self) or run(self))
        patch.setattr(PhotoTask, "validate", failing)
        for _ in range(2):
            with pytest.raises(error, match="no space left"):
                train(recipe, tmp_path / "run", num_workers=0)
            assert (tmp_path / "run" / f"checkpoint-{step:08d}.pt").is_file()
            assert zoo.load(tmp_path / "run" / "weights.safetensors").scale == 2
    again = train(recipe, tmp_path / "run", num_workers=0)
    assert_equal(again.network.state_dict(), whole.network.state_dict())
    assert_equal(again.ema.state, whole.ema.state)
    first, second = (
        [(line["step"], line.get("loss"), line.get("psnr")) for line in log_of(tmp_path / run)]
        for run in ("whole", "run")
    )
    assert first == second


def test_pictures_that_cannot_be_written_cost_no_step(photos, tmp_path, monkeypatch):
    recipe = recipe_of(photos, iterations=2)

    def full(*_):
        raise WriteError("validation/0.png: cannot write: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zoo.training.metrics_log.write_photo", full)
        with pytest.raises(WriteError, match="No space left"):
            train(recipe, tmp_path, num_workers=0)
    assert not [line for line in log_of(tmp_path) if "psnr" in line]
    assert train(recipe, tmp_path, num_workers=0).step == 2
    assert [line["step"] for line in log_of(tmp_path) if "psnr" in line] == [2]
    assert len(list((tmp_path / "validation").glob("*.png"))) == 3


def test_a_validation_that_draws_numbers_changes_no_training(photos, tmp_path, monkeypatch):
    """So that the number of validations, and what they measure, can change at a resume."""
    settings = {"iterations": 6, "network": {"noisy": True, "drop_path": 0.3}}
    often = recipe_of(photos, **settings, save_every=1)
    rarely = recipe_of(photos, **settings, save_every=6)
    validate = PhotoTask.validate

    def drawing(self, network, group):
        random.random(), np.random.rand(), torch.rand(3)
        return validate(self, network, group)

    monkeypatch.setattr(PhotoTask, "validate", drawing)
    first, second = (
        train(recipe, tmp_path / name, num_workers=0)
        for name, recipe in (("often", often), ("rarely", rarely))
    )
    assert_equal(first.network.state_dict(), second.network.state_dict())


def test_measuring_takes_the_state_back(photos, tmp_path, lively_scale):
    """Weights, buffers, averages, optimiser, scale, random states and the step; four are taken."""
    trainer = trainer_of(
        photos, tmp_path, precision="fp16", ema=0.5, network={"noisy": True, "drop_path": 0.5}
    )
    before = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    weights = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    scale = trainer.scaler.get_scale()
    taken, step = [], trainer._train_step
    trainer._train_step = lambda parts: taken.append(1) or step(parts)
    assert min(trainer.measure()) > 0 and len(taken) == 4
    after = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    assert after == before
    assert trainer.step == 0 and trainer.optimizer.state_dict()["state"] == {}
    assert trainer.scaler.get_scale() == scale
    assert_equal(trainer.network.state_dict(), weights)
    assert_equal(trainer.ema.state, weights)


@pytest.mark.parametrize("length", [{"iterations": 1000}, {"iterations": None, "epochs": 1000}])
def test_a_budget_leaves_out_the_time_that_is_gone(length, photos, tmp_path, monkeypatch):
    """A hundred seconds, of which measuring took forty: 0.97 of sixty, without four validations."""
    clock = [0.0]
    monkeypatch.setattr("recipes.train.time.monotonic", lambda: clock[0])
    asked = []

    def measure(self, allowed):
        asked.append(allowed)
        clock[0] += 40
        return 2.0, 1.0

    monkeypatch.setattr(Trainer, "measure", measure)
    recipe = recipe_of(photos, **length)
    trainer = train(recipe, tmp_path / "run", num_workers=0, budget="100s")
    assert trainer.step == math.floor((60 * 0.97 - 4 * 1.0) / 2.0) == 27
    assert asked == [pytest.approx(5.0)]


def test_a_task_is_told_how_much_of_the_training_lies_behind(photos, tmp_path):
    trainer = trainer_of(photos, tmp_path, iterations=4)
    told, loss = [], trainer.task.loss

    def noted(forward, criterion, batch, done, critic):
        told.append(done)
        return loss(forward, criterion, batch, done, critic)

    trainer.task.loss = noted
    trainer.run()
    assert told == [0.0, 0.25, 0.5, 0.75]


def test_seconds_of_training_go_on_at_a_resume(photos, tmp_path):
    trainer = trainer_of(photos, tmp_path, iterations=2)
    assert trainer.seconds == 0
    trainer.restore({**trainer.state(), "seconds": 5000.0})
    assert trainer.seconds == 5000
    trainer.run()
    assert all(5000 <= line["seconds"] < 5100 for line in log_of(tmp_path))


def test_validating_and_saving_do_not_count_as_training_time(photos, tmp_path, monkeypatch):
    """The clock of the speed starts anew after each; and after each line of the log, at 3."""
    started, restart = [], Progress.restart_clock
    monkeypatch.setattr(
        Progress, "restart_clock", lambda self, step: started.append(step) or restart(self, step)
    )
    trainer_of(photos, tmp_path, iterations=3, save_every=2, log_every=9).run()
    assert started == [2, 3, 3]
    (tmp_path / "metrics.jsonl").unlink()  # as if it had been killed in the validation of step 2
    again = trainer_of(photos, tmp_path, iterations=3, save_every=2, log_every=9)
    again.step = 2
    again.run()
    assert started == [2, 3, 3, 2, 3, 3]


def test_the_time_of_a_step_is_the_median_without_the_first(photos, tmp_path, monkeypatch):
    """In seconds, as the mean over the processes; the first step also builds what is kept."""
    clock = [0.0]
    monkeypatch.setattr("recipes.train.time.monotonic", lambda: clock[0])

    def passing(seconds):
        clock[0] += seconds

    for world_size in (1, 2):
        group = Several(0, world_size)
        trainer = trainer_of(photos, tmp_path, group=group, data={"batch": 4 * world_size})
        steps = map(passing, (100.0, 5.0, 1.0, 9.0, 3.0))
        monkeypatch.setattr(trainer, "_train_step", lambda _, steps=steps: next(steps))
        trainer.task.validate = lambda *_: passing(7.0)
        # Five steps: after four, 115 seconds had been spent for each process.
        assert trainer.measure(allowed=116.0) == (5.0, 7.0)


def test_at_most_fifty_steps_are_measured(photos, tmp_path):
    trainer = trainer_of(photos, tmp_path, iterations=80)
    taken = []
    trainer._train_step = lambda parts: taken.append(1)
    trainer.task.validate = lambda *_: None
    trainer.measure(allowed=1e9)
    assert len(taken) == 50


def test_a_signal_in_the_last_step_interrupts_nothing(photos, tmp_path):
    trainer = trainer_of(photos, tmp_path, iterations=1)
    step = trainer._train_step
    trainer._train_step = lambda parts: os.kill(os.getpid(), signal.SIGTERM) or step(parts)
    try:
        trainer.run()
    except KeyboardInterrupt:
        pytest.fail("it was interrupted")
    assert trainer.step == 1 and (tmp_path / "weights.safetensors").is_file()


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_writes_and_shows_bars(rank, photos, tmp_path, monkeypatch):
    shown, make = [], recipes.train.make_task

    def noted(*given, progress):
        shown.append(progress)
        return make(*given, progress=progress)

    monkeypatch.setattr(recipes.train, "make_task", noted)
    trainer = trainer_of(photos, tmp_path, group=Several(rank, 2), save_every=2)
    trainer.save()
    trainer._publish()
    names = ["checkpoint-00000000.pt", "weights.safetensors"] if rank == 0 else []
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert shown == [rank == 0]


def test_a_run_that_was_killed_before_its_weights_were_written_writes_them(photos, tmp_path):
    recipe = recipe_of(photos, iterations=2, save_every=1, keep=1)
    group = ProcessGroup()
    first = train(recipe, tmp_path / "run", num_workers=0, group=group)
    assert first.num_workers == 0 and first.group is group
    weights = tmp_path / "run" / "weights.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    assert train(recipe, tmp_path / "run", num_workers=0).step == first.step == 2
    assert weights.read_bytes() == before


def test_a_state_of_no_step_or_of_other_processes_is_told(photos, tmp_path, caplog):
    trainer = trainer_of(photos, tmp_path)
    state = trainer.state()
    for step in (-1, STEPS + 1, "4"):
        with pytest.raises(ValueError, match=f"step {step!r} of {STEPS}"):
            trainer.restore({**state, "step": step})
    trainer.restore({**state, "step": STEPS})
    assert trainer.step == STEPS and not caplog.text
    drawn = torch.get_rng_state()
    trainer.restore({**state, "rng": state["rng"] * 3})
    assert "resuming with 1 processes instead of 3: the batches are the same" in caplog.text
    assert torch.equal(torch.get_rng_state(), drawn)


def test_processes_of_neighbouring_seeds_draw_different_numbers(photos, tmp_path):
    """Rank 2 of seed 5 is not rank 1 of seed 6."""
    drawn = set()
    for seed, rank in ((5, 1), (5, 2), (6, 1), (6, 2)):
        trainer_of(photos, tmp_path, group=Several(rank, 3), seed=seed)
        drawn.add(float(torch.rand(())))
    assert len(drawn) == 4


def test_the_bar_advances_at_every_step(photos, tmp_path, monkeypatch):
    advanced, advance = [], Progress.advance
    monkeypatch.setattr(Progress, "advance", lambda self: advanced.append(1) or advance(self))
    trainer_of(photos, tmp_path, iterations=3).run()
    assert len(advanced) == 3
