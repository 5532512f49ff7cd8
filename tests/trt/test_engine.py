"""``export.trt``: what is written, counted and refused, with a stand-in where TensorRT is.

Verification is in test_engine_checks.py, loading in test_engine_loading.py. Real engines are in
test_real_engines.py, engines as networks in test_engine_network.py.
"""

from __future__ import annotations

import hashlib
import json
import platform
import threading
from pathlib import Path

import onnx
import pytest
import torch

import export.engine
import export.engine_file
from export.profile import read_profile
from export.shape import ShapeError
from export.trt import main
from tests.helpers.engine_folder import WORDS, names
from tests.helpers.graphs import FACTS, two_scans
from zoo.command import package_version
from zoo.errors import ZooError
from zoo.integrations.tensorrt import read_sidecar
from zoo.ops.scan.names import NAMESPACE


def test_an_engine_and_what_is_said_of_it(stand_in, folder, capsys, caplog):
    caplog.set_level("INFO")
    assert main([*WORDS, "--batch", "1,2,4", "--embed-plugin"]) == 0
    assert names(folder) == ["graph.onnx", "out.engine", "out.engine.json", "plugin.so"]
    content = stand_in.content + b"a library"
    assert Path("out.engine").read_bytes() == content
    said = read_sidecar(Path("out.engine"))
    assert said["runtime"] == {"name": "tensorrt", "version": "10.16.1"}
    assert said["model"] == "two_scans" and said["scans"] == said["plugin"]["layers"] == 2
    assert said["plugin"]["embedded"] and said["plugin"]["named_in_engine"] == 4
    assert {kind: sizes[0] for kind, sizes in said["profile"]["input"].items()} == {
        **{"min": 1, "opt": 2, "max": 4}
    }
    assert said["gpu_memory_bytes"] == {"activation": 4096}
    assert 0 <= (seconds := said["build"]["seconds"]) < 60 and seconds == round(seconds, 1)
    assert said["format"] == 1 and said["precision"] == "fp32" and not said["tf32"]
    assert said["outputs"] == {"output": [-1, 8, 12, 12]} and said["layers"] == 5
    assert said["facts"] == FACTS and said["recipe"] is None
    assert said["versions"]["zoo"] == package_version()
    assert said["versions"]["torch"] == torch.__version__
    assert said["versions"]["python"] == platform.python_version()
    assert said["versions"]["machine"] == f"{platform.system()} {platform.machine()}"
    assert Path("out.engine.json").read_text().endswith("}\n")
    assert (said["plugin"]["namespace"], said["plugin"]["version"]) == ("zoo", "1")
    contents = {"engine": content, "plugin": b"a library"}
    contents["onnx"] = Path("graph.onnx").read_bytes()
    assert said["sha256"] == {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()}
    assert stand_in.shapes["input"] == ((1, 8, 12, 12), (2, 8, 12, 12), (4, 8, 12, 12))
    assert stand_in.cleared == ["tf32"]
    assert stand_in.serialized == [str(folder / "plugin.so")]
    assert "2 plugin layers" in capsys.readouterr().out
    line = caplog.messages[-1]
    for word in ("trtexec --onnx=graph.onnx", "--stronglyTyped", "--noTF32", "--setPluginsTo"):
        assert word in line
    assert "--maxShapes=input:4x8x12x12" in line and "--keep-onnx" not in line


def test_the_recipe_in_a_graph_is_kept_beside_its_facts(stand_in, folder):
    recipe = {"name": "mine", "network": {"scale": 1}}
    graph = two_scans()
    onnx.helper.set_model_props(graph, {**FACTS, "recipe": json.dumps(recipe)})
    onnx.save(graph, "graph.onnx")
    assert main(WORDS) == 0
    said = read_sidecar(Path("out.engine"))
    assert said["facts"] == FACTS and said["recipe"] == recipe


def test_tf32_is_forbidden_unless_asked_for(stand_in, folder):
    assert main([*WORDS, "--tf32"]) == 0
    assert stand_in.cleared == [] and read_sidecar(Path("out.engine"))["tf32"]
    said = read_sidecar(Path("out.engine"))["plugin"]
    assert stand_in.serialized == [] and not said["embedded"]
    assert stand_in.libraries == (str(folder / "plugin.so"),)


