"""How ``export.trt`` verifies an engine: when, with what, and to which tolerance."""

from __future__ import annotations

import json
from types import SimpleNamespace

import onnx
import pytest
import torch

import export.engine_file
import export.trt
import zoo
from export.trt import main
from export.verify import ENGINE_TOLERANCES, sample_of
from tests.helpers.engine_folder import names
from tests.helpers.graphs import two_scans
from zoo.integrations.engine_sample import read_sample
from zoo.networks import Network


@pytest.fixture
def traced(stand_in, folder, monkeypatch):
    """Commands with ``-n`` take a graph of two scans for the network's; its settings are kept."""
    asked = []

    def graph(network, profile, **options):
        asked.append((profile, options))
        return two_scans()

    monkeypatch.setattr(export.engine_file, "graph_for_engine", graph)
    return asked


SIZED = ["-n", "mambair_tiny_x2", "--plugin", "plugin.so", "-o", "out.engine"]
SIZED += ["--min", "12x12", "--opt", "13x14", "--max", "16x16", "--verify"]


def test_the_options_reach_the_graph(traced, monkeypatch):
    monkeypatch.setattr(export.trt, "_graph_agrees", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([*SIZED, "--precision", "bf16"]) == 0
    ((profile, options),) = traced
    assert (profile.min, profile.opt, profile.max) == ((1, 12, 12), (1, 13, 14), (1, 16, 16))
    assert options == {"precision": "bf16", "plugin_free": False, "weights": "shipped"}


def test_a_graph_that_does_not_agree_becomes_no_engine(traced, folder, monkeypatch, capsys):
    seen = []

    def disagree(network, path):
        seen.append((network.recipe.name, len(onnx.load(path).graph.node)))
        return SimpleNamespace(passed=False)

    monkeypatch.setattr("export.verify.verify", disagree)
    assert main(SIZED) == 1
    assert seen == [("mambair_tiny_x2", len(two_scans().graph.node))]
    assert "no engine was built" in capsys.readouterr().out
    assert names(folder) == ["graph.onnx", "plugin.so"]


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize(("words", "rounding"), [([], "fp32"), (["--tf32"], "tf32")])
def test_the_engine_and_not_pytorch_is_verified(
    right, words, rounding, traced, monkeypatch, capsys
):
    loaded = []

    def load(path, *, plugin, trusted):
        loaded.append((str(path), str(plugin), trusted))
        network = zoo.load("mambair_tiny_x2")
        runner = Runner()
        runner.forward = lambda image: (
            network(image).clone() if right else network(image).clone().flip(-1)
        )
        return runner

    monkeypatch.setattr(export.trt, "_graph_agrees", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(export.trt, "load_engine", load)
    assert main([*SIZED, *words]) == (0 if right else 1)
    assert loaded == [("out.engine", "plugin.so", True)]
    said = capsys.readouterr().out
    assert said.index("1x3x12x12") < said.index("1x3x13x14")
    assert f"tolerance {ENGINE_TOLERANCES[rounding]:.0e}" in said
    assert ("FAILED" in said) == (not right)


@pytest.mark.parametrize(
    ("words", "gpu", "verified"),
    [([], True, 1), ([], False, 0), (["--no-verify"], True, 0), (["--verify"], True, 1),
     (["--verify"], False, 1), (["--onnx", "graph.onnx"], True, 0)],
    ids=["GPU", "no GPU", "told not to", "told to", "told to, no GPU", "a file"],
)  # fmt: skip
def test_on_a_gpu_an_engine_is_verified_unless_told_not_to(
    words, gpu, verified, traced, monkeypatch
):
    calls = []
    monkeypatch.setattr(export.trt, "_graph_agrees", lambda *_: calls.append("graph") or True)
    monkeypatch.setattr(export.trt, "_engine_agrees", lambda *_: bool(calls.append("engine")))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    given = SIZED[:-1] if "--onnx" not in words else SIZED[2:-1]
    assert main([*given, *words]) == (1 if verified else 0)
    assert calls.count("engine") == verified and ("graph" in calls) == ("--verify" in words)


def test_the_json_file_holds_a_tile_that_pytorch_restored(traced, folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([*SIZED[:-1], "--tf32"]) == 0
    sample = read_sample(json.loads((folder / "out.engine.json").read_text())["sample"])
    assert sample.tolerance == ENGINE_TOLERANCES["tf32"]
    [image] = sample.inputs
    assert image.shape == (1, 3, 12, 12)
    with torch.inference_mode():
        assert sample.error(zoo.load("mambair_tiny_x2")(image)) <= ENGINE_TOLERANCES["fp32"]
        assert sample.error(zoo.load("mambair_tiny_x2")(image.flip(-1))) > 0.1
    assert sample_of(zoo.build("mambairv2_tiny_x2"), (1, 12, 12), "fp32") is None


def test_tf32_is_the_rounding_of_float32_alone():
    for allowed, roundings in ((True, ["tf32", "fp16", "bf16"]), (False, ["fp32", "fp16", "bf16"])):
        settings = SimpleNamespace(tf32=allowed)
        precisions = ("fp32", "fp16", "bf16")
        assert [export.trt._rounding(name, settings) for name in precisions] == roundings


class Runner(Network):
    scale, channels = 2, 3
