"""Changes of layout that are dropped and means written otherwise, on graphs of a few nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper

from export.graph import _average_by_products, _drop_undone_transposes
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
