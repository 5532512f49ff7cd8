"""What a file says and holds, and that every option arrives: on graphs that need no tracing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch

import export.graph
import export.model
import export.onnx
import export.verify
import zoo
from export.model import facts_in, facts_of, network_of
from export.onnx import export as export_file
from export.onnx import main
from export.precision import SCAN_PARAMETERS, prepared
from export.scan_function import scan_nodes
from export.shape import SAMPLE, ExtraInput, InputShape, input_shape
from tests.helpers.graphs import two_scans
from zoo.checkpoints import WEIGHTS
from zoo.checkpoints.files import read_state
from zoo.command import package_version
from zoo.errors import ZooError

NAME = "mambair_tiny_x2"
SMALL = {"dim": 30, "depths": [1], "block.branch.squeeze": 6}
UNET = {"dim": 30, "depths": [1, 1, 1, 1], "refinement": 0, "block.branch.squeeze": 6}


@pytest.fixture(scope="module")
def network():
    return zoo.build(NAME).eval()


@pytest.fixture
def traces(monkeypatch):
    """A graph of two scans in place of the network's; what was to be traced is kept."""
    seen = []

    def stand_in(exported, opset):
        seen.append(SimpleNamespace(exported=exported, opset=opset))
        return two_scans(functions=False)

    monkeypatch.setattr(export.graph, "traced_graph", stand_in)
    return seen


def test_what_a_file_says_of_a_network_of_colour_images(network):
    said = facts_of(network, "a.pth")
    recipe = json.loads(said.pop("recipe"))
    assert recipe["name"] == NAME and zoo.build(recipe)
    assert said == {
        "zoo_version": package_version(),
        "torch_version": torch.__version__,
        "model": NAME,
        "input": "image",
        "scale": "2",
        "channels": "3",
        "out_channels": "3",
        "colour": "rgb",
        "range": "0..1",
        "size_multiple": "1",
        "size_rule": "any height and width from 1 pixel; multiples of size_multiple are not padded",
        "weights": "a.pth",
        "weights_sha256": digest(network),
    }


