"""Several processes: the same training as one, and folders shared without doing a file twice."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from recipes.evaluate import main as evaluate
from tests.helpers.training import losses, make_photos, train, words
from zoo import distributed
from zoo.data import Photo, read_photo, write_photo
from zoo.distributed import ProcessGroup, checked_device, default_device, shard

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent


def torchrun(*command):
    """Run with two processes on this machine."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launch += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{os.environ.get('SPY', ROOT)}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return subprocess.run(
        [*launch, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        env=environment,
    )


def test_two_processes_train_as_one(tmp_path):
    """The same global batches: gradients differ by the rounding of a float32 mean only."""
    photos = make_photos(tmp_path / "photos")
    settings = ["network.drop_path=0", "data.batch=4", "ema=0.5", "clip=1.0"]
    assert train(photos, tmp_path / "one", *settings) == 0
    two = words(photos, tmp_path / "two", *settings, "accumulate=2")
    found = torchrun(ROOT / "recipes" / "train.py", *two)
    assert found.returncode == 0, found.stderr[-3000:]
    alone, together = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert list(together.values()) == pytest.approx(list(alone.values()), rel=1e-5)
    first, second = (
        torch.load(tmp_path / run / "checkpoint-00000006.pt", weights_only=True)
        for run in ("one", "two")
    )
    assert len(second["rng"]) == 2
    # Adam divides by the root of the second moment: small gradients' rounding is enlarged.
    for key, value in first["network"].items():
        torch.testing.assert_close(second["network"][key], value, atol=2e-5, rtol=1e-4)
    assert not torch.equal(*(state["torch"] for state in second["rng"]))
    one, two = (
        [
            line
            for line in map(json.loads, (tmp_path / run / "metrics.jsonl").open())
            if "psnr" in line
        ]
        for run in ("one", "two")
    )
    assert len(one) == len(two) == 2  # written by one process
    for alone, together in zip(one, two, strict=True):
        assert [photo["name"] for photo in together["photos"]] == ["0", "1"]  # each by one of them
        assert together["psnr"] == pytest.approx(alone["psnr"], abs=1e-2)


def test_two_processes_train_against_one_discriminator(tmp_path):
    """Their gradients are averaged: network and discriminator are as those of one process."""
    photos = make_photos(tmp_path / "photos")
    settings = [
        *("network.drop_path=0", "data.batch=4", "ema=0.5", "iterations=4", "save_every=4"),
        *("data.sharpen={reach: 3}", "data.pool=8"),
        "adversarial={discriminator: {type: unet_spectral, dim: 2}, weight: 1.0}",
    ]
    assert train(photos, tmp_path / "one", *settings) == 0
    found = torchrun(ROOT / "recipes" / "train.py", *words(photos, tmp_path / "two", *settings))
    assert found.returncode == 0, found.stderr[-3000:]
    first, second = (
        torch.load(tmp_path / run / "checkpoint-00000004.pt", weights_only=True)
        for run in ("one", "two")
    )
    # Adam divides by the root of the second moment: small gradients' rounding is enlarged.
    pairs = [(first["network"], second["network"])]
    pairs += [(first["adversary"]["network"], second["adversary"]["network"])]
    for alone, together in pairs:
        for key, value in alone.items():
            torch.testing.assert_close(together[key], value, atol=2e-5, rtol=1e-4)
    one, two = (
        list(map(json.loads, (tmp_path / run / "metrics.jsonl").open())) for run in ("one", "two")
    )
    for name in ("loss", "adversarial", "discriminator", "real", "made"):
        alone, together = ([line[name] for line in lines if name in line] for lines in (one, two))
        assert len(alone) == 4 and together == pytest.approx(alone, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["emma=0.9"], "train.emma: unknown option of train; did you mean 'ema'?"),
        (["data.photos=nowhere"], "nowhere"),
        (["--budget", "long"], "--budget 'long': write a duration"),
    ],
    ids=["setting", "files", "option"],
)
def test_what_is_wrong_in_all_processes_is_told_once(wrong, told, tmp_path):
    photos = make_photos(tmp_path / "photos")
    found = torchrun(ROOT / "recipes" / "train.py", *words(photos, tmp_path / "run", *wrong))
    assert found.returncode != 0
    lines = [line for line in found.stderr.splitlines() if "train.py: error:" in line]
    assert len(lines) == 1 and told in lines[0], found.stderr[-3000:]


