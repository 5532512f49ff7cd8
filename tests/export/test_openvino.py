"""OpenVINO's adapter, with a stand-in for OpenVINO that computes in ONNX Runtime.

The real one runs in test_runtimes.py, behind ``make test-runtimes``.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.helpers.graphs import two_scans
from zoo.cli import main
from zoo.data import Photo, read_photo, write_photo
from zoo.integrations.onnxruntime import open_session
from zoo.integrations.openvino import OpenVinoError, load_openvino

FACTS = {"model": "m", "input": "image", "scale": "1", "channels": "3", "size_multiple": "4"}


class Told:
    """A mapping that can be asked for keys only, as OpenVINO's is."""

    def __init__(self, values):
        self.values = values

    def __contains__(self, key):
        return key in self.values

    def __iter__(self):
        return iter(self.values)

    def __getitem__(self, key):
        value = self.values[key]
        return Told(value) if isinstance(value, dict) else SimpleNamespace(value=value)


class Size(int):
    is_dynamic = property(lambda self: self < 0)
    get_length = int.__int__


def described(value, types={"tensor(float)": "f32", "tensor(float16)": "f16"}):  # noqa: B006
    return SimpleNamespace(
        partial_shape=[Size(n) if isinstance(n, int) else Size(-1) for n in value.shape],
        element_type=SimpleNamespace(get_type_name=lambda: types[value.type]),
    )


class Compiled:
    def __init__(self, model):
        self.session = open_session(model.SerializeToString(), operator=False)
        self.inputs = [described(value) for value in self.session.get_inputs()]
        self.outputs = [described(value) for value in self.session.get_outputs()]

    def __call__(self, values):
        return self.session.run(None, {"input": values[0]})


class Core:
    settings: list = []  # noqa: RUF012

    def read_model(self, path):
        try:
            model = onnx.load(path)
        except Exception as error:
            raise RuntimeError("Check 'x' failed at y.cpp:1:\nno ONNX file\n") from error
        if model.functions:
            raise RuntimeError("No conversion rule found for operations: zoo.SelectiveScanSum")
        facts = {entry.key: entry.value for entry in model.metadata_props}
        return SimpleNamespace(
            model=model, get_rt_info=lambda: Told({"framework": facts} if facts else {})
        )

    def compile_model(self, model, device, settings):
        self.settings.append((device, settings))
        return Compiled(model.model)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=Core))
    monkeypatch.setattr(Core, "settings", [])


def doubled(path, shape=("N", 3, "H", "W"), elements=TensorProto.FLOAT, facts=FACTS):
    values = [helper.make_tensor_value_info(n, elements, shape) for n in ("input", "output")]
    nodes = [helper.make_node("Add", ["input", "input"], ["output"])]
    graph = helper.make_graph(nodes, "doubled", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(model, facts)
    onnx.save(model, path)
    return path


def test_any_size_comes_back_doubled_in_float32(tmp_path):
    network = load_openvino(doubled(tmp_path / "n.onnx"))
    assert (network.scale, network.channels, network.largest_side) == (1, 3, None)
    assert network.capabilities.size_multiple == 4 and not network.training
    # The hint keeps it from computing in bfloat16 where that is faster.
    assert Core.settings == [("CPU", {"INFERENCE_PRECISION_HINT": "f32"})]
    for shape in ((1, 3, 5, 7), (3, 3, 2, 1)):
        image = torch.rand(shape)
        assert torch.equal(network(image), 2 * image)


def test_fixed_sizes_and_half_precision(tmp_path):
    network = load_openvino(doubled(tmp_path / "n.onnx", (1, 3, 6, 9), TensorProto.FLOAT16))
    assert network.largest_side == 6
    image = torch.rand(3, 3, 4, 9)
    found = network(image)
    assert found.dtype == torch.float32 and torch.equal(found, 2 * image.half().float())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "does not exist"),
        (lambda path: path.write_text("text"), "OpenVINO cannot open it: Check 'x' failed"),
        (lambda path: onnx.save(two_scans(), path), "export it with --for openvino"),
        (lambda path: doubled(path, facts={}), "the file has no model metadata"),
        (lambda path: doubled(path, (1, 8, 3, "H", "W")), "has 1 inputs of 5 dimensions"),
    ],
    ids=["missing", "text", "functions", "no facts", "burst"],
)
def test_files_that_cannot_be_run_are_one_sentence(make, message, tmp_path):
    path = tmp_path / "n.onnx"
    make(path)
    with pytest.raises(OpenVinoError, match=message) as found:
        load_openvino(path)
    assert "\n" not in str(found.value) and str(path) in str(found.value)


@pytest.mark.parametrize(
    ("text", "kind"), [("std::bad_alloc", MemoryError), ("an operator failed", OpenVinoError)]
)
def test_memory_that_ran_out_makes_tiles_smaller(text, kind, tmp_path):
    network = load_openvino(doubled(tmp_path / "n.onnx"))

    def fail(_):
        raise RuntimeError(text)

    network.compiled = fail
    with pytest.raises(kind, match=r"n\.onnx: "):
        network(torch.rand(1, 3, 4, 4))


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OpenVinoError, match=r"pip install openvino \(the extra \[openvino\]\)"):
        load_openvino(tmp_path / "n.onnx")


def test_the_command_restores_the_same_pixels_in_both_runtimes(tmp_path):
    path, photo = doubled(tmp_path / "n.onnx"), tmp_path / "p.png"
    write_photo(photo, Photo(np.random.default_rng(0).random((20, 15, 3)).astype(np.float32) / 2))
    found = []
    for words in ([], ["--runtime", "onnxruntime"], ["--runtime", "openvino"]):
        output = tmp_path / f"{len(found)}.png"
        command = ["restore", str(photo), "-o", str(output), "--onnx", str(path), "-t", "8"]
        assert main([*command, "--overlap", "4", *words]) == 0
        found.append(read_photo(output).color_HWC)
    assert len(Core.settings) == 1
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "mambair_tiny_x2"], "give the file with --onnx"),
        (["--engine", "e.engine"], "--runtime does not go with --engine"),
    ],
)
def test_a_runtime_needs_a_file(words, message, tmp_path, capsys):
    photo = tmp_path / "p.png"
    write_photo(photo, Photo(np.zeros((4, 4, 3), np.float32)))
    command = ["restore", str(photo), "-o", str(tmp_path / "o.png"), "--runtime", "openvino"]
    assert main([*command, *words]) == 2
    assert message in capsys.readouterr().err
