"""What TensorRT's parser makes of a scan, and that a plugin it does not take is noticed.

The function beside each scan covers silently for a plugin of another version, another namespace, or
none at all: the count of plugin layers is what tells. These tests need TensorRT-RTX and no GPU:
``make test-tensorrt``. The plugin is its own source compiled for the CPU, which builds and
serialises as the real one does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import onnx
import pytest
from onnx import TensorProto

from export.engine import EngineSettings, build_engine, plugin_layers, read_graph
from export.graph import written_out
from export.profile import Profile
from export.scan_function import attach_functions
from tests.helpers.graphs import two_scans
from trt_plugins.build import SOURCES, build
from zoo.integrations.tensorrt import EngineError, read_sidecar
from zoo.ops.scan.names import PLUGIN_ATTRIBUTES, SUM

pytestmark = pytest.mark.slow

PROFILE = Profile((1, 12, 12), (2, 12, 12), (4, 12, 12))


@pytest.fixture(scope="module")
def plugin():
    return build(shim=True)


def plugins_and_layers(rtx, model, library=None):
    """What the parser makes of a graph, with the plugin registered only as long as it looks."""
    log = rtx.logger()
    builder = rtx.api.Builder(log)
    registry = builder.get_plugin_registry()
    handle = registry.load_library(str(library)) if library else None
    try:
        return _counts(rtx, builder, log, model)
    finally:
        if handle is not None:
            registry.deregister_library(handle)


def _counts(rtx, builder, log, model):
    network = read_graph(rtx, builder, log, model)
    return plugin_layers(network), network.num_layers


def other_plugin(folder, *, old, new):
    """The plugin with one text of its source replaced."""
    sources = folder / "csrc"
    shutil.copytree(SOURCES, sources)
    text = (sources / "plugin.cu").read_text()
    assert old in text
    (sources / "plugin.cu").write_text(text.replace(old, new))
    return build(shim=True, sources=sources)


def test_plugin_and_function_give_the_plugin(rtx, plugin):
    assert plugins_and_layers(rtx, two_scans(), plugin)[0] == 2


def test_plugin_alone_gives_the_plugin(rtx, plugin):
    assert plugins_and_layers(rtx, two_scans(functions=False), plugin)[0] == 2


def test_function_alone_gives_standard_operators(rtx):
    plugins, layers = plugins_and_layers(rtx, two_scans())
    assert plugins == 0 and layers > 50


def test_neither_is_an_error_that_names_the_node(rtx):
    with pytest.raises(EngineError, match=r"tensorrt-rtx 1\.\d.*cannot read the graph.*scan_0"):
        plugins_and_layers(rtx, two_scans(functions=False))


def test_without_the_attributes_the_function_wins(rtx, plugin):
    assert plugins_and_layers(rtx, two_scans(attributes={}), plugin)[0] == 0


def engine_command(folder, model, library):
    """``export.trt`` in a process of its own, whose registry holds that one plugin."""
    onnx.save(model, folder / "graph.onnx")
    words = ["--onnx", folder / "graph.onnx", "-o", folder / "out.engine", "--plugin", library]
    return subprocess.run(
        [sys.executable, "-m", "export.trt", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('kVersion = "1"', 'kVersion = "2"', f"{SUM} version 2, namespace 'zoo'"),
        ('kNamespace = "zoo"', 'kNamespace = "ozo"', f"{SUM} version 1, namespace 'ozo'"),
    ],
    ids=["version", "namespace"],
)
def test_a_plugin_that_the_function_covers_for_is_noticed(old, new, told, rtx, tmp_path):
    library = other_plugin(tmp_path, old=old, new=new)
    done = engine_command(tmp_path, two_scans(), library)
    assert done.returncode == 2, done.stdout
    assert "0 of 2 scans became plugin layers" in done.stderr and told in done.stderr
    assert not (tmp_path / "out.engine").exists()


def test_the_command_with_the_right_plugin(rtx, plugin, tmp_path):
    done = engine_command(tmp_path, two_scans(), plugin)
    assert done.returncode == 0, done.stderr
    assert "2 plugin layers" in done.stdout and "--dynamicPlugins=" in done.stderr
    sidecar = read_sidecar(tmp_path / "out.engine")
    assert sidecar["plugin"]["layers"] == sidecar["scans"] == 2
    assert sidecar["plugin"]["named_in_engine"] == 4


def test_a_graph_that_asks_for_another_version_is_noticed(rtx, plugin):
    model = two_scans(attributes=PLUGIN_ATTRIBUTES | {"plugin_version": "7"})
    with pytest.raises(EngineError, match="0 of 2 scans"):
        build_engine(model, EngineSettings(rtx, PROFILE, plugin), progress=False)


@pytest.mark.parametrize("elements", ["FLOAT", "FLOAT16", "BFLOAT16"])
def test_engines_hold_the_plugin_once_for_each_scan(elements, rtx, plugin):
    model = two_scans(elements=TensorProto.DataType.Value(elements))
    engine = build_engine(model, EngineSettings(rtx, PROFILE, plugin), progress=False)
    assert engine.plugin_layers == 2
    # TensorRT-RTX names a plugin twice for each layer: where it is made and where it runs.
    assert engine.serialized == 4
    assert engine.outputs == {"output": [-1, 8, 12, 12]}
    assert engine.gpu_bytes["weights"] > 0


def test_an_embedded_plugin_is_in_the_engine(rtx, plugin):
    model = two_scans()
    engine = build_engine(model, EngineSettings(rtx, PROFILE, plugin, embed=True), progress=False)
    assert plugin.read_bytes() in engine.content and engine.serialized == 4
    plain = build_engine(model, EngineSettings(rtx, PROFILE, plugin), progress=False)
    assert plugin.read_bytes() not in plain.content


@pytest.mark.parametrize("tensorrt", [False, True], ids=["one by one", "together"])
def test_engines_without_the_plugin(tensorrt, rtx):
    model = two_scans()
    attach_functions(model, tensorrt=tensorrt)
    model = written_out(model)
    engine = build_engine(model, EngineSettings(rtx, PROFILE), progress=False)
    assert engine.plugin_layers == 0 == engine.serialized


def test_an_interrupt_ends_the_build(rtx, plugin, monkeypatch):
    import export.engine

    class Impatient(export.engine.threading.Thread):
        def join(self, timeout=None):
            super().join(0.01)
            if timeout == 0.5:
                raise KeyboardInterrupt
            super().join(timeout)

    monkeypatch.setattr(export.engine.threading, "Thread", Impatient)
    model = two_scans()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build_engine(model, EngineSettings(rtx, PROFILE, plugin), progress=False)
    assert time.monotonic() - begun < 60
