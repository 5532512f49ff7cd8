"""The graph of an engine: how it is exported, and what is said where it cannot be read."""

from __future__ import annotations

import logging
import sys
import threading
from types import SimpleNamespace

import onnx
import pytest

import export.engine
import export.engine_file
import export.trt
from export.engine import EngineSettings, build_engine, peak_mib, read_graph
from export.engine_file import graph_for_engine
from export.profile import Profile
from export.scan_function import scan_nodes
from export.trt import main
from tests.helpers.graphs import FACTS, two_scans
from tests.helpers.tensorrt_stand_in import StandIn
from zoo.integrations.tensorrt_runtime import EngineError, TensorRT
from zoo.networks import Network
from zoo.ops.scan.names import NAMESPACE

PROFILE = Profile((1, 12, 12), (2, 12, 14), (4, 12, 16))


class Plain(Network):
    scale, channels = 2, 3


@pytest.mark.parametrize("plugin_free", [False, True])
def test_the_graph_is_exported_with_the_sizes_that_vary(plugin_free, monkeypatch):
    asked, functions = [], []

    def export_file(network, path, **options):
        asked.append((network, options))
        onnx.save(two_scans(functions=False), path)

    real = export.engine_file.attach_functions
    monkeypatch.setattr(export.engine_file, "export", export_file)
    monkeypatch.setattr(
        export.engine_file,
        "attach_functions",
        lambda model, **options: functions.append(options) or real(model, **options),
    )
    checked = []
    monkeypatch.setattr(
        onnx.checker, "check_model", lambda model, **options: checked.append(options)
    )
    network = Plain()
    words = {"precision": "bf16", "plugin_free": True, "weights": "w"} if plugin_free else {}
    model = graph_for_engine(network, PROFILE, **words)
    told = {"precision": "bf16", "weights": "w"} if plugin_free else {"precision": "fp32"}
    told.setdefault("weights", "given in memory")
    assert asked == [(network, {"shape": "Nx3x12xW", **told})]
    assert functions == [{"tensorrt": True}] * plugin_free and not model.functions
    assert len(scan_nodes(model)) == (0 if plugin_free else 2)
    assert checked == [{"full_check": True}] * plugin_free
    if plugin_free:
        assert NAMESPACE not in {entry.domain for entry in model.opset_import}
        assert "Scan" in {node.op_type for node in model.graph.node}


def test_a_file_is_ours_if_it_says_what_is_needed(tmp_path):
    model = two_scans()
    for names, ours in (("model precision input", True), ("model input scale", False)):
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {name: FACTS[name] for name in names.split()})
        onnx.save(model, tmp_path / "a.onnx")
        if ours:
            assert export.trt._graph_of_file(tmp_path / "a.onnx") == model
            continue
        with pytest.raises(EngineError, match="its metadata is missing"):
            export.trt._graph_of_file(tmp_path / "a.onnx")


def parser(errors):
    given = SimpleNamespace(
        parse=lambda content: False, num_errors=len(errors), get_error=errors.__getitem__
    )
    return lambda network, log: given


def failing(text, **more):
    return SimpleNamespace(desc=lambda: text, **more)


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([], "tensorrt 10.16.1 cannot read the graph: no reason given"),
        ([failing("no\n  such op")], "tensorrt 10.16.1 cannot read the graph: no such op"),
        (
            [failing("x" * 301, node_name=lambda: "scan_0"), failing("later")],
            "tensorrt 10.16.1 cannot read the graph at scan_0: " + "x" * 300,
        ),
        ([failing("a", node_name=str)], "tensorrt 10.16.1 cannot read the graph: a"),
    ],
)
def test_a_graph_that_cannot_be_read_is_told_with_its_node(errors, told, monkeypatch):
    api = StandIn()
    monkeypatch.setattr(api, "OnnxParser", parser(errors))
    with pytest.raises(EngineError) as error:
        read_graph(TensorRT("tensorrt", api), api, None, two_scans())
    assert str(error.value) == told


@pytest.mark.parametrize(("typed", "flags"), [(0, 1), (3, 8), (None, 0)])
def test_a_network_is_strongly_typed_by_a_flag_where_there_is_one(typed, flags, monkeypatch):
    """Since TensorRT 11 every network is, and the flag is gone."""
    api = StandIn()
    kinds = SimpleNamespace() if typed is None else SimpleNamespace(STRONGLY_TYPED=typed)
    monkeypatch.setattr(api, "NetworkDefinitionCreationFlag", kinds)
    monkeypatch.setattr(api, "OnnxParser", lambda *_: SimpleNamespace(parse=lambda content: True))
    assert read_graph(TensorRT("tensorrt", api), api, None, two_scans()).flags == flags


def test_scans_need_a_plugin():
    with pytest.raises(EngineError, match=r"^the graph has 2 scans, which need the plugin$"):
        build_engine(two_scans(), EngineSettings(TensorRT("tensorrt", StandIn()), PROFILE))


