"""Model repositories against the server's published schema, and what the command refuses."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper

import export.serve
from export import trtexec
from export.model_repository import Plan, ServeError, Serving, model_config, write_repository
from export.profile import Profile
from export.scan_function import scan_nodes
from export.serve import main
from tests.helpers.graphs import two_scans
from zoo.errors import WriteError
from zoo.integrations.onnxruntime import open_session
from zoo.integrations.tensorrt import EngineError, sidecar_path

PROFILE = Profile((1, 12, 12), (4, 12, 12), (8, 12, 12))


@pytest.fixture(scope="module")
def schema():
    """The server's ModelConfig. It is taken from the client's file: its package wants more."""
    package = importlib.util.find_spec("tritonclient")
    assert package is not None, "pip install tritonclient; it is in [dev]"
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(schema, folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


def fake_engine(path, *, runtime="tensorrt", batch=8):
    path.write_bytes(b"an engine")
    sizes = {"min": [1, 8, 12, 12], "opt": [1, 8, 12, 12], "max": [batch, 8, 12, 12]}
    facts = {"model": "two_scans", "scale": "1"}
    sidecar = {"facts": facts, "profile": {"input": sizes}, "plugin": None}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sidecar |= {"runtime": {"name": runtime, "version": "10.16.1"}, "sha256": {"engine": digest}}
    sidecar_path(path).write_text(json.dumps(sidecar))
    return path


def test_a_repository_says_what_the_schema_knows(schema, tmp_path):
    model = two_scans()
    serving = Serving(max_batch=4, delay_us=500, instances=2, kind="cpu")
    (tmp_path / "plugin.so").write_bytes(b"a library")
    plan = Plan(PROFILE, plugin=tmp_path / "plugin.so")
    folders = write_repository(model, tmp_path / "repo", "net", serving=serving, plan=plan)
    assert [folder.name for folder in folders] == ["net_onnx", "net_trt"]
    assert sorted(path.name for path in (tmp_path / "repo").iterdir()) == ["net_onnx", "net_trt"]

    for folder, backend, kind in zip(
        folders, ("onnxruntime", "tensorrt"), ("KIND_CPU", "KIND_GPU"), strict=True
    ):
        config = parsed(schema, folder)
        assert (config.name, config.backend, config.max_batch_size) == (folder.name, backend, 4)
        assert config.dynamic_batching.max_queue_delay_microseconds == 500
        (group,) = config.instance_group
        assert group.count == 2 and group.Kind.Name(group.kind) == kind
        assert config.parameters["zoo.scale"].string_value == "1"
        # What is declared is what the graph has, without its batch.
        for declared, entry in zip(
            (*config.input, *config.output), (*model.graph.input, *model.graph.output), strict=True
        ):
            dims = [d.dim_value or -1 for d in entry.type.tensor_type.shape.dim]
            assert (declared.name, list(declared.dims)) == (entry.name, dims[1:])
            assert schema.DataType.Name(declared.data_type) == "TYPE_FP32"

    session = open_session(folders[0] / "1" / "model.onnx", operator=False)
    assert [value.name for value in session.get_inputs()] == ["input"]
    assert (folders[1] / "libzoo_tensorrt.so").read_bytes() == b"a library"
    assert (folders[1] / "preload.cpp").is_file() and onnx.load(folders[1] / "model.onnx")
    # The plan is built where it is served; the shell takes the script.
    script = folders[1] / "build_plan.sh"
    assert "--maxShapes=input:8x8x12x12" in script.read_text()
    assert list((folders[1] / "1").iterdir()) == [] and script.stat().st_mode & 0o777 == 0o755
    subprocess.run(["sh", "-n", str(script)], check=True)


def graph_of(height, width, **facts):
    """A graph of no nodes with two inputs and one output of other sizes."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        for name, shape in (
            ("input", [8, 4, height, width]),
            ("flow", [8, 2, height, width]),
            ("output", [3, "a", 64]),
        )
    ]
    model = helper.make_model(helper.make_graph([], "g", values[:2], values[2:]))
    helper.set_model_props(model, facts)
    return model


