"""``zoo restore``: the network that is chosen, and each option as it reaches what restores."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import zoo
from tests.helpers.command_line import photo_in, run
from tests.helpers.networks import Nearest
from trt_plugins.build import build
from zoo.data import read_photo
from zoo.data.photo import Saving
from zoo.inference import RestoreSettings
from zoo.inference.jobs import Plan, Report


@pytest.fixture
def photo(tmp_path):
    return photo_in(tmp_path)


def test_restoring_with_shipped_weights(photo, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert (
        run("restore", photo, "-o", out, "-n", "mambair_tiny", "-s", 2, "-t", 8, "--overlap", 2)
        == 0
    )
    assert read_photo(out).color_HWC.shape == (24, 20, 3)
    assert "wrote" in capsys.readouterr().out
    assert run("restore", photo, "-o", out, "-n", "mambair_tiny_x2") == 0
    assert capsys.readouterr().out == (
        f"{out} exists; --overwrite (in Python, overwrite=True) replaces it\n"
    )


@pytest.mark.parametrize(("words", "scale"), [([], 2), (["-s", 2], 2), (["-s", 4], 4)])
def test_where_no_model_is_named_the_one_for_photos_restores(photo, tmp_path, caplog, words, scale):
    name = f"mambair_tiny_photo_x{scale}"
    with caplog.at_level(logging.INFO):
        assert run("restore", photo, "-o", tmp_path / "out.png", *words) == 0
    assert f"no model is named: {name} restores" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert run("restore", photo, "-o", tmp_path / "same.png", "-n", name) == 0
    assert "no model is named" not in caplog.text
    ours, same = (read_photo(tmp_path / file).color_HWC for file in ("out.png", "same.png"))
    assert ours.shape == (12 * scale, 10 * scale, 3) and np.array_equal(ours, same)


def report_of(written=(), existing=(), unread=(), many=False):
    plan = Plan(waiting=[], existing=list(existing), unread=list(unread), many=many)
    return Report(plan=plan, written=list(written), failed=[], unit="image")


class Words:
    """What ``zoo restore`` passes on."""

    def __init__(self, monkeypatch, written=()):
        self.network = Nearest()
        monkeypatch.setattr("zoo.commands.restore.choose_network", self.choose)
        monkeypatch.setattr("zoo.commands.restore.restore_files", self.restore)
        self.report = report_of(written)

    def choose(self, model, weights, **options):
        self.chosen = (model, weights, options)
        return self.network

    def restore(self, *arguments, **options):
        self.arguments, self.options = arguments, options
        return self.report


def test_restore_without_options_has_the_documented_defaults(monkeypatch, capsys):
    words = Words(monkeypatch, ["out.png"])
    assert run("restore", "in", "-o", "out", "-n", "model") == 0
    assert words.chosen == (
        "model", None, {"scale": None, "random_weights": False, "overrides": {}}
    )  # fmt: skip
    assert words.arguments == (words.network, "in", "out", RestoreSettings())
    assert words.options.pop("group").world_size == 1
    assert words.options == {
        "suffix": "", "format": "", "recursive": False, "overwrite": False, "look": "auto",
        "saving": Saving(), "guides": {}, "value_range": None,
    }  # fmt: skip
    assert capsys.readouterr().out == "wrote out.png\n"


def test_a_precision_may_be_left_to_a_measurement(monkeypatch):
    words = Words(monkeypatch, ["a.png"])
    assert run("restore", "in", "-o", "out", "-n", "model", "--precision", "auto") == 0
    assert words.arguments[3] == RestoreSettings(precision="auto")


def test_every_option_of_restore_is_passed_on(monkeypatch, capsys):
    words = Words(monkeypatch, ["a.png"])
    moved = []
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(words.network, "to", lambda device: moved.append(device) or words.network)
    options = ["-n", "model", "-w", "w.pth", "-s", 3, "--random-weights", "--compat", "official"]
    options += ["-t", 96, "--overlap", 8, "--ensemble", "--precision", "bf16", "--overwrite"]
    options += ["--quality", 70, "--strip-metadata", "-r", "--suffix", "x3", "--format", "jpg"]
    options += ["--guide", "pan=p.png", "--range", "0", "4095", "--tf32"]
    assert run("restore", "in", "-o", "out", *options, "--look", "plain", "--device", "cuda") == 0
    assert words.chosen == (
        "model",
        Path("w.pth"),
        {"scale": 3, "random_weights": True, "overrides": {"compat": "official"}},
    )
    del words.options["group"]
    assert moved == ["cuda"] and words.options == {
        "suffix": "x3", "format": "jpg", "recursive": True, "overwrite": True, "look": "plain",
        "saving": Saving(quality=70, metadata=False), "guides": {"pan": "p.png"},
        "value_range": (0.0, 4095.0),
    }  # fmt: skip
    assert words.arguments[3] == RestoreSettings(
        tile=96, overlap=8, ensemble=True, precision="bf16", tf32=True
    )
    assert capsys.readouterr().out == "wrote a.png\n"


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--onnx", "a.onnx"], "--onnx"), (["-n", "model"], "-n"), (["-w", "a.pth"], "-w"),
        (["--random-weights"], "--random-weights"), (["--compat", "official"], "--compat"),
        (["--precision", "bf16"], "--precision"), (["--device", "cuda"], "--device"),
        (["--tf32"], "--tf32"),
    ],
)  # fmt: skip
def test_what_an_engine_or_an_onnx_file_fixes_is_no_option(words, refused, capsys):
    for option, path in (("--engine", "a.engine"), ("--onnx", "a.onnx")):
        if refused != option:
            assert run("restore", "in", "-o", "out", option, path, *words) == 2
            assert f"{refused} does not go with {option}" in capsys.readouterr().err


def test_options_of_an_engine_reach_it(monkeypatch):
    words, engine, loaded, checked = Words(monkeypatch, ["a.png"]), Nearest(), [], []
    engine.largest_side, engine.check = 80, lambda: checked.append(1)
    monkeypatch.setattr(
        "zoo.integrations.tensorrt.load_engine",
        lambda path, **options: loaded.append((path, options)) or engine,
    )
    moved = []
    monkeypatch.setattr(engine, "to", lambda device: moved.append(device) or engine)
    monkeypatch.setattr("zoo.commands.restore.default_device", lambda: "cuda")
    options = ["--plugin", "p.so", "--trust-engine"]
    assert run("restore", "in", "-o", "out", "--engine", "e", *options) == 0
    assert words.arguments[0] is engine and words.arguments[3] == RestoreSettings(tile=80)
    assert run("restore", "in", "-o", "out", "--engine", "e", "-t", 96) == 0
    assert words.arguments[3] == RestoreSettings(tile=96) and len(checked) == 2
    assert moved == ["cpu", "cpu"]  # the runtime places the tensors itself
    assert loaded == [
        (Path("e"), {"plugin": Path("p.so"), "trusted": True}),
        (Path("e"), {"plugin": build, "trusted": False}),
    ]


def test_converting_and_restoring_from_a_file(photo, tmp_path):
    network = zoo.build("mambair_light_x2", dim=30, depths=[1])
    zoo.save(network, tmp_path / "a.safetensors")
    assert run("convert", tmp_path / "a.safetensors", "-o", tmp_path / "a.pth") == 0
    assert not isinstance(zoo.convert, ModuleType)  # the command does not stand in its way
    assert run("restore", photo, "-o", tmp_path / "out.png", "-w", tmp_path / "a.pth") == 0


def test_a_backend_that_does_not_exist(monkeypatch, photo, tmp_path, capsys):
    monkeypatch.setenv("ZOO_SCAN_BACKEND", "chunkd")
    assert run("restore", photo, "-o", tmp_path / "o.png", "-n", "mambair_tiny_x2") == 2
    assert "did you mean 'chunked'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there(name, monkeypatch, photo, tmp_path, capsys):
    words = ["restore", photo, "-o", tmp_path / "o.png", "-n", "mambair_tiny_x2", "--device", name]
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert run(*words) == 2
    assert capsys.readouterr().err.endswith(
        f"zoo restore: error: --device {name}: this PyTorch has no CUDA; leave --device out, or "
        "install a CUDA build of PyTorch\n"
    )
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert run(*words) == 2
    assert f"--device {name}: PyTorch finds no GPU" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert run(*words[:-1], "cuda:2") == 2
    assert "--device cuda:2: this machine has 2 GPUs" in capsys.readouterr().err


def test_the_scale_belongs_to_weights_files_too(photo, tmp_path, capsys):
    network = zoo.build("mambair_light_x2", dim=30, depths=[1])
    zoo.save(network, tmp_path / "a.safetensors")
    words = ["restore", photo, "-o", tmp_path / "out.png", "-w", tmp_path / "a.safetensors", "-s"]
    assert run(*words, 4) == 2
    assert "a.safetensors is 2" in capsys.readouterr().err
    assert run(*words, 2) == 0


def test_untrained_networks_run_where_they_are_asked_for(photo, tmp_path, caplog):
    words = ["restore", photo, "-o", tmp_path / "out.png", "-n", "mambair_light_x2"]
    assert run(*words, "--random-weights") == 0
    assert "random weights" in caplog.text