def test_a_validation_that_fails_in_one_process_costs_no_step(tmp_path, monkeypatch):
    """The photo that disappears is the second one, which the second process validates."""
    (tmp_path / "greedy.py").write_text(
        "from pathlib import Path\nimport zoo\nfrom zoo.training.losses import L1\n"
        "@zoo.register('loss', 'greedy')\nclass Greedy(L1):\n"
        "    def forward(self, output, clean):\n"
        f"        Path({str(tmp_path / 'held_out' / '1.png')!r}).unlink(missing_ok=True)\n"
        "        return super().forward(output, clean)\n"
    )
    photos, held_out = (make_photos(tmp_path / name) for name in ("photos", "held_out"))
    command = words(photos, tmp_path / "run", f"data.validate={held_out}", "loss=greedy")
    monkeypatch.setenv("SPY", str(tmp_path))  # where Python finds the module
    found = torchrun(ROOT / "recipes" / "train.py", *command, "--import", "greedy")
    lines = [line for line in found.stderr.splitlines() if "train.py: error:" in line]
    assert found.returncode != 0 and len(lines) == 1, found.stderr[-3000:]
    assert "error: 1: " in lines[0] and str(held_out / "1.png") in lines[0]
    assert "the validation of step 3 failed, its checkpoint is saved" in found.stderr
    saved = torch.load(tmp_path / "run" / "checkpoint-00000003.pt", weights_only=True)
    assert saved["step"] == 3 and len(saved["rng"]) == 2
    assert zoo.load(tmp_path / "run" / "weights.safetensors").scale == 2


SPY = """
import os, signal, time

if "RANK" in os.environ:
    import zoo.evaluation as evaluation
    import zoo.inference.image as inference

    write, score = inference.write_photo, evaluation.evaluate
    rank, kill = os.environ["RANK"], os.environ.get("KILL", "none")
    done = []

    def note(name):
        done.append(name)
        with open(os.environ["DONE"], "a") as file:
            file.write(f"{rank} {name}\\n")

    def spied_write(path, *photo):
        if done and kill == rank:
            os.kill(os.getpid(), signal.SIGKILL)  # with a file claimed and not written
        write(path, *photo)
        note(path.name)
        if kill not in ("none", rank):
            time.sleep(5)  # it is to be stopped before it has done everything

    def spied_score(network, images, *others, **named):
        note(images[0].name)
        time.sleep(1)  # the other process comes by
        return score(network, images, *others, **named)

    inference.write_photo, evaluation.evaluate = spied_write, spied_score
"""
"""Python runs it as ``sitecustomize``: the commands are those that users give."""


@pytest.fixture
def done(tmp_path, monkeypatch):
    """Which process has done which file, as the processes of :func:`torchrun` note it."""
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY)
    monkeypatch.setenv("SPY", str(tmp_path / "spy"))
    monkeypatch.setenv("DONE", str(tmp_path / "done.txt"))
    return lambda: [line.split() for line in (tmp_path / "done.txt").read_text().splitlines()]