def test_every_field_holds_its_own_number(schema, tmp_path):
    facts = {
        **{"model": "m", "scale": "4", "input": "burst", "frames": "8", "colour": "gray"},
        **{"range": "0..1", "precision": "fp16", "size_multiple": "16", "weights": "random"},
        "weights_sha256": "abc",
    }
    model = graph_of("H", 32, **facts, shape="unasked")
    serving = Serving(max_batch=5, delay_us=700, instances=3, kind="gpu")
    text = model_config("net", "onnxruntime", model, serving)
    config = text_format.Parse(text, schema.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("net", "onnxruntime", 5)
    assert {e.name: list(e.dims) for e in config.input} == {
        **{"input": [8, 4, -1, 32], "flow": [8, 2, -1, 32]}
    }
    assert {e.name: list(e.dims) for e in config.output} == {"output": [3, -1, 64]}
    for entry in (*config.input, *config.output):
        assert schema.DataType.Name(entry.data_type) == "TYPE_FP32"
    (group,) = config.instance_group
    assert (group.count, group.Kind.Name(group.kind)) == (3, "KIND_GPU")
    assert config.dynamic_batching.max_queue_delay_microseconds == 700
    fields = re.findall(r"^(input|output|instance_group|dynamic_batching) ", text, re.M)
    assert fields == ["input", "input", "output", "instance_group", "dynamic_batching"]
    assert re.findall(r"zoo\.(\w+)", text) == [*facts]
    told = {name: value.string_value for name, value in config.parameters.items()}
    assert told == {f"zoo.{name}": value for name, value in facts.items()}


def test_the_script_builds_with_smallest_usual_and_largest_sizes(tmp_path):
    _, folder = write_repository(
        two_scans(), tmp_path, "net", serving=Serving(), plan=Plan(PROFILE)
    )
    words = (folder / "build_plan.sh").read_text().split()
    assert [w for w in words if "Shapes" in w] == [
        "--minShapes=input:1x8x12x12",
        "--optShapes=input:4x8x12x12",
        "--maxShapes=input:8x8x12x12",
    ]
    assert {"--noTF32", "--onnx=model.onnx", "--dynamicPlugins=./libzoo_tensorrt.so"} <= {*words}


TRTEXEC = """#!/bin/sh
# Stands for trtexec: like the real one up to 10.6, it takes a function instead of the plugin.
[ "$1" = --help ] && { echo "  $TYPED"; exit; }
echo "$0 $*" >> "$LOG"
made=plugin
if grep -q Exp model.onnx; then made="standard operators"; fi  # of which the functions consist
echo $made > 1/.model.plan.part
"""


@pytest.fixture
def plan_script(tmp_path, monkeypatch):
    """A repository's script and what runs it; the usual place of trtexec is in ``tmp_path``."""
    monkeypatch.setattr(trtexec, "USUAL", tmp_path / "usual" / "trtexec")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("TYPED", "--stronglyTyped")
    monkeypatch.delenv("TRTEXEC", raising=False)
    (tmp_path / "plugin.so").write_bytes(b"a library")
    plan = Plan(PROFILE, plugin=tmp_path / "plugin.so")
    _, folder = write_repository(two_scans(), tmp_path / "r", "net", serving=Serving(), plan=plan)

    def build():
        return subprocess.run([folder / "build_plan.sh"], capture_output=True, text=True)

    return folder, build


def install(path):
    path.parent.mkdir()
    path.write_text(TRTEXEC)
    path.chmod(0o755)


def test_trtexec_is_found_on_the_path_in_its_usual_place_and_where_one_says(
    plan_script, tmp_path, monkeypatch
):
    folder, build = plan_script
    failed = build()
    assert failed.returncode == 2 and not (folder / "1" / "model.plan").exists()
    assert f"{tmp_path}/usual/trtexec: there is no such program; install" in failed.stderr
    places = {name: tmp_path / name / "trtexec" for name in ("usual", "path", "said")}
    for name, place in places.items():
        install(place)
        if name == "path":
            monkeypatch.setenv("PATH", f"{place.parent}:{os.environ['PATH']}")
        elif name == "said":
            monkeypatch.setenv("TRTEXEC", str(place))
        done = build()
        assert done.returncode == 0, done.stderr
        # Without the functions no release can take them instead of the plugin.
        assert (folder / "1" / "model.plan").read_text() == "plugin\n"
        line = (tmp_path / "log").read_text().splitlines()[-1]
        assert line.startswith(f"{place} --onnx=model.onnx") and "--stronglyTyped" in line
    monkeypatch.setenv("TYPED", "")  # TensorRT 11 has no such option
    assert build().returncode == 0
    assert "--stronglyTyped" not in (tmp_path / "log").read_text().splitlines()[-1]
    (folder / "libzoo_tensorrt.so").unlink()
    failed = build()
    assert failed.returncode == 2
    assert f"{folder}/libzoo_tensorrt.so: the plugin's library does not exist" in failed.stderr


def test_only_the_graph_for_tensorrt_lacks_the_functions(tmp_path):
    model = two_scans()
    assert len(model.functions) == 1
    onnx_folder, folder = write_repository(
        model, tmp_path, "net", serving=Serving(), plan=Plan(PROFILE)
    )
    assert len(onnx.load(onnx_folder / "1" / "model.onnx").functions) == 1
    plain = onnx.load(folder / "model.onnx")
    assert not plain.functions and len(scan_nodes(plain)) == 2 and len(model.functions) == 1


def test_the_command_line_names_trtexec_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(trtexec, "USUAL", tmp_path / "usual" / "trtexec")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert trtexec.trtexec() == "trtexec"
    install(tmp_path / "usual" / "trtexec")
    assert trtexec.trtexec() == str(tmp_path / "usual" / "trtexec")
    install(tmp_path / "path" / "trtexec")
    assert trtexec.trtexec() == "trtexec"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            [],
            (Serving(8, 2000, 1, "auto"), ["onnx", "trt"], (1, 4, 8), "fp32"),
        ),
        (
            [*("--max-batch", "5", "--delay", "700", "--instances", "3", "--kind", "cpu")],
            (Serving(5, 700, 3, "cpu"), ["onnx", "trt"], (1, 3, 5), "fp32"),
        ),
        (
            ["--backend", "onnx", "--precision", "fp16"],
            (Serving(8, 2000, 1, "auto"), ["onnx"], None, "fp16"),
        ),
        (
            ["--backend", "tensorrt"],
            (Serving(8, 2000, 1, "auto"), ["trt"], (1, 4, 8), "fp32"),
        ),
        (
            ["--engine", "a.engine"],
            (Serving(8, 2000, 1, "auto"), ["onnx", "trt"], (1, 4, 8), "fp32"),
        ),
    ],
    ids=["default", "numbers", "onnx", "tensorrt", "engine"],
)
def test_every_option_of_the_command_arrives(words, expected, tmp_path, monkeypatch, capsys):
    serving, backends, batches, precision = expected
    seen = {}

    def export_file(network, path, **options):
        seen["exported"] = options
        onnx.save(two_scans(), path)

    def write(model, folder, name, **options):
        seen.update(options, folder=folder, name=name)
        return [folder / name]

    monkeypatch.setattr(export.serve, "export", export_file)
    monkeypatch.setattr(export.serve, "write_repository", write)
    (tmp_path / "p.so").touch()
    given = [
        "-n",
        "mambair_tiny_x2",
        "-o",
        str(tmp_path / "repo"),
        "--plugin",
        str(tmp_path / "p.so"),
    ]
    given += ["--min", "16x24", "--opt", "32x40", "--max", "64x72", "--overwrite"]
    assert main([*given, *words]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'repo' / 'mambair_tiny_x2'}\n"
    assert seen["serving"] == serving and seen["overwrite"]
    assert (seen["folder"], seen["name"]) == (tmp_path / "repo", "mambair_tiny_x2")
    assert seen["exported"] == {"precision": precision, "weights": "shipped"}
    assert seen["onnx"] == ("onnx" in backends) and (seen["plan"] is None) == (batches is None)
    if batches is not None:
        sizes = zip(batches, ((16, 24), (32, 40), (64, 72)), strict=True)
        profile = Profile(*((batch, *sides) for batch, sides in sizes))
        engine = Path("a.engine") if "--engine" in words else None
        assert seen["plan"] == Plan(profile, engine, tmp_path / "p.so")


