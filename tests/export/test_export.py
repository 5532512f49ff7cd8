"""Whole networks as ONNX files: equal to PyTorch, of any size, and every mistake one line.

An export takes some seconds for each block, so there are few here, each of another graph; all
published recipes at full size are in test_every_recipe.py.
"""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from runtimes import Case
from safetensors.torch import save_file

import zoo
from export.model import facts_of
from export.onnx import export, main
from export.scan_function import scan_nodes
from export.verify import SIZES, verify
from tests.helpers.oldest_runtime import run_in_oldest_runtime
from zoo.checkpoints import WEIGHTS
from zoo.checkpoints.files import read_state
from zoo.cli import main as zoo_main
from zoo.data import Photo, read_photo, write_photo
from zoo.data.pixels import to_array, to_tensor
from zoo.integrations.onnxruntime import load_onnx, open_session

pytestmark = pytest.mark.long

SLOW = {
    **dict.fromkeys(("unet", "wavelet", "sequential_official"), "1x3x11x14"),
    **dict.fromkeys(("burst", "burst_flow"), "1x3x4x11x14"),
    "burst_flat": "1x12x11x14",
}
"""Graphs that take long to trace for any size; of one size, half of that or less."""

SQUEEZE = {"block.branch.squeeze": 6}


def realistic(network):
    """Weights away from their initial ones and zeros, so that every part matters."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def tiny(name, **changes):
    return realistic(zoo.build(name, **changes))


CROSS = {"dim": 24, "depths": [1], "coarse.depths": [1]}
BURST = {"dim": 16, "burst": 3, "stages": [1]}

# Heads with paths of their own, a scan over channels and a merge that gates directions, in turn, in
# the low band; matched channels in the high ones.
IN_TURN = {
    "type": "wavelet",
    "dim": 8,
    "depths": [2],
    "high_depths": [1],
    "block": [
        {
            "type": "rssb",
            "skip_scale": False,
            "mixer": {"type": "head_scan", "d_state": 2},
            "branch": "simple_gate",
        },
        {
            "type": "rssb",
            "mixer": {"type": "omni_scan", "d_state": 2, "merge": "shuffle_attention"},
            "branch": "gdfn",
        },
    ],
    "scans": [
        {"type": "diagonal", "directions": ["diagonal", "antidiagonal"]},
        {"type": "stripes", "width": 4, "shift": 2},
    ],
}

# The network, the shape asked for, and how many scan orders its graph computes: every scan of one
# order and size shares one.
GRAPHS = {
    "single_image": (
        lambda: tiny("mambair_light_x2", dim=30, depths=[2, 1], scans=["raster"], **SQUEEZE),
        None,
        1,
    ),
    "unet": (
        lambda: tiny("mambair_realdn", dim=30, depths=[1, 1, 1, 1], refinement=0, **SQUEEZE),
        None,
        4,
    ),
    "wavelet": (lambda: tiny({"network": IN_TURN}), None, 4),
    "cross_scale": (lambda: tiny("mambacsr_final", **CROSS), None, 3),
    # Another sequence of tokens and another way back are apart: one graph has both.
    "sequential_official": (
        lambda: tiny("mambacsr_final_sequential", compat="official", **CROSS),
        None,
        3,
    ),
    "burst": (lambda: tiny("qmambabsr_s", **BURST), None, 3),
    "burst_flat": (
        lambda: tiny("qmambabsr_any_length", **BURST, align={"type": "none"}),
        "Nx12xHxW",
        3,
    ),
    "burst_flow": (lambda: tiny("qmambabsr_tiny", **BURST), None, 3),
}


@pytest.mark.parametrize(
    "graph", [pytest.param(g, marks=pytest.mark.slow) if g in SLOW else g for g in GRAPHS]
)
def test_a_file_equals_its_network_at_any_size(graph, tmp_path):
    make, shape, orders = GRAPHS[graph]
    network = make()
    path = export(network, tmp_path / "network.onnx", shape=shape)
    report = verify(network, path, sizes=(*SIZES, (1, 1, 1)))
    assert report.passed, str(report)
    runtimes = {found.runtime for found in report.comparisons}
    assert "ONNX Runtime, standard" in runtimes and len(report.comparisons) == 4 * len(runtimes)
    if graph not in ("burst", "burst_flow"):  # those have a fifth dimension
        assert_agrees_in_the_oldest_runtime(path, network, 23)
    assert_holds_its_network(path, network, orders)


def assert_holds_its_network(path, network, orders):
    model = onnx.load(path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts.items() >= facts_of(network, "given in memory").items()
    scans = [m for m in network.modules() if hasattr(m, "A_log")]
    assert len(scan_nodes(model)) >= len(scans) > 0
    assert len({node.input[8] for node in scan_nodes(model)}) == orders
    # Parameters of the scans are constants of the file, and nothing remains of how it was made.
    constants = {tensor.name for tensor in model.graph.initializer}
    assert all(set(node.input[2:5]) <= constants for node in scan_nodes(model))
    assert "Identity" not in {node.op_type for node in model.graph.node}
    assert not undone_transposes(model)
    assert str(Path.cwd()).encode() not in path.read_bytes()


def assert_agrees_in_the_oldest_runtime(path, network, height):
    channels = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    image = torch.rand(1, channels, height, 14)
    (result,) = run_in_oldest_runtime(Case(path, {"input": image.numpy()}))
    assert not result.error, result.error
    given = image.unflatten(1, (network.burst, -1)) if network.takes_burst else image
    with torch.inference_mode():
        expected = network(given).numpy()
    assert np.abs(result.output - expected).max() <= 1e-5 * np.ptp(expected)


@pytest.mark.parametrize("graph", SLOW)
def test_a_file_of_one_size_equals_its_network(graph, tmp_path):
    make, _, orders = GRAPHS[graph]
    network = make()
    path = export(network, tmp_path / "network.onnx", shape=SLOW[graph])
    report = verify(network, path)
    assert report.passed and report.comparisons, str(report)
    if graph not in ("burst", "burst_flow"):
        assert_agrees_in_the_oldest_runtime(path, network, 11)
    assert_holds_its_network(path, network, orders)


def undone_transposes(model):
    """Changes of layout that the next node, or the one behind an activation, takes back."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for back in model.graph.node:
        if back.op_type == "Transpose":
            node = makers.get(back.input[0])
            if node is not None and node.op_type in ("Gelu", "Relu", "Sigmoid"):
                node = makers.get(node.input[0])
            if node is not None and node.op_type == "Transpose":
                found.append((node.name, back.name))
    return found


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """A file of a fixed size, in half precision."""
    path = tmp_path_factory.mktemp("half") / "half.onnx"
    words = ["-n", "mambair_tiny_x2", "--precision", "fp16", "--shape", "1x3x24x17", "--verify"]
    assert main([*words, "-o", str(path)]) == 0
    return path


