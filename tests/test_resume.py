"""A training that was stopped, however it was, goes on as if it had not been, bit for bit."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.training import losses, make_photos, train, words
from zoo.training.metrics_log import read_metrics

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent

AVERAGED = ["ema=0.9", "data.mixup=1.2", "log_every=2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(photos, folder, *AVERAGED) == 0
    return folder


def script(photos, run, setup, num_workers):
    """Train in a process of its own, after some preparation."""
    code = "\n".join(
        [
            "import os, signal, sys, torch",
            f"sys.path[:0] = [{str(ROOT)!r}]",
            "import recipes.train as trainer",
            setup,
            f"sys.exit(trainer.main({words(photos, run, *AVERAGED, num_workers=num_workers)!r}))",
        ]
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        # Sums are cut among threads: bits are the same for the same number of them.
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )


def state_of(run, step=6):
    return torch.load(run / f"checkpoint-{step:08d}.pt", weights_only=True)


def scores(run):
    """PSNR by step."""
    lines = [line for line in read_metrics(run) if "psnr" in line]
    found = {line["step"]: line["psnr"] for line in lines}
    assert len(found) == len(lines)
    return found


def assert_same(run, whole):
    assert losses(run) == losses(whole)
    found, expected = state_of(run), state_of(whole)
    for part in ("network", "ema"):
        for key, value in expected[part].items():
            assert torch.equal(found[part][key], value), key
    for number, slot in expected["optimizer"]["state"].items():
        assert all(torch.equal(found["optimizer"]["state"][number][k], v) for k, v in slot.items())
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


KILLED_WHILE_WRITING = """
write = torch.save
def torn(state, file):
    write(state, file)
    if state.get("step") == 6:
        file.truncate(5000)
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = torn
"""


def test_killed_while_writing_a_checkpoint(photos, whole, tmp_path):
    run = tmp_path / "run"
    assert script(photos, run, KILLED_WHILE_WRITING, num_workers="0").returncode == -signal.SIGKILL
    assert [path.name for path in run.glob("*.pt")] == ["checkpoint-00000003.pt"]
    assert [path for path in run.iterdir() if path.name.startswith(".zoo-")]
    assert train(photos, run, *AVERAGED) == 0
    assert_same(run, whole)


READER_KILLED = """
import multiprocessing, time
step = trainer.Trainer._train_step
def killed(self, parts):
    if self.step == 1:
        [reader] = multiprocessing.active_children()
        os.kill(reader.pid, signal.SIGKILL)
        time.sleep(0.5)  # the system tells of its end now, in the middle of a step
    return step(self, parts)
trainer.Trainer._train_step = killed
"""


def test_when_the_reader_is_killed_the_steps_are_saved(photos, whole, tmp_path):
    run = tmp_path / "run"
    done = script(photos, run, READER_KILLED, num_workers="1")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "a process that loads data ended unexpectedly" in done.stderr
    [saved] = run.glob("*.pt")
    assert f"saved at step {int(saved.stem[-8:])}; the same command resumes there" in done.stderr
    assert train(photos, run, *AVERAGED) == 0
    assert_same(run, whole)


def test_when_a_photo_is_gone_the_steps_are_saved(photos, whole, tmp_path):
    run = tmp_path / "run"
    gone = """
from zoo.data.patches import PatchDataset
read = PatchDataset.__getitem__
def gone(self, index):
    if index == 9:
        raise trainer.ZooError("photo 0.png is gone; bring it back")
    return read(self, index)
PatchDataset.__getitem__ = gone
"""
    done = script(photos, run, gone, num_workers="1")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "saved at step 4; the same command resumes there" in done.stderr
    assert done.stderr.endswith("error: photo 0.png is gone; bring it back\n")
    assert train(photos, run, *AVERAGED) == 0
    assert_same(run, whole)


def test_a_validation_that_fails_costs_no_step_and_is_repeated(photos, whole, tmp_path):
    mine, run = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photos, mine)
    gone = f"""
step = trainer.Trainer._train_step
def without(self, parts):
    if self.step == 2:
        os.rename({str(mine)!r}, {str(mine) + "_"!r})
    return step(self, parts)
trainer.Trainer._train_step = without
"""
    done = script(mine, run, gone, num_workers="0")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "the validation of step 3 failed, its checkpoint is saved" in done.stderr
    assert "error: 0: " in done.stderr and str(mine / "0.png") in done.stderr
    assert [path.name for path in run.glob("*.pt")] == ["checkpoint-00000003.pt"]
    assert (run / "weights.safetensors").is_file() and state_of(run, 3)["step"] == 3
    mine.with_name("photos_").rename(mine)
    assert train(mine, run, *AVERAGED) == 0
    assert_same(run, whole)
    assert scores(run) == scores(whole) and list(scores(run)) == [3, 6]


KILLED_IN_A_VALIDATION = """
from zoo.training.photo_task import PhotoTask
def killed(self, network, group):
    os.kill(os.getpid(), signal.SIGKILL)
PhotoTask.validate = killed
"""


def test_killed_in_a_validation(photos, whole, tmp_path):
    run = tmp_path / "run"
    found = script(photos, run, KILLED_IN_A_VALIDATION, num_workers="0")
    assert found.returncode == -signal.SIGKILL
    assert state_of(run, 3)["step"] == 3
    assert train(photos, run, *AVERAGED) == 0
    assert_same(run, whole)
    assert scores(run) == scores(whole)


SIGNALLED = """
step = trainer.Trainer._train_step
def signalled(self, parts):
    value = step(self, parts)
    if self.step == 4:
        os.killpg(0, signal.SIGTERM)
    return value
trainer.Trainer._train_step = signalled
"""


def test_sigterm_to_the_whole_group_saves_the_step_and_the_reader_says_nothing(
    photos, whole, tmp_path
):
    run = tmp_path / "run"
    found = script(photos, run, SIGNALLED, num_workers="1")
    assert found.returncode == 130, found.stderr
    assert "stopped at step 4" in found.stderr
    assert "error" not in found.stderr.lower(), found.stderr
    assert state_of(run, 4)["step"] == 4
    assert train(photos, run, *AVERAGED, num_workers="1") == 0
    assert_same(run, whole)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(photos, whole, tmp_path, caplog, damage):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    newest = run / "checkpoint-00000006.pt"
    data = bytearray(newest.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 0xFF
    newest.write_bytes(data)
    with caplog.at_level(logging.INFO):
        assert train(photos, run, *AVERAGED) == 0
    assert "checkpoint-00000006.pt, which is damaged" in caplog.text
    assert "resumed at step 3" in caplog.text
    assert_same(run, whole)


def test_another_recipe_does_not_resume(photos, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(photos, run) == 0
    assert train(photos, run, "optimizer.lr=1e-5") == 2
    assert "train.optimizer.lr was 0.001 and is 1e-05" in capsys.readouterr().err