def digest(network):
    found = hashlib.sha256()
    for name in sorted(network.state_dict()):
        found.update(name.encode() + network.state_dict()[name].numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize(
    ("model", "changes", "expected"),
    [
        ("mambair_car10", SMALL, {"colour": "gray", "scale": "1", "channels": "1"}),
        ("mambair_realdn", UNET, {"colour": "rgb", "scale": "1", "size_multiple": "8"}),
        (
            "qmambabsr_tiny",
            {},
            {
                "colour": "planes R, Gr, Gb, B",
                "input": "burst",
                "frames": "8",
                "channels": "4",
                "out_channels": "3",
            },
        ),
    ],
    ids=["gray", "unet", "burst"],
)
def test_colours_scale_and_frames_are_said(model, changes, expected):
    said = facts_of(zoo.build(model, **changes), "random")
    assert said.items() >= expected.items()
    assert ("frames" in said) == (said["input"] == "burst") and said["range"] == "0..1"


def test_the_facts_are_in_the_file_with_those_of_its_export(network, traces, tmp_path):
    path = export_file(network, tmp_path / "n.onnx", shape="1x3xHx40", opset=21, weights="a.pth")
    model = onnx.load(path)
    expected = facts_of(network, "a.pth") | {
        "shape": "1x3xHx40",
        "precision": "fp32",
        "opset": "21",
    }
    assert facts_in(model) == expected
    assert (model.producer_name, model.producer_version) == (
        "mamba-restoration-zoo",
        package_version(),
    )
    assert model.graph.name == NAME
    (trace,) = traces
    assert trace.opset == 21 and trace.exported.shape == InputShape(1, None, 3, "H", 40)


@pytest.mark.parametrize(("opset", "version"), [(18, 8), (None, 9), (23, 11)])
def test_the_version_of_the_format_is_the_oldest_that_the_operators_allow(
    opset, version, network, monkeypatch, tmp_path
):
    """ONNX Runtime 1.17 reads versions up to 9."""
    monkeypatch.setattr(
        export.graph, "traced_graph", lambda _, opset: two_scans(functions=False, opset=opset)
    )
    model = onnx.load(export_file(network, tmp_path / "n.onnx", opset=opset))
    assert model.ir_version == version


@pytest.mark.parametrize(
    ("options", "functions", "scans"),
    [({}, 1, 2), ({"strip_functions": True}, 0, 2), ({"inline": True}, 0, 0)],
    ids=["default", "stripped", "inlined"],
)
def test_functions_are_beside_left_off_or_written_out(
    options, functions, scans, network, traces, tmp_path
):
    model = onnx.load(export_file(network, tmp_path / "n.onnx", **options))
    assert (len(model.functions), len(scan_nodes(model))) == (functions, scans)
    kinds = {node.op_type for node in model.graph.node}
    assert ("Scan" in kinds) == ("inline" in options)


@pytest.mark.parametrize(
    ("precision", "opset", "dtype"),
    [("fp32", 20, torch.float32), ("fp16", 20, torch.float16), ("bf16", 22, torch.bfloat16)],
)
@pytest.mark.parametrize("half_border", [False, True])
def test_precision_opset_and_border_of_what_is_traced(
    precision, opset, dtype, half_border, network, traces, tmp_path
):
    export_file(network, tmp_path / "n.onnx", precision=precision, half_border=half_border)
    (trace,) = traces
    assert trace.opset == opset and trace.exported.dtype == dtype
    assert trace.exported.border == (dtype if half_border else torch.float32)
    image = torch.rand(1, 3, 8, 8, dtype=trace.exported.border)
    assert trace.exported(image).dtype == trace.exported.border


def test_rounding_spares_norms_and_the_scans_parameters(network):
    network.train()
    rounded = prepared(network, input_shape(network), "fp16").network
    assert network.training and not rounded.training
    assert not any(p.requires_grad for p in rounded.parameters())
    before = dict(network.named_parameters())
    kept = set()
    for name, value in rounded.named_parameters():
        last = name.rpartition(".")[2]
        norm = isinstance(rounded.get_submodule(name.rpartition(".")[0]), torch.nn.LayerNorm)
        wanted = torch.float32 if norm or last in SCAN_PARAMETERS else torch.float16
        assert value.dtype == wanted, name
        assert before[name].dtype == torch.float32
        if last in SCAN_PARAMETERS:
            kept.add(last)
            assert torch.equal(value, before[name]), name
    assert kept == {"A_log", "D", "dt_proj_weight", "dt_proj_bias"}
    network.eval()
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        found, expected = rounded(image.half()).float(), network(image)
    assert 0 < (found - expected).abs().max() <= 1e-2 * (expected.max() - expected.min())


def test_every_option_of_the_command_arrives(monkeypatch, tmp_path, capsys):
    seen = []

    def record(network, path, **options):
        seen.append((network, path, options))
        path.write_bytes(b"a file")
        return path

    monkeypatch.setattr(export.onnx, "export", record)
    monkeypatch.chdir(tmp_path)
    words = ["-n", NAME, "--precision", "fp16", "--shape", "1x3xHx40", "--opset", "19"]
    assert main([*words, "--half-io", "--plugin-free"]) == 0
    more = ["--strip-functions", "--photos", "own", "--max-loss", "0.2"]
    assert main(["-n", NAME, "-o", "own.onnx", *more]) == 0
    (_, first, one), (_, second, two) = seen
    assert str(first) == f"{NAME}_1x3xHx40_fp16_op19.onnx" and str(second) == "own.onnx"
    assert one == {
        "shape": "1x3xHx40",
        "precision": "fp16",
        "opset": 19,
        "inline": True,
        "strip_functions": False,
        "half_border": True,
        "weights": "shipped",
        "photos": None,
        "max_loss": 0.15,
    }
    assert two == {
        "shape": None,
        "precision": "fp32",
        "opset": None,
        "inline": False,
        "strip_functions": True,
        "half_border": False,
        "weights": "shipped",
        "photos": Path("own"),
        "max_loss": 0.2,
    }
    assert "input Nx3xHxW" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "inline", "strip"),
    [
        ([], False, False),
        (["--inline"], True, False),
        (["--plugin-free"], True, False),
        (["--for", "ort"], False, False),
        (["--for", "ort-web"], False, False),
        (["--for", "directml"], False, False),
        (["--for", "coreml"], False, False),
        (["--for", "openvino"], True, False),
        (["--for", "tensorrt"], False, True),
        (["--for", "ort", "--inline"], True, False),
    ],
    ids=lambda value: " ".join(value) or "default" if isinstance(value, list) else "",
)
def test_a_runtime_is_a_set_of_options(words, inline, strip, traces, tmp_path):
    path = tmp_path / "n.onnx"
    assert main(["-n", NAME, "-o", str(path), *words]) == 0
    model = onnx.load(path)
    assert (len(model.functions) == 0) == (inline or strip)
    assert (len(scan_nodes(model)) == 0) == inline


@pytest.mark.parametrize("passed", [True, False])
def test_the_command_fails_where_verification_does(passed, monkeypatch, tmp_path, capsys):
    seen, report = [], SimpleNamespace(passed=passed)
    monkeypatch.setattr(export.onnx, "export", lambda n, path, **_: path.write_bytes(b"a file"))
    monkeypatch.setattr(
        export.verify,
        "verify",
        lambda *given: seen.append(given) or report,
    )
    path = tmp_path / "n.onnx"
    assert main(["-n", NAME, "-o", str(path)]) == 0 and not seen
    assert str(report) not in capsys.readouterr().out
    assert main(["-n", NAME, "-o", str(path), "--verify"]) == (0 if passed else 1)
    assert capsys.readouterr().out.endswith(f"\n{report}\n")
    assert seen[0][1] == path