def test_a_misspelt_field_is_what_the_schema_refuses(schema, tmp_path):
    (folder,) = write_repository(two_scans(), tmp_path, "net", serving=Serving())
    text = (folder / "config.pbtxt").read_text().replace("max_batch_size", "max_batchsize")
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text, schema.ModelConfig())


def test_no_batching_where_one_is_the_most(schema, tmp_path):
    (folder,) = write_repository(two_scans(), tmp_path, "net", serving=Serving(max_batch=1))
    assert not parsed(schema, folder).HasField("dynamic_batching")


def test_an_engine_goes_in_and_limits_the_batch(schema, tmp_path):
    engine = fake_engine(tmp_path / "a.engine", batch=2)
    _, folder = write_repository(
        two_scans(), tmp_path / "repo", "net", serving=Serving(8), plan=Plan(PROFILE, engine)
    )
    assert (folder / "1" / "model.plan").read_bytes() == b"an engine"
    assert parsed(schema, folder).max_batch_size == 2
    assert not (folder / "build_plan.sh").exists()


def test_engines_that_the_server_does_not_run(tmp_path):
    engine = fake_engine(tmp_path / "a.engine", runtime="tensorrt-rtx")
    plan = Plan(PROFILE, engine)
    with pytest.raises(EngineError, match="the server runs engines of TensorRT"):
        write_repository(two_scans(), tmp_path / "repo", "net", serving=Serving(), plan=plan)
    engine.write_bytes(b"another")
    with pytest.raises(EngineError, match="belongs to another engine"):
        write_repository(two_scans(), tmp_path / "repo", "net", serving=Serving(), plan=plan)
    assert not (tmp_path / "repo").exists()


