"""Several processes: the same training as one, and folders shared without doing a file twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from train_helpers import losses, make_photos, train, words

import zoo
from zoo.data import Photo, write_photo
from zoo.distributed import Workers, share

ROOT = Path(__file__).parent.parent


def torchrun(*command):
    """Run with two processes on this machine."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launch += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
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
    assert len(second["random"]) == 2
    # Adam divides by the root of the second moment: small gradients' rounding is enlarged.
    for key, value in first["network"].items():
        torch.testing.assert_close(second["network"][key], value, atol=2e-5, rtol=1e-4)
    one, two = ((tmp_path / run / "metrics.jsonl").read_text() for run in ("one", "two"))
    assert one.count('"psnr"') == two.count('"psnr"')  # written by one process


KILLER = """
import os, signal, sys, time
import zoo.inference as inference
from zoo.cli import main
write = inference.write_photo
def logged(path, photo):
    write(path, photo)
    with open(os.environ["DONE"], "a") as file:
        file.write(path.name + "\\n")
    if os.environ["RANK"] == os.environ["KILL"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ["KILL"] != "none":
        time.sleep(5)  # the other is to be stopped before it has done everything
inference.write_photo = logged
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_share_a_folder_and_a_killed_ones_share_is_finished(tmp_path, monkeypatch):
    network = zoo.build("mambair_light_x2", dim=30, depths=[1])
    zoo.save(network, tmp_path / "a.safetensors")
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).random((24, 24, 3)).astype(np.float32)
        write_photo(photos / f"{index}.png", Photo(pixels))
    (tmp_path / "run.py").write_text(KILLER)
    monkeypatch.setenv("DONE", str(tmp_path / "done.txt"))
    command = [tmp_path / "run.py", "restore", photos, "-o", tmp_path / "out"]
    command += ["-w", tmp_path / "a.safetensors"]

    monkeypatch.setenv("KILL", "1")
    assert torchrun(*command).returncode != 0
    done = (tmp_path / "done.txt").read_text().split()
    assert 1 <= len(done) == len(set(done)) < 12
    monkeypatch.setenv("KILL", "none")
    found = torchrun(*command)
    assert found.returncode == 0, found.stderr[-3000:]
    done = (tmp_path / "done.txt").read_text().split()
    assert sorted(done) == sorted(f"{index}.png" for index in range(12))  # each once
    assert found.stdout.count("images to") == 1
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == set(done)


def test_one_process_alone_needs_no_engine():
    alone = Workers()
    assert alone.first and alone.gather(3) == [3] and alone.add(1, 2) == [1, 2]
    assert list(alone.claim(3, "task")) == [0, 1, 2] and alone.device("cuda") == "cuda"
    assert share("abcde", alone) == list("abcde")