def test_weights_are_those_given_those_that_ship_or_random_ones_with_a_warning(tmp_path, caplog):
    shipped = read_state(WEIGHTS / f"{NAME}.safetensors")[0]
    for given, name in (
        (None, "shipped"),
        (WEIGHTS / f"{NAME}.safetensors", f"{NAME}.safetensors"),
    ):
        source = network_of(NAME, given)
        assert source.weights == name and not source.network.training
        state = source.network.state_dict()
        assert all(torch.equal(state[key], value) for key, value in shipped.items())
    assert not caplog.records
    source = network_of("mambair_light_x2", None)
    assert source.weights == "random" and not source.network.training
    assert "RANDOM weights" in caplog.text


def test_weights_that_name_no_model_are_told_to_be_others(monkeypatch):
    for held, told in (
        (None, "no fit; give weights of ours with -w"),
        ("ours", "no fit; give weights of ours with -w"),
        ("other", "a.pth contains weights of other, which do not fit ours: export other with -n, "
         "or give weights of ours with -w"),
    ):  # fmt: skip
        monkeypatch.setattr(export.model, "model_in", lambda path, held=held: held)
        assert export.model._fix(ZooError("no fit"), "ours", Path("a.pth")) == told


def test_a_graph_whose_sizes_contradict_each_other_is_not_written(tmp_path):
    values = [
        onnx.helper.make_tensor_value_info(name, 1, [size]) for name, size in (("x", 2), ("y", 3))
    ]
    same = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([same], "g", values[:1], values[1:])
    opset = onnx.helper.make_opsetid("", 20)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    with pytest.raises(ZooError, match=r"a\.onnx: the exported graph is not valid: "):
        export.onnx.save_model(model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_the_shape_of_an_image(network):
    assert input_shape(network) == InputShape("N", None, 3, "H", "W")
    shape = input_shape(network, "4x3xHx40")
    assert shape.sizes == (4, 3, "H", 40) and str(shape) == "4x3xHx40"
    assert shape.dynamic == {2: "H"}
    assert shape.concrete(7, 8, 9) == (4, 3, 8, 40)
    assert input_shape(network).concrete(7, 8, 9) == (7, 3, 8, 9)
    assert input_shape(network).dynamic == {0: "N", 2: "H", 3: "W"}
    # A trace at a size of one, at equal sides or at a window's would take sizes for fixed.
    assert input_shape(network).sample() == (2, 3, 19, 13)
    for scale, own in ((1, ""), (2, "pan_")):
        guide = ExtraInput("pan", input_shape(network), (5, 1), scale)
        assert guide.dynamic == {0: "N", 3: f"{own}H", 4: f"{own}W"}
        assert guide.concrete(7, 8, 9) == (7, 5, 1, 8 * scale, 9 * scale)
    assert ExtraInput("pan", shape, (1,), 2).dynamic == {2: "pan_H"}
    assert len({*SAMPLE.values(), 1, 3}) == 5
    assert input_shape(network, "1x3x999999xW").height == 999_999
    with pytest.raises(ZooError, match="'1000000' is not a size"):
        input_shape(network, "1x3x1000000xW")


def test_the_shape_of_a_burst():
    burst = zoo.build("qmambabsr_tiny")
    apart = input_shape(burst)
    assert apart.sizes == ("N", 8, 4, "H", "W") and not apart.flat
    assert apart.dynamic == {0: "N", 3: "H", 4: "W"}
    assert apart.concrete(2, 5, 6) == (2, 8, 4, 5, 6)
    flat = input_shape(burst, "1x32xHxW")
    assert flat == InputShape(1, 8, 4, "H", "W", True)
    assert flat.sizes == (1, 32, "H", "W") and flat.concrete(2, 5, 6) == (1, 32, 5, 6)


def test_a_flat_burst_is_told_apart_frame_by_frame():
    burst = zoo.build("qmambabsr_tiny").eval()
    seen = []
    exported = prepared(burst, input_shape(burst, "1x32xHxW"), "fp32")
    exported.network.forward = lambda frames, *flow: seen.append((frames, *flow)) or frames[:, 0]
    image, flow = torch.rand(1, 32, 5, 6), torch.rand(1, 8, 2, 5, 6)
    exported(image)
    exported(image, [flow])
    for (frames, *given), expected in zip(seen, ([], [flow]), strict=True):
        assert torch.equal(frames, torch.stack(image.split(4, dim=1), dim=1))
        assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))
