"""The plugin and TensorRT-RTX where they are there, and a stand-in for TensorRT."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

import export.trt
from tests.helpers.graphs import two_scans
from tests.helpers.tensorrt_stand_in import StandIn
from trt_plugins.build import BuildError, build, find_nvcc
from zoo.integrations.tensorrt import EngineError, TensorRT, open_tensorrt


@pytest.fixture(scope="session")
def shim():
    """The plugin built for this CPU."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler: the plugin's kernels cannot be built for this CPU")
    return build(shim=True)


@pytest.fixture(scope="session")
def nvcc():
    try:
        return find_nvcc()
    except BuildError as error:
        pytest.skip(f"the plugin is not compiled: {error}")


@pytest.fixture(scope="session")
def rtx():
    """TensorRT-RTX, which builds engines without a GPU."""
    try:
        return open_tensorrt("tensorrt-rtx")
    except EngineError as error:
        pytest.skip(f"make test-tensorrt runs these: {error}")


@pytest.fixture
def stand_in(monkeypatch):
    """TensorRT for ``export.trt``: its interface alone."""
    api = StandIn()
    monkeypatch.setattr(export.trt, "open_tensorrt", lambda name: TensorRT("tensorrt", api))
    return api


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a graph of two scans and a plugin's library."""
    monkeypatch.chdir(tmp_path)
    onnx.save(two_scans(), "graph.onnx")
    Path("plugin.so").write_bytes(b"a library")
    return tmp_path
