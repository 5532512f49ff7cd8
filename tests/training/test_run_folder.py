"""The folder of a run: one trainer at a time, and the same end whatever lies there."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from recipes.train import main
from tests.helpers.toy import Toy, register_toy
from zoo.files import owned_folder
from zoo.plots.training_curves import render_runs
from zoo.registry import temporary_registrations
from zoo.training.metrics_log import read_metrics

WEIGHTS = "weights.safetensors"


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    register_toy()
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)  # no TensorBoard


@pytest.fixture(scope="module")
def recipe(photos, tmp_path_factory):
    """A recipe file of six steps, with a checkpoint after every second one."""
    data = {"degradation": "bicubic", "patch": 6, "batch": 2}
    data |= {"photos": str(photos), "validate": str(photos)}
    train = {"iterations": 6, "save_every": 2, "log_every": 1, "keep": 1, "ema": 0.9}
    network = {"type": "toy", "scale": 2, "drop_path": 0.3}
    path = tmp_path_factory.mktemp("recipe") / "toy.yaml"
    path.write_text(yaml.safe_dump({"network": network, "train": {**train, "data": data}}))
    return path


@pytest.fixture(scope="module")
def train(recipe):
    def run(folder):
        return main([str(recipe), "-o", str(folder), "--num-workers", "0"])

    return run


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("whole")
    with temporary_registrations(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
        register_toy()
        assert train(folder) == 0
    return folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the finished run, to be damaged."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def content(folder):
    """What a run leaves, without the times."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    result = {name: path.read_bytes() for name, path in found.items() if name.endswith("s")}
    lines = [json.loads(line) for line in found["metrics.jsonl"].read_bytes().splitlines()]
    for line in lines:
        line.pop("seconds"), line.pop("images_per_second", None)
    return {**result, "lines": lines, "names": sorted(found)}


def error_of(capsys):
    said = capsys.readouterr().err
    [line] = [line for line in said.splitlines() if "error" in line]
    assert len(line) < 500 and "Traceback" not in said
    return line


def test_a_second_trainer_says_who_trains_there_and_touches_nothing(train, run, capsys):
    with owned_folder(run, "a training"):
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        assert train(run) == 2
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    message = f"{run}: a training is running here already (process {os.getpid()} on "
    assert message in error_of(capsys)
    assert train(run) == 0


def damaged(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [Path.unlink, damaged], ids=["missing", "damaged"])
def test_the_weights_of_the_last_step_are_written_even_if_only_they_are_missing(
    train, whole, run, damage
):
    """A process killed after the last checkpoint, before the weights and the clean-up."""
    damage(run / WEIGHTS)
    shutil.copy(run / "checkpoint-00000006.pt", run / "checkpoint-00000004.pt")
    assert content(run) != content(whole)
    assert train(run) == 0
    assert content(run) == content(whole)


def test_a_run_without_a_readable_checkpoint_is_not_overwritten(train, run, capsys):
    """Checkpoints are large, so people delete them; weights and log are what they keep."""
    checkpoint = run / "checkpoint-00000006.pt"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    for held, lacking in (
        (f"{WEIGHTS} and checkpoints", "readable checkpoint"),
        (WEIGHTS, "checkpoint"),
    ):
        before = content(run)
        assert train(run) == 2
        message = f"{run}: holds {held} of a training, but no {lacking} to resume it from, "
        line = error_of(capsys)
        assert message in line and "choose another --output, or remove the folder" in line
        assert content(run) == before
        checkpoint.unlink(missing_ok=True)
    checkpoint.write_bytes(whole[:100])
    (run / WEIGHTS).unlink()
    assert train(run) == 2
    assert f"{run}: holds checkpoints of a training, but no readable" in error_of(capsys)
    assert checkpoint.read_bytes() == whole[:100]


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(train, whole, run):
    (run / WEIGHTS).unlink()
    (run / "checkpoint-00000006.pt").unlink()
    assert train(run) == 0
    assert content(run) == content(whole)