def test_two_processes_share_a_folder_and_a_killed_ones_share_is_finished(
    tmp_path, monkeypatch, done
):
    """``torchrun -m zoo restore``: each file once, also after ``kill -9`` of one process."""
    network = zoo.build("mambair_light_x2", dim=30, depths=[1])
    zoo.save(network, tmp_path / "a.safetensors")
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).random((24, 24, 3)).astype(np.float32)
        write_photo(photos / f"{index}.png", Photo(pixels))
    command = ["-m", "zoo", "restore", photos, "-o", out, "-w", tmp_path / "a.safetensors"]

    monkeypatch.setenv("KILL", "1")
    assert torchrun(*command).returncode != 0
    first = done()
    assert {rank for rank, _ in first} == {"0", "1"}
    assert len({name for _, name in first}) == len(first) < 12
    assert all(read_photo(path).color_HWC.shape == (48, 48, 3) for path in out.glob("*.png"))
    monkeypatch.setenv("KILL", "none")
    found = torchrun(*command)
    assert found.returncode == 0, found.stderr[-3000:]
    assert f"images: {12 - len(first)} written, 0 failed, " in found.stdout
    names = [name for _, name in done()]
    assert sorted(names) == sorted(f"{index}.png" for index in range(12))  # each once
    assert {path.name for path in out.glob("*.png")} == set(names)


def test_two_processes_evaluate_as_one(tmp_path, done):
    """Images handed out one by one, and one table, the same as by one process."""
    network = zoo.build("mambair_light_x2", dim=30, depths=[1])
    zoo.save(network, tmp_path / "a.safetensors")
    (tmp_path / "small.yaml").write_text(
        "extends: mambair_light_x2\nnetwork: {dim: 30, depths: [1]}\n"
    )
    make_photos(tmp_path / "Set5", count=5)
    command = [tmp_path / "small.yaml", "-w", tmp_path / "a.safetensors", "--data", tmp_path]
    assert evaluate([str(word) for word in [*command, "-o", tmp_path / "one"]]) == 0
    found = torchrun(ROOT / "recipes" / "evaluate.py", *command, "-o", tmp_path / "two")
    assert found.returncode == 0, found.stderr[-3000:]
    assert found.stdout == (tmp_path / "one" / "summary.md").read_text()  # by one process only
    assert sorted(name for _, name in done()) == list("01234")  # each once
    assert {rank for rank, _ in done()} == {"0", "1"}
    one, two = (
        list(csv.DictReader((tmp_path / run / "images.csv").open())) for run in ("one", "two")
    )
    assert [row["image"] for row in two] == [row["image"] for row in one] == list("01234")
    # With another number of threads sums round differently.
    for key in ("psnr", "ssim", "baseline_psnr"):
        numbers = [[float(row[key]) for row in rows] for rows in (two, one)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)


def test_one_process_alone_needs_no_engine():
    alone = ProcessGroup()
    assert alone.is_first and alone.gather(3) == [3] and alone.add(1, 2) == [1, 2]
    assert list(alone.shared_indices(3, "task")) == [0, 1, 2] and alone.device("cpu") == "cpu"
    assert shard("abcde", alone) == list("abcde")


@pytest.mark.parametrize(
    ("cuda", "mps", "auto"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_the_first_device_that_is_there(monkeypatch, cuda, mps, auto):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert checked_device("auto") == auto
    assert default_device() == ("cuda" if cuda else "cpu")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("state", ["available", "unavailable", "asked for another"])
def test_all_ranks_take_part_in_the_verdict_of_the_first(monkeypatch, rank, state):
    """A rank that left it out would leave the others waiting."""
    group = object.__new__(distributed._TorchrunGroup)
    taken, told = [], ({"device": "one"}, True)
    why_not = "it is not here" if state == "unavailable" else None
    monkeypatch.setattr(distributed.triton, "unavailable", lambda: why_not)
    asked = "chunked" if state == "asked for another" else ""
    monkeypatch.setattr(distributed, "check_environment", lambda: asked)
    monkeypatch.setattr(distributed, "tell_others", lambda backend, device: told)
    monkeypatch.setattr(distributed, "take_over", lambda *arguments: taken.append(arguments))
    asked_first = []

    def from_first(function):
        asked_first.append(1)
        return function() if rank == 0 else told

    monkeypatch.setattr(group, "from_first", from_first, raising=False)
    device = torch.device("cuda", rank)
    group._agree_on_backend(device)
    assert asked_first == [1]
    # The first one's own GPU decides whether there is a verdict, each one's whether it counts.
    counts = state == "available" or (state == "asked for another" and rank == 1)
    assert taken == ([(distributed.triton, device, told)] if counts else [])