@pytest.mark.parametrize(("version", "functions"), [("10.6.0", 0), ("10.7.0", 1), ("11.0.0", 1)])
def test_releases_that_prefer_functions_get_none(version, functions, stand_in, folder):
    stand_in.__version__ = version
    assert main(WORDS) == 0
    assert len(stand_in.parsed.functions) == functions
    assert len(onnx.load("graph.onnx").functions) == 1


def test_the_graph_that_is_kept_is_the_one_that_was_parsed(stand_in, folder, caplog, capsys):
    caplog.set_level("INFO")
    assert main([*WORDS, "--keep-onnx"]) == 0
    assert "--onnx=graph.onnx" in caplog.messages[-1] and not Path("out.onnx").exists()
    stand_in.__version__ = "10.3.0"
    assert main(WORDS) == 0
    assert "--onnx=out.onnx" in caplog.messages[-1] and "--keep-onnx" in caplog.messages[-1]
    assert not Path("out.onnx").exists()
    assert main([*WORDS, "--keep-onnx"]) == 0
    assert "--keep-onnx" not in caplog.messages[-1]
    kept = Path("out.onnx")
    assert "--onnx=out.onnx" in caplog.messages[-1] and not onnx.load(kept).functions
    digest = read_sidecar(Path("out.engine"))["sha256"]["onnx"]
    assert digest == hashlib.sha256(kept.read_bytes()).hexdigest()
    before = Path("graph.onnx").read_bytes()
    assert main([*WORDS[:-1], "graph.engine", "--keep-onnx"]) == 2
    assert "graph.onnx: --keep-onnx would replace this file" in capsys.readouterr().err
    assert Path("graph.onnx").read_bytes() == before


@pytest.mark.parametrize("version", ["10.0.1", "10.3.0", "10.9.0", "10.10.0", "11.1.0"])
def test_every_release_lists_its_plugins(version, stand_in, folder, capsys):
    """JetPack 6 has 10.3, whose Python cannot list the creators of the registries above one."""
    stand_in.__version__ = version
    assert hasattr(stand_in.get_plugin_registry(), "all_creators_recursive") == (
        version in ("10.10.0", "11.1.0")
    )
    assert main(WORDS) == 0
    assert stand_in.libraries == (str(folder / "plugin.so"),)
    assert main(WORDS) == 0  # it is not loaded again
    assert len(stand_in.libraries) == 1
    stand_in.plugins = 1
    assert main(WORDS) == 2
    said = capsys.readouterr().err
    assert "plugin.so has SelectiveScan version 1, namespace 'zoo'; SelectiveScanSum" in said
    stand_in.libraries, stand_in.creators = (), ()
    assert main(WORDS) == 2
    assert "tensorrt finds no plugin in it" in capsys.readouterr().err


def test_a_plugin_that_was_not_embedded(stand_in, folder, capsys):
    stand_in.embeds = False
    assert main([*WORDS, "--embed-plugin"]) == 2
    said = capsys.readouterr().err
    assert "tensorrt 10.16.1 left the plugin's library out of the engine" in said
    assert "deliver plugin.so beside the engine" in said
    assert names(folder) == ["graph.onnx", "plugin.so"]


def test_measurements_are_read_and_kept(stand_in, folder, capsys):
    for expected in (b"measured", b"measuredmeasured"):
        stand_in.libraries = ()
        assert main([*WORDS, "--timing-cache", "t.cache"]) == 0
        assert Path("t.cache").read_bytes() == expected
    stand_in.libraries, stand_in.fits = (), False
    assert main([*WORDS, "--timing-cache", "t.cache"]) == 2
    assert "t.cache: not a timing cache of this TensorRT and GPU" in capsys.readouterr().err


def test_a_scan_that_did_not_become_the_plugin(stand_in, folder, capsys):
    stand_in.plugins = 1
    assert main(WORDS) == 2
    assert "1 of 2 scans became plugin layers" in capsys.readouterr().err
    assert names(folder) == ["graph.onnx", "plugin.so"]


def test_a_build_that_fails_says_why(stand_in, folder, capsys):
    stand_in.content = None
    assert main(WORDS) == 2
    assert "could not build the engine: no kernel was found" in capsys.readouterr().err
    assert names(folder) == ["graph.onnx", "plugin.so"]