@pytest.mark.parametrize("shown", [True, False])
def test_the_build_shows_its_phase_and_its_seconds(shown, monkeypatch, tmp_path):
    """On a terminal only, and nowhere if it is told so."""
    bars = []

    class Bar:
        def __init__(self, **options):
            self.options, self.told = options, []
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.told.append("closed")

        def set_description_str(self, text):
            self.told.append(text)
            api.gate.set()

    monkeypatch.setattr(export.engine, "tqdm", Bar)
    clock = iter([10.0, 72.25])
    monkeypatch.setattr(export.engine.time, "monotonic", lambda: next(clock))
    api, library = StandIn(), tmp_path / "p.so"
    api.gate = threading.Event()  # the build goes on until its phase was shown
    library.write_bytes(b"a library")
    settings = EngineSettings(TensorRT("tensorrt", api), PROFILE, library)
    engine = build_engine(two_scans(), settings, **({} if shown else {"progress": False}))
    [bar] = bars
    form = "building the engine: {desc} {elapsed}"
    assert bar.options == {
        "total": None, "bar_format": form, "disable": None if shown else True,
    }  # fmt: skip
    assert set(bar.told) == {"building", "closed"} and bar.told[-1] == "closed"
    assert engine.seconds == 62.25


def test_the_memory_that_tensorrt_tells_of_is_kept_by_kind(monkeypatch, tmp_path):
    api, library = StandIn(), tmp_path / "p.so"
    library.write_bytes(b"a library")
    build = api.build_serialized_network

    def telling(network, config):
        for text in ("Total Weights Memory: 77 bytes", "Total Scratch Memory: 5 bytes"):
            api.log.log(api.ILogger.Severity.INFO, text)
        return build(network, config)

    monkeypatch.setattr(api, "build_serialized_network", telling)
    engine = build_engine(two_scans(), EngineSettings(TensorRT("tensorrt", api), PROFILE, library))
    assert engine.gpu_bytes == {"activation": 4096, "weights": 77}
    assert engine.outputs == {"output": [-1, 8, 12, 12]} and engine.plugin_layers == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_the_peak_of_memory_is_in_mib(monkeypatch):
    import resource

    usage = SimpleNamespace(ru_maxrss=1536 * 1024 + 5)
    asked = []
    monkeypatch.setattr(resource, "getrusage", lambda who: asked.append(who) or usage)
    assert peak_mib() == 1536 and asked == [resource.RUSAGE_SELF]
    monkeypatch.setattr(export.engine.sys, "platform", "darwin")
    assert peak_mib() is None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(two_scans(), "graph.onnx")
    (tmp_path / "plugin.so").write_bytes(b"a library")
    return tmp_path


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_rtx_measures_nothing_so_its_cache_is_ignored_with_a_warning(
    runtime, folder, monkeypatch, caplog
):
    api = StandIn()
    monkeypatch.setattr(export.trt, "open_tensorrt", lambda name: TensorRT(runtime, api))
    words = ["--onnx", "graph.onnx", "--plugin", "plugin.so", "--timing-cache", "t"]
    with caplog.at_level(logging.WARNING):
        assert main(words) == 0
    assert (folder / "t").exists() == (runtime == "tensorrt")
    assert ("--timing-cache is ignored" in caplog.text) == (runtime == "tensorrt-rtx")
    assert (folder / "two_scans_fp32.engine").exists()  # the name where none is given


@pytest.mark.parametrize("asked", ["auto", "tensorrt-rtx"])
def test_the_runtime_that_is_asked_for_is_opened(asked, folder, monkeypatch):
    opened = []

    def stop(name):
        opened.append(name)
        raise EngineError("far enough")

    monkeypatch.setattr(export.trt, "open_tensorrt", stop)
    words = [] if asked == "auto" else ["--runtime", asked]
    assert main(["--onnx", "graph.onnx", *words]) == 2 and opened == [asked]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--onnx", "g", "--verify", "--no-verify"], "--verify and --no-verify contradict each"),
        (["--onnx", "g", "-w", "w"], "-w cannot be used with --onnx: the file determines it"),
        (["--onnx", "g", "--precision", "fp16"], "--precision cannot be used with --onnx"),
        (["--onnx", "g", "--plugin-free", "--plugin", "p"], "so --plugin cannot be used with it"),
        (["-n", "m", "--plugin-free", "--embed-plugin"], "so --embed-plugin cannot be used with"),
        (["--onnx", "graph.onnx", "-o", "a.onnx"], "must not end in .onnx; use .engine"),
        (["--onnx", "plain.onnx"], "not a file of export.onnx: its metadata is missing"),
    ],
)
def test_options_that_contradict_each_other_are_told(words, message, folder, monkeypatch, capsys):
    model = two_scans()
    del model.metadata_props[-3:]  # the precision is one of them
    onnx.save(model, "plain.onnx")
    monkeypatch.setattr(export.trt, "open_tensorrt", lambda name: TensorRT("tensorrt", StandIn()))
    assert main(words) == 2
    assert message in capsys.readouterr().err