def test_models_that_are_there_stay_unless_asked(tmp_path):
    def write(**options):
        return write_repository(two_scans(), tmp_path, "net", serving=Serving(), **options)

    (folder,) = write()
    (folder / "mine").write_text("a note")
    with pytest.raises(ServeError, match="--overwrite"):
        write()
    assert (folder / "mine").exists()
    write(overwrite=True)
    assert not (folder / "mine").exists() and (folder / "1" / "model.onnx").exists()


def test_an_interrupted_repository_leaves_no_model(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(KeyboardInterrupt):
        write_repository(two_scans(), tmp_path / "repo", "net", serving=Serving())
    assert list((tmp_path / "repo").iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "repo").touch()
    with pytest.raises(WriteError, match="net_onnx: cannot write"):
        write_repository(two_scans(), tmp_path / "repo", "net", serving=Serving())


@pytest.mark.parametrize("option", [[], ["--backend", "onnx"], ["--backend", "tensorrt"]])
def test_the_folder_is_checked_before_the_tracing(option, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise AssertionError("too early")

    monkeypatch.setattr("export.serve.export", fail)
    monkeypatch.setattr("export.serve.build_plugin", fail)
    monkeypatch.chdir(tmp_path)
    kind = "trt" if "tensorrt" in option else "onnx"
    Path(f"repo/mambair_tiny_x2_{kind}").mkdir(parents=True)
    words = ["-n", "mambair_tiny_x2", *option, "-o"]
    assert main([*words, "repo"]) == 2
    assert f"x2_{kind} already exists; replace it with --overwrite" in capsys.readouterr().err
    Path("file").touch()
    assert main([*words, "file/repo"]) == 2
    assert f"file/repo/mambair_tiny_x2_{kind}: cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "mambair_tiny_x9"], "did you mean 'mambair_tiny_x2'"),
        (
            ["-n", "mambair_tiny_x2", "--max-batch", "0"],
            "--max-batch 0: give a whole number from 1 to 9999",
        ),
        (
            ["-n", "mambair_tiny_x2", "--delay", "-1"],
            "--delay -1: give a whole number of at least 0",
        ),
        (["-n", "mambair_tiny_x2", "--max", "0x4"], "--max 0x4: write height x width"),
        (["-n", "mambair_tiny_x2", "--plugin", "none.so"], "none.so: the plugin's library"),
        (
            ["-n", "mambair_tiny_x2", "--backend", "onnx", "--engine", "a"],
            "--engine cannot be used",
        ),
    ],
)
def test_mistakes(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "-o", "repo"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("python -m export.serve: error: ") and message in error
    assert not list(tmp_path.glob("repo/*"))


@pytest.mark.slow
def test_the_command(schema, tmp_path):
    words = ["-n", "mambair_tiny_x2", "-o", str(tmp_path), "--backend", "onnx"]
    assert main(words) == 0
    config = parsed(schema, tmp_path / "mambair_tiny_x2_onnx")
    assert [list(entry.dims) for entry in (*config.input, *config.output)] == [[3, -1, -1]] * 2
    assert config.parameters["zoo.scale"].string_value == "2"


def test_a_plan_says_how_it_is_served(tmp_path):
    _, folder = write_repository(
        two_scans(), tmp_path, "net", serving=Serving(), plan=Plan(PROFILE)
    )
    text = (folder / "README.md").read_text()
    assert text.startswith("# net_trt\n\n1. The plugin `libzoo_tensorrt.so` must be in this folder")
    for words in (
        "`python -m trt_plugins.build -o libzoo_tensorrt.so`",
        'plugins="REPO/net_trt/libzoo_preload.so"',
        "PATH and in `/usr/src/tensorrt/bin`",
    ):
        assert words in text
    assert not (folder / "libzoo_tensorrt.so").exists()  # none was given


def test_a_batch_that_an_engine_limits_is_told(tmp_path, caplog):
    engine = fake_engine(tmp_path / "a.engine", batch=4)
    for most, limited in ((5, True), (4, False)):
        caplog.clear()
        with caplog.at_level("INFO"):
            write_repository(
                two_scans(), tmp_path / str(most), "net", serving=Serving(most),
                plan=Plan(PROFILE, engine),
            )  # fmt: skip
        said = f"{engine} accepts at most 4 images, which limits the batch"
        assert caplog.messages == [said] * limited


@pytest.mark.parametrize(("model", "side"), [("mambair_tiny_x2", 512), ("qmambabsr_tiny", 128)])
def test_without_nvcc_a_repository_lacks_the_plugin_and_says_so(
    model, side, tmp_path, monkeypatch, caplog
):
    seen = {}

    def fail():
        raise export.serve.BuildError("there is no nvcc")

    def write(model, folder, name, **options):
        seen.update(options)
        return [folder / "net_onnx", folder / "net_trt"]

    monkeypatch.setattr(export.serve, "build_plugin", fail)
    monkeypatch.setattr(export.serve, "write_repository", write)
    monkeypatch.setattr(export.serve, "export", lambda n, path, **_: onnx.save(two_scans(), path))
    with caplog.at_level("INFO"):
        assert main(["-n", model, "-o", str(tmp_path)]) == 0
    assert seen["plan"].plugin is None and seen["plan"].profile.max == (8, side, side)
    assert seen["overwrite"] is False
    lacks = "WARNING: the repository lacks libzoo_tensorrt.so: there is no nvcc"
    later = f"{tmp_path / 'net_trt'} has no engine yet: run its build_plan.sh on the server"
    assert lacks in caplog.messages and caplog.messages[-1] == later
    caplog.clear()
    with caplog.at_level("INFO"):
        assert main(["-n", model, "-o", str(tmp_path), "--backend", "onnx"]) == 0
    assert caplog.messages  # of the tracing
    assert seen["plan"] is None and "no engine yet" not in caplog.text