def test_tensorrt_without_a_gpu(stand_in, folder, capsys, monkeypatch):
    def refuse(log):
        log.log(stand_in.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(stand_in, "Builder", refuse)
    assert main(WORDS) == 2
    error = capsys.readouterr().err
    assert "does not start: CUDA initialization failure with error: 35" in error
    assert "--runtime tensorrt-rtx" in error


def test_an_interrupted_build_is_stopped_and_leaves_nothing(stand_in, folder, monkeypatch):
    stand_in.gate = threading.Event()

    class Impatient(threading.Thread):
        def join(self, timeout=None):
            assert self.daemon  # the program can end before it does
            if timeout == 0.5:
                raise KeyboardInterrupt
            stand_in.gate.set()
            super().join(timeout)

    monkeypatch.setattr(export.engine.threading, "Thread", Impatient)
    assert main(WORDS) == 130
    assert stand_in.goes_on == [True, False]
    assert names(folder) == ["graph.onnx", "plugin.so"]


def test_without_the_plugin_the_graph_has_no_scan(stand_in, folder, caplog):
    caplog.set_level("INFO")
    stand_in.plugins, stand_in.content = 0, b"an engine"
    words = ["--onnx", "graph.onnx", "-o", "out.engine", "--plugin-free", "--keep-onnx"]
    assert main(words) == 0
    said = read_sidecar(Path("out.engine"))
    assert said["plugin"] is None and said["scans"] == 0
    kept = onnx.load("out.onnx")
    assert not kept.functions and not [n for n in kept.graph.node if n.domain == NAMESPACE]
    assert "--onnx=out.onnx" in caplog.messages[-1] and "Plugin" not in caplog.messages[-1]


@pytest.mark.parametrize(
    ("model", "words", "side"),
    [
        ("mambair_tiny_x2", ["--plugin", "plugin.so"], 512),
        ("mambair_tiny_x2", ["--plugin-free"], 128),
        ("qmambabsr_tiny", ["--plugin", "plugin.so"], 128),
    ],
)
def test_sizes_are_smaller_for_bursts_and_without_the_plugin(
    model, words, side, stand_in, folder, monkeypatch
):
    asked = []

    def record(network, profile, **_):
        asked.append(profile)
        raise ZooError("far enough")

    monkeypatch.setattr(export.engine_file, "graph_for_engine", record)
    assert main(["-n", model, "-o", "out.engine", *words]) == 2
    assert [profile.max for profile in asked] == [(1, side, side)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a model with -n"),
        (["-n", "a", "--onnx", "b"], "name a model with -n"),
        (["-n", "mambair_lite_x2"], "did you mean 'mambair_light_x2'"),
        (["--onnx", "none.onnx"], "none.onnx: the file does not exist"),
        (["--onnx", "plugin.so"], "plugin.so: not a file of export.onnx"),
        (["--onnx", "graph.onnx", "--verify"], "--verify cannot be used with --onnx"),
        (["--onnx", "graph.onnx", "--plugin", "x.so"], "x.so: the plugin's library"),
        (["--onnx", "graph.onnx", "--plugin-free", "--embed-plugin"], "uses no plugin"),
        (["--onnx", "graph.onnx", "--max", "512"], "--max 512: write height x width"),
        (["--onnx", "graph.onnx", "--min", "64x64", "--max", "32x64"], "must not decrease"),
        (["--onnx", "graph.onnx", "--batch", "4,2,1"], "must not decrease"),
        (["--onnx", "graph.onnx", "-o", "out.json"], "use .engine"),
        (["--onnx", "graph.onnx", "-o", "plugin.so/out.engine"], "cannot write"),
    ],
)
def test_mistakes(words, message, stand_in, folder, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("python -m export.trt: error: ") and message in error
    assert names(folder) == ["graph.onnx", "plugin.so"]


def test_profiles_fill_in_what_is_not_said():
    given = {
        (None, None, None): ((32, 32), (256, 256), (512, 512)),
        (None, None, "1024x768"): ((32, 32), (256, 256), (1024, 768)),
        (None, None, "128x64"): ((32, 32), (128, 64), (128, 64)),
        (None, None, "16x16"): ((16, 16), (16, 16), (16, 16)),
        (None, "720x1280", None): ((32, 32), (720, 1280), (720, 1280)),
        ("600x600", None, None): ((600, 600), (600, 600), (600, 600)),
    }
    for words, expected in given.items():
        found = read_profile(*words, "1", heavy=False)
        assert (found.min[1:], found.opt[1:], found.max[1:]) == expected, words
    with pytest.raises(ShapeError, match="--batch 1,2"):
        read_profile(None, None, None, "1,2", heavy=False)