def test_what_killed_processes_left_is_removed(train, whole, run):
    (run / "checkpoint-00000006.pt").unlink()
    (run / WEIGHTS).unlink()
    for folder in (run, run / "validation"):
        (folder / f".zoo-{'0' * 16}.part").write_text("half")
    (run / ".zoo.lock").write_text('{"process": "1", "host": "gone", "since": "long ago"}')
    assert train(run) == 0
    assert content(run) == content(whole)


def test_links_in_place_of_temporary_files_are_not_followed(train, tmp_path):
    target, run = tmp_path / "precious", tmp_path / "run"
    target.write_text("precious")
    (run / "validation").mkdir(parents=True)
    names = [".metrics.jsonl.part", f".{WEIGHTS}.part", f".zoo-{'a' * 16}.part"]
    for name in [*names, "validation/.0.png.part", ".checkpoint-00000002.pt.part"]:
        (run / name).symlink_to(target)
    assert train(run) == 0 and train(run) == 0
    assert target.read_text() == "precious"
    (run / ".zoo.lock").symlink_to(target)
    assert train(run) == 2
    assert target.read_text() == "precious"


FOREIGN = [
    b"a note\n", b"[1]\n", b"{}\n", b'{"step": "1"}\n', b'{"step": -1}\n', b"\xff\xfe\n", b"null\n",
    b'{"step": true, "loss": 1}\n', b"[" * 100_000 + b"\n", b'{"step": ' + b"9" * 5000 + b"}\n",
]  # fmt: skip


def test_foreign_lines_of_the_log_are_kept_and_not_used(train, whole, run):
    (run / "checkpoint-00000006.pt").unlink()
    log = run / "metrics.jsonl"
    ours = log.read_bytes()
    log.write_bytes(b"".join(FOREIGN) + ours + b'{"step": 6, "lo')
    shutil.copy(whole / "checkpoint-00000006.pt", run / "checkpoint-00000004.pt")
    state = torch.load(run / "checkpoint-00000004.pt", weights_only=True)
    torch.save({**state, "step": 5}, run / "checkpoint-00000004.pt")
    assert train(run) == 0
    steps = [line["step"] for line in read_metrics(whole)]
    assert [line["step"] for line in read_metrics(run)] == steps
    assert log.read_bytes().startswith(b"".join(FOREIGN) + ours[:100])
    strange = [b'{"step": 1, "loss": "low", "psnr": 1e999}\n', b'{"step": 2, "loss": [1e308]}\n']
    log.write_bytes(b"".join(strange) + log.read_bytes())
    assert render_runs([run]).shape[2] == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [("metrics.jsonl", "it is a folder"), (WEIGHTS, "it is a folder"), (".zoo.lock", "folder|dir")],
)
def test_a_folder_in_place_of_a_file_is_told_before_the_training(
    train, tmp_path, capsys, name, message
):
    (tmp_path / "run" / name).mkdir(parents=True)
    assert train(tmp_path / "run") == 2
    line = error_of(capsys)
    assert name in line and any(word in line for word in message.split("|"))
    assert not list((tmp_path / "run").glob("*.pt"))


@pytest.mark.parametrize("name", ["metrics.jsonl", WEIGHTS, ".zoo.lock", "validation"])
def test_a_pipe_in_place_of_a_file_or_folder_is_told_before_the_training(
    train, tmp_path, capsys, name
):
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / name)
    assert train(tmp_path / "run") == 2
    assert name in error_of(capsys)
    assert not list((tmp_path / "run").glob("*.pt"))


def infinite_weights(patch):
    step = torch.optim.Adam.step

    def diverging(self, *arguments):
        step(self, *arguments)
        for weight in self.param_groups[0]["params"]:
            weight.data.fill_(float("inf"))

    patch.setattr(torch.optim.Adam, "step", diverging)


def undefined_output(patch):
    forward = Toy.forward

    def undefined(self, image_BIHW):
        found_BIHW = forward(self, image_BIHW)
        return found_BIHW if self.training else found_BIHW * float("nan")

    patch.setattr(Toy, "forward", undefined)


