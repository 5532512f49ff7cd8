"""The scan as one ONNX node: its body and our operator against the definition."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from export.graph import written_out
from export.scan_bodies import one_by_one, side_by_side, together
from export.scan_function import (
    _body,
    attach_functions,
    scan_function,
    scan_nodes,
    strip_functions,
)
from tests.helpers.graphs import two_scans
from tests.helpers.scan_cases import CASES, Case, make_inputs
from zoo.integrations.onnxruntime import OnnxError, open_session
from zoo.ops import ort_library, selective_scan
from zoo.ops.scan import native
from zoo.ops.scan.contract import SCHEMA, Kind
from zoo.ops.scan.names import EACH, NAMESPACE, NODES, PLUGIN_ATTRIBUTES, SUM, VERSION

ELEMENTS = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.int32: TensorProto.INT32,
}
ROW = np.tile(np.arange(7, dtype=np.int32), (2, 1))
"""An order of two directions over seven tokens."""
LOW_RANK = [case for case in CASES if case.low_rank]
needs_native = pytest.mark.skipif(
    native.unavailable() is not None, reason="the native library is not built"
)


BODIES = {
    "one by one": one_by_one(8),
    "side by side": side_by_side(3, 2),
    "together": together(8),
}


def one_node(case, inputs, opset=20, body=None):
    """A model of one scan whose sizes are all unknown, with the usual function or that body."""
    name = SUM if case.reduce else EACH
    node = helper.make_node(name, list(SCHEMA), ["y"], domain=NAMESPACE, **PLUGIN_ATTRIBUTES)
    values = [
        helper.make_tensor_value_info(name, ELEMENTS[t.dtype], [None] * t.dim())
        for name, t in zip(SCHEMA, inputs, strict=True)
    ]
    rank = 3 if case.reduce else 4
    y = helper.make_tensor_value_info("y", ELEMENTS[inputs[0].dtype], [None] * rank)
    model = helper.make_model(
        helper.make_graph([node], "scan", values, [y]),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(NAMESPACE, VERSION)],
        ir_version=9,
    )
    attach_functions(model)
    if body is not None:
        model.functions[0].CopyFrom(scan_function(name, opset, body))
    onnx.checker.check_model(model, full_check=True)
    return model


def feeds(inputs):
    return {name: t.contiguous().numpy() for name, t in zip(SCHEMA, inputs, strict=True)}


def run(model, inputs, **options):
    session = open_session(model.SerializeToString(), **options)
    return torch.from_numpy(session.run(None, feeds(inputs))[0])


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("case", [case for case in LOW_RANK if case.B], ids=str)
def test_the_body_is_the_definition(case, dtype, body):
    inputs = make_inputs(case, dtype)
    expected = selective_scan(*inputs, reduce=case.reduce, backend="reference")
    found = run(one_node(case, inputs, body=body), inputs, operator=False)
    assert found.dtype == dtype
    # float16: the same float32 sums, rounded once at the end.
    tolerance = {torch.float32: 1e-6, torch.float16: 1e-3}[dtype]
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("case", [c for c in LOW_RANK if c.B > 1 and not c.per_image], ids=str)
def test_the_body_takes_an_order_for_each_image(case, body):
    inputs = make_inputs(case, torch.float32)
    *others, order_KS = inputs
    orders_BKS = torch.stack([order_KS.roll(b, 1) for b in range(case.B)])
    given = [*others, orders_BKS]
    found = run(one_node(case, given, body=body), given, operator=False)
    for b, order in enumerate(orders_BKS):
        image = [
            x[b : b + 1] if spec.kind is Kind.TOKENS else x
            for x, spec in zip(others, SCHEMA.values(), strict=False)
        ]
        expected = selective_scan(*image, order, reduce=case.reduce, backend="reference")
        assert (found[b : b + 1] - expected).abs().max() <= 1e-6 * expected.abs().max()


def functions():
    return [scan_function(name, 20, body) for name in NODES for body in BODIES.values()]


def scan_body(function):
    (scan,) = [node for node in function.node if node.op_type == "Scan"]
    return next(entry.g for entry in scan.attribute if entry.name == "body")


@pytest.mark.parametrize("function", functions(), ids=range(6))
def test_the_body_keeps_to_what_older_runtimes_read(function):
    """ONNX Runtime 1.18 to 1.24 refuse lists of integers, OpenVINO refuses values from outside."""
    body = scan_body(function)
    for node in (*function.node, *body.node):
        assert node.name
        if node.op_type == "Constant":
            assert [entry.name for entry in node.attribute] == ["value"]
    known = {value.name for value in body.input}
    for node in body.node:
        assert set(filter(None, node.input)) <= known, node.name
        known.update(node.output)
    assert not {name for node in function.node for name in node.output} & known
    for value in (*body.input, *body.output):
        assert value.type.tensor_type.HasField("shape")
        # Names would let ONNX Runtime share memory between scans whose sizes differ.
        assert not any(size.dim_param for size in value.type.tensor_type.shape.dim)


def usual_splits(channels, states):
    """Parts of each ``Split`` in the usual function of a scan of such sizes."""
    inputs = make_inputs(Case(K=1, E=channels, N=states), torch.float32)
    model = one_node(LOW_RANK[0], inputs)
    model.graph.initializer.append(onnx.numpy_helper.from_array(inputs[4].numpy(), "A"))
    attach_functions(model)
    body = scan_body(model.functions[0])
    return [len(node.output) for node in body.node if node.op_type == "Split"]


@pytest.mark.parametrize(
    ("channels", "states", "steps"), [(257, 4, 32), (512, 4, 32), (512, 8, 16), (4096, 16, 4)]
)
def test_an_iteration_takes_as_many_steps_as_the_cache_holds(channels, states, steps):
    assert usual_splits(channels, states) == [steps, steps]


def test_functions_are_in_sequence_and_suit_the_largest_scan_of_their_kind():
    model = two_scans(functions=False)
    first, second = scan_nodes(model)
    first.input[4], second.input[4] = "large", "small"
    for name, states in (("large", 4096), ("small", 4)):
        A = np.zeros((2, 8, states), np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(A, name))
    attach_functions(model)
    [function] = model.functions
    [expected] = [scan_function(SUM, 22, _body(2 * 8 * 4096))]
    assert function == expected != scan_function(SUM, 22, _body(2 * 8 * 4))
    second.op_type = EACH
    attach_functions(model)
    assert [function.name for function in model.functions] == sorted([SUM, EACH])


@pytest.mark.parametrize("channels", [4, 256])
def test_scans_with_few_states_run_in_lanes(channels):
    assert usual_splits(channels, states=4) == [8] * 4 + [16] * 2


def test_the_softplus_of_the_body_is_right_for_every_step():
    """Its parts are a fitted series; errors of small steps would be relative ones."""
    raw = np.linspace(-80, 80, 100001, dtype=np.float32)
    parts = list(scan_body(scan_function(SUM, 20, BODIES["one by one"])).node)
    first = next(i for i, node in enumerate(parts) if node.output[0] == "half")
    last = next(i for i, node in enumerate(parts) if node.output[0] == "step")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        parts[first : last + 1],
        "softplus",
        [value("raw", TensorProto.FLOAT, [raw.size])],
        [value("step", TensorProto.FLOAT, [raw.size])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = open_session(model.SerializeToString())
    expected = np.logaddexp(0, raw.astype(np.float64))
    np.testing.assert_allclose(session.run(None, {"raw": raw})[0], expected, rtol=6e-7)
    far = np.zeros_like(raw)
    far[:4] = -1e30, -100, 100, 1e30  # exp(|raw|) is infinite
    found = session.run(None, {"raw": far})[0]
    np.testing.assert_allclose(found[:4], [0, 0, 100, 1e30], rtol=6e-7, atol=1e-37)


@pytest.mark.parametrize("body", BODIES)
def test_directions_are_summed_by_a_product_outside_tensorrt(body):
    kinds = [n.op_type for n in scan_function(SUM, 20, BODIES[body]).node]
    assert ("MatMul" in kinds) == (body != "together")
    assert ("ReduceSum" in kinds) == (body == "together")
    assert "ReduceSum" not in [n.op_type for n in scan_function(EACH, 20, BODIES[body]).node]


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("case", LOW_RANK, ids=str)
def test_our_operator_is_the_native_kernel_for_any_number_of_threads(case, dtype):
    inputs = make_inputs(case, dtype)
    expected = selective_scan(*inputs, reduce=case.reduce, backend="native")
    model = one_node(case, inputs)
    for threads in (1, 3):
        before = native.ort_calls()
        found = run(model, inputs, operator=True, threads=threads)
        assert native.ort_calls() == before + 1
        assert torch.equal(found, expected)


@needs_native
def test_the_body_is_not_run_where_our_operator_is_and_the_other_way_round():
    inputs = make_inputs(LOW_RANK[0], torch.float32)
    model = one_node(LOW_RANK[0], inputs)
    before = native.ort_calls()
    run(model, inputs, operator=False)
    assert native.ort_calls() == before
    run(model, inputs)
    assert native.ort_calls() == before + 1
    strip_functions(model)
    run(model, inputs)
    assert native.ort_calls() == before + 2
    with pytest.raises(OnnxError, match=EACH):
        run(model, inputs, operator=False)


@needs_native
def test_large_inputs_do_not_depend_on_threads():
    """Large enough that the work is really shared out."""
    generator = torch.Generator().manual_seed(1)
    B, L, K, E, R, N = 1, 600, 4, 96, 6, 16
    inputs = [
        torch.randn(B, L, E, generator=generator),
        torch.randn(B, L, K, R, generator=generator),
        torch.randn(K, E, R, generator=generator),
        torch.randn(K, E, generator=generator),
        -torch.rand(K, E, N, generator=generator),
        torch.randn(B, L, K, N, generator=generator),
        torch.randn(B, L, K, N, generator=generator),
        torch.randn(K, E, generator=generator),
        torch.stack([torch.randperm(L, generator=generator) for _ in range(K)]).int(),
    ]
    model = one_node(LOW_RANK[0], inputs)
    one, many = (run(model, inputs, operator=True, threads=count) for count in (1, 4))
    assert torch.equal(one, many)


@needs_native
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("order", np.full((2, 7), 7, np.int32), "outside -1 .. L-1"),
        ("order", np.full((2, 7), -2, np.int32), "outside -1 .. L-1"),
        ("order", np.zeros((2, 7), np.int32), "visits a token twice"),
        ("order", np.zeros((0, 7), np.int32), "do not fit"),
        ("order", np.stack([ROW, ROW[:, ::-1] + 1]), "outside -1 .. L-1"),
        ("order", np.stack([ROW, ROW // 2]), "visits a token twice"),
        ("order", np.stack([ROW] * 3), "do not fit"),
        ("D", np.zeros((1, 5), np.float32), "do not fit"),
        ("B", np.zeros((2, 7, 2, 3), np.float32), "do not fit"),
    ],
)
def test_our_operator_refuses_what_would_read_beyond_its_inputs(name, value, message):
    inputs = make_inputs(LOW_RANK[0], torch.float32)
    if name == "order" and value.ndim == 3:
        inputs[-1] = inputs[-1].expand(2, -1, -1)
    session = open_session(one_node(LOW_RANK[0], inputs).SerializeToString(), operator=True)
    with pytest.raises(Exception, match=message):
        session.run(None, feeds(inputs) | {name: value})


@needs_native
@pytest.mark.parametrize("empty", ["rank", "states", "directions"])
def test_our_operator_refuses_axes_without_which_it_would_misread(empty):
    inputs = make_inputs(LOW_RANK[0], torch.float32)
    session = open_session(one_node(LOW_RANK[0], inputs).SerializeToString(), operator=True)
    given = feeds(inputs)
    axis = {"rank": "R", "states": "N", "directions": "K"}[empty]
    for name, spec in SCHEMA.items():
        if axis in spec.axes:
            given[name] = given[name].take(range(0), axis=spec.axes.index(axis))
    with pytest.raises(Exception, match="do not fit"):
        session.run(None, given)


def test_written_out_no_operator_of_ours_is_left():
    inputs = make_inputs(LOW_RANK[1], torch.float32)
    model = written_out(one_node(LOW_RANK[1], inputs))
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = selective_scan(*inputs, reduce=False)
    found = torch.from_numpy(session.run(None, feeds(inputs))[0])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_the_body_in_other_opsets(opset):
    inputs = make_inputs(LOW_RANK[0], torch.float32)
    found = run(one_node(LOW_RANK[0], inputs, opset), inputs, operator=False)
    torch.testing.assert_close(found, selective_scan(*inputs, reduce=True), atol=1e-5, rtol=1e-5)


def test_steps_of_any_size_stay_finite():
    inputs = make_inputs(LOW_RANK[0], torch.float32, spread=1e4)
    inputs[3] = torch.linspace(-100, 100, inputs[3].numel()).reshape(inputs[3].shape)
    expected = selective_scan(*inputs, reduce=True, backend="reference")
    found = run(one_node(LOW_RANK[0], inputs), inputs, operator=False)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@needs_native
def test_the_library_serves_a_process_without_torch(tmp_path):
    """Only ONNX Runtime and the library's path are needed."""
    inputs = make_inputs(LOW_RANK[0], torch.float32)
    (tmp_path / "scan.onnx").write_bytes(one_node(LOW_RANK[0], inputs).SerializeToString())
    np.savez(tmp_path / "inputs.npz", **feeds(inputs))
    code = (
        "import sys, numpy, onnxruntime as ort\n"
        "options = ort.SessionOptions()\n"
        f"options.register_custom_ops_library({ort_library()!r})\n"
        "session = ort.InferenceSession('scan.onnx', options)\n"
        "y = session.run(None, dict(numpy.load('inputs.npz')))[0]\n"
        "assert 'torch' not in sys.modules\n"
        "numpy.save('y.npy', y)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=dict(os.environ))
    expected = selective_scan(*inputs, reduce=True, backend="native")
    assert np.array_equal(np.load(tmp_path / "y.npy"), expected.numpy())