def test_half_precision_and_a_fixed_size(fixed):
    model = onnx.load(fixed)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    weights = [kinds[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    assert set(weights) == {half}
    for node in scan_nodes(model):
        assert {kinds[name] for name in (*node.input[2:5], node.input[7])} == {full}
    assert model.graph.input[0].type.tensor_type.elem_type == full
    assert model.graph.output[0].type.tensor_type.elem_type == full


def test_runners_find_the_contract_they_know(fixed):
    """One four-dimensional float32 input named ``input``, one output of whole multiples."""
    session = open_session(fixed)
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("input", "tensor(float)", [1, 3, 24, 17])
    assert (found.type, found.shape) == ("tensor(float)", [1, 3, 48, 34])


def test_restoring_a_photo_through_a_file(fixed, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    write_photo(photo, Photo(np.random.default_rng(0).random((20, 15, 3)).astype(np.float32)))
    assert (
        zoo_main(["restore", str(photo), "-o", str(tmp_path / "a.png"), "--onnx", str(fixed)]) == 0
    )
    found = read_photo(tmp_path / "a.png").color_HWC
    assert found.shape == (40, 30, 3)
    network = zoo.load("mambair_tiny_x2")
    image = to_tensor(read_photo(photo).color_HWC)[None]
    padded = torch.nn.functional.pad(image, (0, 2, 0, 4), mode="replicate")
    with torch.no_grad():
        expected = to_array(network(padded)[0, :, :40, :30].clamp(0, 1))
    assert np.abs(found - expected).max() < 0.01

    # Larger than the file's size: the tiles must be told, then they work.
    write_photo(photo, Photo(np.random.default_rng(0).random((30, 40, 3)).astype(np.float32)))
    words = ["restore", str(photo), "-o", str(tmp_path / "b.png"), "--onnx", str(fixed)]
    assert zoo_main(words) == 2
    assert "use tiles: -t 17" in capsys.readouterr().err
    assert zoo_main([*words, "-t", "17", "--overlap", "4"]) == 0
    assert read_photo(tmp_path / "b.png").color_HWC.shape == (60, 80, 3)
    assert zoo_main([*words, "-n", "mambair_tiny_x2"]) == 2
    assert "-n does not go with --onnx" in capsys.readouterr().err


def test_a_wrong_file_fails_verification_and_stays(fixed, tmp_path):
    model = onnx.load(fixed)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4 and tensor.data_type == onnx.TensorProto.FLOAT16:
            values = onnx.numpy_helper.to_array(tensor) * np.float16(1.3)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    path = tmp_path / "wrong.onnx"
    onnx.save(model, path)
    report = verify(zoo.load("mambair_tiny_x2"), path)
    assert not report.passed and "FAILED" in str(report) and path.exists()


def test_a_file_that_is_not_ours(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    for path, message in [("text.onnx", "cannot open it"), ("none.onnx", "does not exist")]:
        with pytest.raises(zoo.errors.ZooError, match=message):
            load_onnx(tmp_path / path)


@pytest.mark.slow
def test_bf16_is_verified_as_a_copy(tmp_path):
    network = tiny("mambair_light_x2", dim=30, depths=[1], **SQUEEZE)
    path = export(network, tmp_path / "b.onnx", precision="bf16", shape="1x3x9x14", opset=23)
    report = verify(network, path)
    assert report.passed, str(report)
    assert "bf16 does not run" in str(report)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "mambair_lite_x2"], "did you mean 'mambair_light_x2'"),
        (["-n", "mambair_tiny_x2", "--shape", "1x4xHxW"], "dimension 1 is 4"),
        (["-n", "mambair_tiny_x2", "--shape", "1x3xHx0"], "'0' is not a size"),
        (["-n", "mambair_tiny_x2", "--shape", "3xHxW"], "the network takes Nx3xHxW"),
        (["-n", "mambair_tiny_x2", "--shape", "1x3xSxS"], "a different name for each size"),
        (["-n", "qmambabsr_tiny", "--shape", "1x4xHxW"], "as in Nx32xHxW"),
        (["-n", "mambair_tiny_x2", "--opset", "9"], "whole number from 18 to 23"),
        (["-n", "mambair_tiny_x2", "--precision", "bf16", "--opset", "20"], "from 22 to 23"),
        (
            ["-n", "qmambabsr_tiny", "--precision", "fp16"],
            "is too inaccurate in float16; use fp32 or bf16",
        ),
        (["-n", "mambair_tiny_x2", "--inline", "--strip-functions"], "choose one of the two"),
        (["-n", "mambair_tiny_x2", "--for", "tensorrt", "--inline"], "choose one of the two"),
        (["-n", "mambair_tiny_x2", "-w", "missing.pth"], "does not exist"),
        (
            ["-n", "mambair_light_x2", "-w", "SHIPPED"],
            "mambair_tiny_x2.safetensors contains weights of mambair_tiny_x2, which do not fit "
            "mambair_light_x2: export mambair_tiny_x2 with -n, or give weights of "
            "mambair_light_x2 with -w",
        ),
        (
            ["-n", "mambair_tiny_x2", "-w", "CUT"],
            "does not match the network: missing 1: head.conv.bias; give weights of mambair_tiny",
        ),
        (["-n", "mambair_tiny_x2", "-o", "out.txt"], "must end in .onnx"),
        (["-n", "mambair_tiny_x2", "-o", "FILE/out.onnx"], "cannot write"),
        (["-n", "mambair_tiny_x2", "-o", "."], "must end in .onnx"),
        (["-n", "mambair_tiny_x2", "--import", "nope"], "--import nope"),
    ],
)
def test_mistakes(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file")
    shipped = WEIGHTS / "mambair_tiny_x2.safetensors"
    places = {"SHIPPED": str(shipped), "FILE": "file", "CUT": "../cut.safetensors"}
    if "CUT" in words:
        state, metadata = read_state(shipped)
        del state["head.conv.bias"]
        save_file(state, tmp_path.parent / "cut.safetensors", metadata)
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("python -m export.onnx: error: ") and message in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("output", "message"), [("file/a.onnx", "cannot write"), (".", "must end in .onnx")]
)
def test_the_output_is_checked_before_the_tracing(output, message, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise AssertionError("too early")

    monkeypatch.setattr("export.onnx.prepared", fail)
    monkeypatch.setattr("export.onnx.export", fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["-n", "mambair_tiny_x2", "-o", output]) == 2
    assert message in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("export.onnx.prepared", fail)
    with pytest.raises(zoo.errors.ZooError, match=message):  # called from Python
        export(zoo.build("mambair_tiny_x2"), output)


def test_without_the_package(monkeypatch, tmp_path, capsys):
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.partition(".")[0] in ("onnx", "onnxscript"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["-n", "mambair_tiny_x2", "-o", str(tmp_path / "a.onnx")]) == 2
    assert "pip install onnx onnxruntime onnxscript (the extra [onnx])" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_export_leaves_nothing(error, monkeypatch, tmp_path):
    import export.graph

    def empty(*_):
        node = onnx.helper.make_node("Identity", ["input"], ["output"])
        value = [onnx.helper.make_tensor_value_info(n, 1, ["N"]) for n in ("input", "output")]
        graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])

    def fail(*_):
        raise error

    monkeypatch.setattr(export.graph, "traced_graph", empty)
    monkeypatch.setattr(Path, "write_bytes", fail)
    code = main(["-n", "mambair_tiny_x2", "-o", str(tmp_path / "a.onnx")])
    assert code == (130 if error is KeyboardInterrupt else 2)
    assert list(tmp_path.iterdir()) == []