@pytest.mark.parametrize("diverge", [infinite_weights, undefined_output])
def test_a_training_that_diverges_in_the_last_step_says_so(
    recipe, tmp_path, capsys, monkeypatch, diverge
):
    """The loss of a step is that before its update."""
    diverge(monkeypatch)
    words = [str(recipe), "-o", str(tmp_path), "--num-workers", "0", "iterations=1"]
    assert main(words) == 2
    line = error_of(capsys)
    assert "at step 1: training diverged; lower train.optimizer.lr or set train.clip" in line
    assert line.endswith("; there is no checkpoint yet")
    assert not list(tmp_path.glob("*.pt")) and not (tmp_path / WEIGHTS).exists()


def test_a_training_that_diverges_says_which_checkpoint_is_kept(
    train, tmp_path, capsys, monkeypatch
):
    """The one of step 4 took its place in the folder, and is taken back."""
    forward, calls = Toy.forward, []

    def undefined(self, image_BIHW):
        found_BIHW = forward(self, image_BIHW)
        calls.append(self.training)
        return (
            found_BIHW * float("nan")
            if calls.count(True) == 4 and not self.training
            else found_BIHW
        )

    monkeypatch.setattr(Toy, "forward", undefined)
    assert train(tmp_path) == 2
    line = error_of(capsys)
    assert "the network's output is infinite or undefined at step 4" in line
    assert line.endswith("; the checkpoint of step 2 is kept")
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint-00000002.pt"]
    monkeypatch.undo()
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
    assert train(tmp_path) == 0


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def replaced(**values):
    return lambda state: {**state, **values}


HOSTILE = {
    "a list": lambda state: [state],
    "a number": lambda state: 7,
    "a class": lambda state: {**state, "step": logging.Formatter()},
    "no network": without("network"),
    "no ema": without("ema"),
    "no random state": without("rng"),
    "other network": replaced(network={"a": torch.ones(1)}),
    "network of numbers": replaced(network=[1, 2]),
    "ema of another shape": lambda s: {**s, "ema": {k: v[None] for k, v in s["ema"].items()}},
    "text as a step": replaced(step="6"),
    "a step beyond the last": replaced(step=7),
    "a fraction of a step": replaced(step=2.5),
    "losses that are none": replaced(losses=["low"]),
    "seconds that are none": replaced(seconds="long"),
    "recipe that is none": replaced(recipe="[" * 100_000),
    "recipe of a file": replaced(recipe='{"extends": "/etc/passwd"}'),
    "optimizer of another shape": lambda state: {
        **state,
        "optimizer": {
            **state["optimizer"],
            "state": {
                number: {**slots, "exp_avg": slots["exp_avg"][None]}
                for number, slots in state["optimizer"]["state"].items()
            },
        },
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_checkpoint_that_holds_something_else_is_one_sentence(train, run, capsys, name):
    path = run / "checkpoint-00000006.pt"
    torch.save(HOSTILE[name](torch.load(path, weights_only=True)), path)
    before = content(run)
    assert train(run) == 2
    line = error_of(capsys)
    assert f"{path}: holds " in line and "remove the file to use an earlier one, or" in line
    assert content(run) == before


def test_a_checkpoint_of_an_unknown_run_is_one_sentence(train, run, capsys):
    torch.save({"step": 6}, run / "checkpoint-00000006.pt")
    assert train(run) == 2
    assert "does not say which run it belongs to; choose another --output" in error_of(capsys)


def test_copies_that_the_user_made_are_neither_read_nor_removed(train, whole, run):
    names = ["checkpoint-best.pt", "checkpoint-00000002-copy.pt", "checkpoint-7.pt"]
    for name in names:
        (run / name).write_text("mine")
    (run / "checkpoint-00000099.pt").mkdir()
    (run / WEIGHTS).unlink()
    assert train(run) == 0
    assert [(run / name).read_text() for name in names] == ["mine"] * 3
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
