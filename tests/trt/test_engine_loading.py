"""What is needed to load an engine: a runtime, a GPU, its json, its plugin and permission."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zoo.integrations.tensorrt
from export.trt import main
from tests.helpers.engine_folder import WORDS
from zoo.cli import main as zoo_main
from zoo.data import Photo, write_photo
from zoo.integrations import tensorrt_runtime
from zoo.integrations.engine_code import holds_library
from zoo.integrations.tensorrt import (
    EngineError,
    TensorRT,
    load_engine,
    open_tensorrt,
    read_sidecar,
    sidecar_path,
)


def test_without_tensorrt(monkeypatch, folder, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(WORDS) == 2
    error = capsys.readouterr().err
    assert "'tensorrt_rtx' is not installed" in error and "'tensorrt' is not" in error
    assert torch.cuda.is_available() or "[trt-rtx]" in error
    with pytest.raises(EngineError, match=r"'tensorrt' is not installed.*\[trt\]"):
        open_tensorrt("tensorrt")


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
