"""Verification: whatever a file or an engine does wrong is a failure, and so is running nothing."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import export.verify
from export.model import facts_of
from export.shape import InputShape
from export.verify import (
    ENGINE_TOLERANCES,
    SIZES,
    TOLERANCES,
    Comparison,
    Report,
    _compare,
    upcast,
    verify,
    verify_engine,
)
from tests.helpers.graphs import two_scans
from zoo.errors import ZooError
from zoo.networks import Guide, Network
from zoo.ops.scan import native

FAULTS = {
    "NaN": lambda y: y * math.nan,
    "one NaN": lambda y: torch.where(torch.arange(y.shape[-1]) == 2, math.nan, y),
    "infinity": lambda y: y + math.inf,
    "zeros": torch.zeros_like,
    "transposed": lambda y: y.mT.reshape(y.shape),
    "upside down": lambda y: y.flip(-2),
    "another size": lambda y: y[..., :-1],
    "one image only": lambda y: y[:1].expand_as(y) if len(y) > 1 else y + 1,
}


class Scaled(Network):
    """``weight * image + added``, as small a network as there is."""

    scale, channels = 1, 3

    def __init__(self, added=0.1):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.added = added

    def forward(self, image_BIHW):
        return image_BIHW * self.weight + self.added


class Runner(Network):
    """What runs an engine: ``change`` is done to the output that it should give."""

    scale, channels = 1, 3

    def __init__(self, change=lambda y: y):
        super().__init__()
        self.change, self.seen = change, []
        self.placement = nn.Parameter(torch.empty(0))

    def forward(self, image_BIHW):
        self.seen.append(image_BIHW.clone())
        return self.change(image_BIHW * 0.5 + 0.1)


def file_of(path, added=0.1, **facts):
    """The file of a network that is ``Scaled``, with facts of its own."""
    nodes = [
        helper.make_node("Mul", ["input", "weight"], ["scaled"]),
        helper.make_node("Add", ["scaled", "added"], ["output"]),
    ]
    shape = ["N", 3, "H", "W"]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("input", "output")
    ]
    constants = {"weight": 0.5, "added": added}
    model = helper.make_model(
        helper.make_graph(
            nodes, "scaled", values[:1], values[1:],
            [numpy_helper.from_array(np.float32(v), n) for n, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )  # fmt: skip
    said = facts_of(Scaled(), "random") | {"shape": "Nx3xHxW", "precision": "fp32"} | facts
    helper.set_model_props(model, said)
    onnx.save(model, path)
    return path


def test_a_right_file_is_verified_at_every_size(tmp_path):
    report = verify(Scaled(), file_of(tmp_path / "n.onnx"))
    assert report.passed and report.worst <= 1e-6 and "verified: worst" in str(report)
    assert [c.size for c in report.comparisons] == [(b, 3, h, w) for b, h, w in SIZES]
    assert {c.runtime for c in report.comparisons} == {"ONNX Runtime, standard"}
    assert report.notes == (
        "the file has standard operators only: our operator has no scan to run",
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("both", [False, True], ids=["file", "file and network"])
def test_nan_and_infinity_fail_even_where_pytorch_has_them_too(value, both, tmp_path):
    network = Scaled(value if both else 0.1)
    report = verify(network, file_of(tmp_path / "n.onnx", value))
    assert not report.passed and report.worst == math.inf
    assert "VERIFICATION FAILED" in str(report)


def test_a_network_of_nan_fails_though_the_file_is_finite(tmp_path):
    assert not verify(Scaled(math.nan), file_of(tmp_path / "n.onnx")).passed


def test_nothing_run_is_a_failure(tmp_path, monkeypatch):
    path = file_of(tmp_path / "n.onnx")
    report = verify(Scaled(), path, sizes=())
    assert not report.passed and report.worst == math.inf and "FAILED" in str(report)
    monkeypatch.setattr(export.verify, "_runtimes", lambda model, notes: {})
    assert not verify(Scaled(), path).passed
    assert not verify_engine(Scaled(), Runner(), path, (), runtime="r", rounding="fp32").passed


def test_how_far_off_a_file_or_an_engine_may_be():
    """Parts of the output's range. The reasons are in the module's docstring."""
    assert TOLERANCES == {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-4}
    assert ENGINE_TOLERANCES == {"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2, "bf16": 8e-2}


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-4), ("fp16", 1e-2)])
def test_the_error_is_a_part_of_the_outputs_range(precision, allowed, tmp_path):
    """The output spans 0.5 at most: the error that is allowed is half of that or less."""
    for off, passes in ((0.2 * allowed, True), (0.6 * allowed, False)):
        path = file_of(tmp_path / "n.onnx", 0.1 + off, precision=precision)
        assert verify(Scaled(), path).passed == passes
    for off, passes in ((0.2 * allowed, True), (0.6 * allowed, False)):
        runner = Runner(lambda y, off=off: y - off)
        given = {"runtime": "r", "rounding": precision}
        assert verify_engine(Scaled(), runner, path, SIZES, **given).passed == passes


def test_what_is_allowed_is_allowed_and_no_more():
    def passes(error, flipped):
        found = Comparison("r", (1, 1), error, 40.0, flipped)
        return Report(Path("n.onnx"), 0.25, (found,), (), 0.5).passed

    assert passes(0.25, 0.5) and not passes(0.2501, 0.5) and not passes(0.25, 0.5001)


def test_the_range_of_an_output_is_from_its_least_value_to_its_largest():
    expected = torch.tensor([[7.0, 9.0]])
    found = _compare("r", (1, 2), expected, expected + torch.tensor([[0.5, -1.0]]))
    assert found.error == 0.5 and found.psnr == pytest.approx(-10 * math.log10(0.625))


def engine_report(runner):
    return verify_engine(Scaled(), runner, "e", SIZES, runtime="TensorRT", rounding="fp32")


def test_a_right_engine_is_verified_with_pictures_in_0_to_1():
    runner = Runner()
    report = engine_report(runner)
    assert report.passed and {c.runtime for c in report.comparisons} == {"TensorRT"}
    assert [tuple(x.shape) for x in runner.seen] == [(b, 3, h, w) for b, h, w in SIZES]
    for x in runner.seen:
        assert x.min() >= 0 and 0.9 < x.max() <= 1 and x.std() > 0.1
    verify_engine(Scaled(), runner, "e", [(1, 9, 9)] * 2, runtime="r", rounding="fp32")
    assert not torch.equal(*runner.seen[-2:])  # every comparison has a picture of its own


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_engine_fails(fault):
    report = engine_report(Runner(FAULTS[fault]))
    assert not report.passed and "VERIFICATION FAILED" in str(report)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_runtime_of_a_file_fails(fault, tmp_path, monkeypatch):
    real = export.verify.open_session

    class Session:
        def __init__(self, content, **options):
            self.session = real(content, **options)
            self.get_inputs = self.session.get_inputs

        def run(self, *given):
            (y,) = self.session.run(*given)
            return [FAULTS[fault](torch.from_numpy(y)).numpy()]

    monkeypatch.setattr(export.verify, "open_session", Session)
    assert not verify(Scaled(), file_of(tmp_path / "n.onnx")).passed


def test_an_engine_at_fault_at_one_size_only_fails():
    runner = Runner(lambda y: torch.zeros_like(y) if len(y) == 2 else y)
    report = engine_report(runner)
    assert not report.passed and [c.error <= 1e-4 for c in report.comparisons] == [
        True,
        False,
        True,
    ]


def test_pytorch_is_not_compared_with_itself(monkeypatch):
    network = Scaled()
    with pytest.raises(ZooError, match="is a network of PyTorch, so nothing is verified"):
        engine_report(network)
    kept = []
    monkeypatch.setattr(Scaled, "forward", lambda self, x: kept.append(x * 0.5) or kept[-1])
    runner = Runner()
    runner.forward = lambda image: kept[-1]
    with pytest.raises(ZooError, match="TensorRT: it returned PyTorch's own output"):
        engine_report(runner)


@pytest.mark.skipif(native.unavailable() is not None, reason="the native library is not built")
def test_both_ways_of_running_a_scan_are_run():
    notes = []
    runtimes = export.verify._runtimes(two_scans(), notes)
    assert list(runtimes) == ["ONNX Runtime, standard", "ONNX Runtime, our operator"] and not notes
    for session, calls in zip(runtimes.values(), (0, 2), strict=True):
        before = native.ort_calls()
        session.run(None, {"input": np.zeros((1, 8, 12, 12), np.float32)})
        assert native.ort_calls() == before + calls
    assert list(export.verify._runtimes(two_scans(functions=False), [])) == [
        "ONNX Runtime, our operator"
    ]


def test_a_file_that_does_not_say_its_precision_is_not_verified(tmp_path):
    path = file_of(tmp_path / "n.onnx", precision="fp8")
    with pytest.raises(ZooError, match=r"only those can be verified"):
        verify(Scaled(), path)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(ZooError, match=r"only those can be verified"):
        verify(Scaled(), path)


def test_every_comparison_has_a_seed_of_its_own(tmp_path, monkeypatch):
    seeds, inputs = [], export.verify._inputs

    def noted(network, shape, sizes, seed):
        seeds.append(seed)
        return inputs(network, shape, sizes, seed)

    monkeypatch.setattr(export.verify, "_inputs", noted)
    sizes = [(1, 4, 4)] * 3
    verify(Scaled(), file_of(tmp_path / "n.onnx"), sizes=sizes, seed=5)
    verify_engine(Scaled(), Runner(), "e", sizes, runtime="r", rounding="fp32", seed=7)
    assert seeds == [5, 6, 7, 7, 8, 9]


def test_pictures_are_smooth_with_some_detail():
    made, again = (torch.Generator().manual_seed(3) for _ in range(2))
    found = export.verify._picture((2, 4, 3, 40, 50), made)
    coarse = torch.rand(8, 3, 3, 3, generator=again)
    soft = F.interpolate(coarse, (40, 50), mode="bicubic")
    detail = 0.1 * torch.randn(8, 3, 40, 50, generator=again)
    assert torch.equal(found, (soft + detail).clamp(0, 1).reshape(2, 4, 3, 40, 50))
    assert found.min() == 0 and found.max() == 1


def test_guides_are_pictures_and_flows_are_of_half_a_pixel():
    guides = {"pan": Guide(channels=2, scale=2), "map": Guide(channels=1)}
    network = SimpleNamespace(takes_flow=False, guides=guides)
    shape = InputShape("N", None, 3, "H", "W")
    found = export.verify._inputs(network, shape, (2, 3, 5, 7), 4)
    assert [tuple(x.shape) for x in found] == [(2, 3, 5, 7), (2, 2, 10, 14), (2, 1, 5, 7)]
    assert all(x.min() >= 0 and x.max() <= 1 for x in found)
    shape = InputShape("N", 3, 4, "H", "W")
    network = SimpleNamespace(takes_flow=True, guides={})
    frames, flow = export.verify._inputs(network, shape, (2, 3, 4, 5, 7), 4)
    assert frames.shape == (2, 3, 4, 5, 7) and flow.shape == (2, 3, 2, 5, 7)
    assert -0.5 <= flow.min() < -0.4 and 0.4 < flow.max() <= 0.5
    again = export.verify._inputs(network, shape, (2, 3, 4, 5, 7), 4)
    assert torch.equal(again[0], frames) and torch.equal(again[1], flow)


def test_a_file_in_bf16_is_checked_as_a_whole(tmp_path, monkeypatch):
    """ONNX Runtime on a CPU does not open it, so nothing else would."""
    checked = []
    monkeypatch.setattr(
        onnx.checker, "check_model", lambda model, **options: checked.append((model, options))
    )
    model = onnx.load(bf16_file(tmp_path / "n.onnx"))
    export.verify._bf16_in_float32(model, Scaled(), InputShape(1, None, 3, 5, 7))
    assert checked == [(model, {"full_check": True})]


def test_a_report_is_a_table_with_its_verdict():
    found = (
        Comparison("ONNX Runtime, standard", (1, 3, 11, 18), 2.5e-7, 123.456),
        Comparison("ONNX Runtime, our operator", (2, 3, 24, 17), 3e-5, 70.0, 0.0004),
    )
    notes = ("a note",)
    lines = [
        "runtime                      input            max error / range      PSNR",
        "ONNX Runtime, standard       1x3x11x18                 2.50e-07  123.5 dB",
        "ONNX Runtime, our operator   2x3x24x17                 3.00e-05   70.0 dB",
        "  of its routes, 4.00e-04 differ (allowed 1e-03)",
        "a note",
        "verified: worst 3.00e-05, tolerance 1e-04",
    ]
    assert str(Report(Path("n"), 1e-4, found, notes, 1e-3)) == "\n".join(lines)
    for tolerance, flippable in ((2e-5, 1e-3), (1e-4, 1e-4)):
        report = Report(Path("n"), tolerance, found, notes, flippable)
        assert not report.passed and "VERIFICATION FAILED: worst 3.00e-05" in str(report)
    assert Report(Path("n"), 3e-5, found, notes, 4e-4).passed  # no more than what is allowed


BF16 = TensorProto.BFLOAT16


def bf16_file(path, added=0.1, **facts):
    """``file_of`` in bfloat16, with a border of float32."""
    weight, one = (numpy_helper.from_array(np.float32(v), "t") for v in (0.5, added))
    tensors = []
    for name, tensor in (("weight", weight), ("added", one)):
        values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(BF16))
        tensors.append(numpy_helper.from_array(values, name))
    nodes = [
        helper.make_node("Cast", ["input"], ["x"], to=BF16),
        helper.make_node("Constant", [], ["c"], value=tensors[1]),
        helper.make_node("Mul", ["x", "weight"], ["scaled"]),
        helper.make_node("Add", ["scaled", "c"], ["y"]),
        helper.make_node("Cast", ["y"], ["output"], to=TensorProto.FLOAT),
    ]
    shape = ["N", 3, "H", "W"]
    values = [
        helper.make_tensor_value_info(n, kind, shape)
        for n, kind in (("input", 1), ("output", 1), ("x", BF16), ("y", BF16))
    ]
    graph = helper.make_graph(nodes, "scaled", values[:1], values[1:2], tensors[:1])
    graph.value_info.extend(values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    said = facts_of(Scaled(), "random") | {"shape": "Nx3xHxW", "precision": "bf16"} | facts
    helper.set_model_props(model, said)
    onnx.save(model, path)
    return path


def test_a_file_in_bf16_is_run_as_a_copy_in_float32_with_the_rounded_weights(tmp_path):
    class Rounded(Scaled):
        def __init__(self):
            super().__init__()
            self.added = float(torch.tensor(0.1).bfloat16())
            self.weight.data.fill_(0.5009)  # 0.5 in bfloat16

    network = Rounded()
    report = verify(network, bf16_file(tmp_path / "n.onnx"))
    assert report.passed and report.worst < 1e-6 and len(report.comparisons) == len(SIZES), report
    assert report.tolerance == TOLERANCES["bf16"] and network.weight.dtype == torch.float32
    assert report.notes[0] == (
        "bf16 does not run in ONNX Runtime on a CPU: the file passed ONNX's checker, and a copy in "
        "float32 was run"
    )
    assert not verify(network, bf16_file(tmp_path / "n.onnx", added=0.11)).passed


def test_the_network_beside_a_bf16_file_rounds_weights_and_nothing_that_it_computes(tmp_path):
    class Normed(Scaled):
        def __init__(self):
            super().__init__()
            self.weight.data.fill_(0.5009)
            self.norm = nn.LayerNorm(7)

        def forward(self, image_BIHW):
            return self.norm(image_BIHW) * self.weight

    network, image = Normed(), torch.rand(1, 3, 5, 7)
    model = onnx.load(bf16_file(tmp_path / "n.onnx"))
    _, reference = export.verify._bf16_in_float32(model, network, InputShape(1, None, 3, 5, 7))
    assert {p.dtype for p in reference.parameters()} == {torch.float32}
    with torch.inference_mode():
        assert torch.equal(reference(image), network.norm(image) * 0.5)


def test_every_bfloat16_of_a_copy_is_float32_and_other_numbers_stay(tmp_path):
    model = onnx.load(bf16_file(tmp_path / "n.onnx"))
    graph = model.graph
    graph.node.append(helper.make_node("RandomNormal", [], ["r"], dtype=BF16, shape=[2]))
    graph.node.append(helper.make_node("Gather", ["x", "i"], ["g"], axis=BF16))  # a number, 16
    graph.node.append(helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16))
    graph.input.append(helper.make_tensor_value_info("i", TensorProto.INT64, [1]))
    graph.output.append(helper.make_tensor_value_info("r", BF16, [2]))
    before = model.SerializeToString()
    found = upcast(model).graph
    assert model.SerializeToString() == before
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*found.input, *found.output, *found.value_info)
    }
    assert kinds == {"input": 1, "output": 1, "x": 1, "y": 1, "i": 7, "r": 1}
    assert [numpy_helper.to_array(t).dtype for t in found.initializer] == [np.float32]
    assert found.initializer[0].name == "weight"
    given = {n.output[0]: {a.name: a for a in n.attribute} for n in found.node}
    assert given["x"]["to"].i == given["r"]["dtype"].i == TensorProto.FLOAT
    assert given["g"]["axis"].i == 16 and given["h"]["to"].i == TensorProto.FLOAT16
    value = numpy_helper.to_array(given["c"]["value"].t)
    assert value.dtype == np.float32 and value == np.float32(0.10009765625)
