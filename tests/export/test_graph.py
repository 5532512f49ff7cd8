"""Changes of layout that are dropped and means written otherwise, on graphs of a few nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper

from export.graph import _average_by_products, _drop_undone_transposes, _may_fold
from zoo.integrations.onnxruntime import open_session

LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def graph_of(nodes, outputs):
    values = [helper.make_tensor_value_info(n, 1, [1, None, None, None]) for n in ("x", *outputs)]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node(kind, given, made, perm=None):
    return helper.make_node(kind, [given], [made], **({} if perm is None else {"perm": perm}))


CHAIN = [
    node("Transpose", "x", "a", LAST),
    node("Gelu", "a", "b"),
    node("Transpose", "b", "c", FIRST),
]

# The nodes, the outputs, and how many transposes must remain.
CASES = {
    "at once": ([CHAIN[0], node("Transpose", "a", "c", FIRST), node("Neg", "c", "y")], "y", 0),
    "behind an activation": ([*CHAIN, node("Neg", "c", "y")], "y", 0),
    "read by another too": ([*CHAIN, node("Neg", "c", "y"), node("Abs", "b", "z")], "yz", 1),
    "taken back twice": (
        [*CHAIN, node("Neg", "c", "y"), node("Transpose", "b", "d", FIRST), node("Abs", "d", "z")],
        "yz",
        0,
    ),
    "a result itself": ([*CHAIN, node("Neg", "c", "y")], "yb", 2),
    "results at both ends": ([CHAIN[0], node("Transpose", "a", "y", FIRST)], "y", 2),
    "an activation of the input": (
        [node("Gelu", "x", "b"), CHAIN[2], node("Neg", "c", "y")],
        "y",
        1,
    ),
    "not taken back": (
        [*CHAIN[:2], node("Transpose", "b", "c", LAST), node("Neg", "c", "y")],
        "y",
        2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_layouts_that_are_taken_back_are_dropped(case):
    nodes, outputs, remaining = CASES[case]
    before = graph_of(nodes, outputs)
    model = onnx_ir.from_proto(before)
    _drop_undone_transposes(model.graph)
    onnx_ir.passes.common.RemoveUnusedNodesPass()(model)
    after = onnx_ir.to_proto(model)
    assert [n.op_type for n in after.graph.node].count("Transpose") == remaining
    onnx.checker.check_model(after, full_check=True)
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4), np.float32)
    expected, found = (
        open_session(m.SerializeToString()).run(None, {"x": x}) for m in (before, after)
    )
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_values_that_change_places_have_their_types_and_sizes():
    nodes = [*CHAIN, node("Neg", "c", "y"), node("Abs", "b", "z")]
    values = [helper.make_tensor_value_info(n, 1, None) for n in "yz"]
    image = [helper.make_tensor_value_info("x", 1, [1, 2, 3, 4])]
    model = onnx_ir.from_proto(
        onnx.shape_inference.infer_shapes(
            helper.make_model(helper.make_graph(nodes, "graph", image, values))
        )
    )
    _drop_undone_transposes(model.graph)
    found = {n.op_type: n.outputs[0] for n in model.graph if n.outputs[0].uses()}
    assert found["Gelu"].shape == [1, 2, 3, 4]
    moved = found["Transpose"]
    assert moved.shape == [1, 3, 4, 2] and moved.type == found["Gelu"].type is not None


def test_tables_are_looked_up_while_the_result_is_small_or_not_much_larger():
    def folds(shape, picked, axis=0):
        table = onnx.numpy_helper.from_array(np.zeros(shape, np.float32), "table")
        index = onnx.numpy_helper.from_array(np.zeros(picked, np.int64), "index")
        gather = helper.make_node("Gather", ["table", "index"], ["y"], axis=axis)
        output = helper.make_tensor_value_info("y", 1, None)
        graph = helper.make_graph([gather], "g", [], [output], [table, index])
        return _may_fold(next(iter(onnx_ir.from_proto(helper.make_model(graph)).graph)))

    assert folds((1, 4), 1024) is None and folds((1, 4), 1025) is False  # 4096 numbers
    assert folds((2000, 4), 8000) is None and folds((2000, 4), 8001) is False  # 4 times it
    assert folds((4, 5000), 5000, axis=1) is None and folds((0, 4), 1) is None
    index = helper.make_tensor_value_info("index", 7, [9])
    table = onnx.numpy_helper.from_array(np.zeros((3, 4), np.float32), "table")
    lookup = helper.make_node("Gather", ["table", "index"], ["y"])
    output = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph([lookup], "g", [index], [output], [table])
    assert _may_fold(next(iter(onnx_ir.from_proto(helper.make_model(graph)).graph))) is None


def mean_of(sizes, axes, element=onnx.TensorProto.FLOAT, **keep):
    """A graph of one mean over axes."""
    rank = len(sizes) - 1 + keep.get("keepdims", 1)
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x", "axes"], ["y"], **keep)],
        "graph",
        [helper.make_tensor_value_info("x", element, sizes)],
        [helper.make_tensor_value_info("y", element, [None] * rank)],
        [onnx.numpy_helper.from_array(np.array(axes), "axes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def averaged(before):
    model = onnx_ir.from_proto(before)
    _average_by_products(model.graph)
    onnx_ir.passes.common.RemoveUnusedNodesPass()(model)
    return onnx_ir.to_proto(model)


@pytest.mark.parametrize("keep", [{}, {"keepdims": 0}], ids=["kept", "dropped"])
@pytest.mark.parametrize("sizes", [(3,), (2, 5)], ids=["BLC", "BLKE"])
def test_means_over_tokens_are_products(sizes, keep):
    """ONNX Runtime is forty times as fast, for as many tokens as an image has."""
    before = mean_of(["N", "L", *sizes], [1], **keep)
    after = averaged(before)
    kinds = [n.op_type for n in after.graph.node]
    assert "MatMul" in kinds
    assert "ReduceMean" not in kinds
    assert "Cast" not in kinds, "a type that float16 converters cannot change"
    onnx.checker.check_model(after, full_check=True)
    for batch, tokens in ((1, 1), (2, 7), (1, 4099)):
        x = np.random.default_rng(0).random((batch, tokens, *sizes), np.float32)
        expected, found = (
            open_session(m.SerializeToString()).run(None, {"x": x})[0] for m in (before, after)
        )
        np.testing.assert_allclose(found, expected, rtol=5e-6)


@pytest.mark.parametrize(
    "graph",
    [
        mean_of(["N", "L", 3], [2]),
        mean_of(["N", "L"], [1]),
        mean_of(["N", "T", "H", 3], [1]),
        mean_of(["N", "L", 3], [1], onnx.TensorProto.FLOAT16),
    ],
    ids=["last axis", "two axes", "sizes that vary", "half precision, which would overflow"],
)
def test_other_means_stay(graph):
    assert [n.op_type for n in averaged(graph).graph.node] == ["ReduceMean"]
