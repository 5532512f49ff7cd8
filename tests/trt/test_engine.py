"""``export.trt``: what is written, counted and refused, with a stand-in where TensorRT is.

Real engines are in test_real_engines.py, engines as networks in test_engine_network.py.
"""

from __future__ import annotations

import hashlib
import json
import platform
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

import export.engine
import export.engine_file
import export.trt
import zoo
import zoo.integrations.tensorrt
from export.profile import read_profile
from export.shape import ShapeError
from export.trt import main
from export.verify import ENGINE_TOLERANCES, sample_of
from tests.helpers.graphs import FACTS, two_scans
from tests.helpers.tensorrt_stand_in import StandIn
from zoo.cli import main as zoo_main
from zoo.command import package_version
from zoo.data import Photo, write_photo
from zoo.errors import ZooError
from zoo.integrations import tensorrt_runtime
from zoo.integrations.engine_code import holds_library
from zoo.integrations.engine_sample import read_sample
from zoo.integrations.tensorrt import (
    EngineError,
    TensorRT,
    load_engine,
    open_tensorrt,
    read_sidecar,
    sidecar_path,
)
from zoo.networks import Network
from zoo.ops.scan.names import NAMESPACE


@pytest.fixture
def stand_in(monkeypatch):
    api = StandIn()
    monkeypatch.setattr(export.trt, "open_tensorrt", lambda name: TensorRT("tensorrt", api))
    return api


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(two_scans(), "graph.onnx")
    Path("plugin.so").write_bytes(b"a library")
    return tmp_path


WORDS = ["--onnx", "graph.onnx", "--plugin", "plugin.so", "-o", "out.engine"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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


def test_without_tensorrt(monkeypatch, folder, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(WORDS) == 2
    error = capsys.readouterr().err
    assert "'tensorrt_rtx' is not installed" in error and "'tensorrt' is not" in error
    assert torch.cuda.is_available() or "[trt-rtx]" in error
    with pytest.raises(EngineError, match=r"'tensorrt' is not installed.*\[trt\]"):
        open_tensorrt("tensorrt")


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


def test_a_machine_without_a_gpu_says_so(stand_in, folder, capsys, monkeypatch):
    assert main(WORDS) == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write_photo(folder / "a.png", Photo(np.zeros((4, 4, 3), np.float32)))
    words = ["restore", "a.png", "-o", "b.png", "--engine", "out.engine"]
    capsys.readouterr()
    assert zoo_main(words) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("zoo restore: error: out.engine: engines need an NVIDIA GPU")
    assert zoo_main([*words, "-n", "mambair_tiny_x2"]) == 2
    assert "-n does not go with --engine" in capsys.readouterr().err
    assert zoo_main([*words, "--onnx", "graph.onnx"]) == 2
    assert "--onnx does not go with --engine" in capsys.readouterr().err


def test_engines_without_their_json_or_with_anothers(stand_in, folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(EngineError, match="does not exist"):
        load_engine("out.engine")
    assert main([*WORDS, "--embed-plugin"]) == 0
    # Its own code is not run unasked.
    with pytest.raises(EngineError, match="--trust-engine"):
        load_engine("out.engine")
    beside = sidecar_path(Path("out.engine"))
    said = json.loads(beside.read_text())
    Path("out.engine").write_bytes(b"another")
    with pytest.raises(EngineError, match="belongs to another engine"):
        load_engine("out.engine")
    beside.write_text(json.dumps({"sha256": said["sha256"]}))
    with pytest.raises(EngineError, match=r"not a file of export\.trt"):
        load_engine("out.engine")
    beside.unlink()
    with pytest.raises(EngineError, match=r"out.engine.json is missing beside it"):
        load_engine("out.engine")


def library(kind):
    """The first bytes of a library, with what a program looks at."""
    if kind == "Windows":
        header = b"PE\0\0\x64\x86"
        return b"MZ".ljust(60, b"\0") + (128).to_bytes(4, "little") + bytes(64) + header
    machine = {"x86": 62, "ARM": 183, "IBM": 22, "GPU": 190}[kind]
    order = "big" if kind == "IBM" else "little"
    ident = b"\x7fELF\x02" + (b"\x02" if kind == "IBM" else b"\x01") + b"\x01"
    return ident.ljust(18, b"\0") + machine.to_bytes(2, order) + bytes(44)


@pytest.mark.parametrize("kind", ["x86", "ARM", "IBM", "Windows"])
def test_code_in_an_engine_is_found_whatever_its_json_says(kind, stand_in, folder, monkeypatch):
    """TensorRT-RTX runs it when it opens the file, even without permission."""
    harmless = b"weights \x7fELF MZ" + library("GPU") + b" MZ \x7fELF\x02\x01"
    assert not holds_library(harmless)
    stand_in.content = harmless + library(kind) + b" more"
    assert holds_library(stand_in.content)
    assert main(WORDS) == 0
    assert not read_sidecar(Path("out.engine"))["plugin"]["embedded"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        zoo.integrations.tensorrt, "open_tensorrt", lambda name: pytest.fail("it was opened")
    )
    with pytest.raises(EngineError, match=r"contains its own code .*--trust-engine"):
        load_engine("out.engine", plugin=Path("plugin.so"))


def test_an_engine_without_its_plugin_asks_for_it(stand_in, folder, monkeypatch):
    assert main(WORDS) == 0
    runtime = SimpleNamespace(
        get_plugin_registry=stand_in.get_plugin_registry,
        deserialize_cuda_engine=lambda content: None,
    )
    monkeypatch.setattr(stand_in, "Runtime", lambda log: runtime, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    opened = TensorRT("tensorrt", stand_in)
    monkeypatch.setattr(zoo.integrations.tensorrt, "open_tensorrt", lambda name: opened)
    with pytest.raises(EngineError, match=r"needs the plugin's library; .*trt_plugins.build"):
        load_engine("out.engine")
    for plugin in (Path("plugin.so"), lambda: Path("plugin.so")):
        stand_in.libraries = ()
        with pytest.raises(EngineError, match=r"10\.16\.1 cannot load it"):
            load_engine("out.engine", plugin=plugin)
        assert stand_in.libraries == (str(folder / "plugin.so"),)


def test_a_runtime_that_is_not_installed_is_not_imported(monkeypatch):
    monkeypatch.setattr(tensorrt_runtime.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(tensorrt_runtime.importlib, "import_module", lambda name: pytest.fail(name))
    with pytest.raises(tensorrt_runtime.EngineError) as error:
        tensorrt_runtime.open_tensorrt()
    assert str(error.value).count("is not installed") == len(tensorrt_runtime.MODULES) == 2
    assert "does not load" not in str(error.value)


def test_the_name_of_a_library_is_mended_before_rtx_is_imported(monkeypatch):
    done = []
    monkeypatch.setattr(tensorrt_runtime.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(tensorrt_runtime, "_mend_library_name", lambda: done.append("mended"))
    monkeypatch.setattr(
        tensorrt_runtime.importlib, "import_module", lambda name: done.append(name) or "api"
    )
    for gpu, name in ((True, "tensorrt"), (False, "tensorrt-rtx")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert open_tensorrt() == TensorRT(name, "api")
    assert done == ["tensorrt", "mended", "tensorrt_rtx"]
