"""Makes an optimised ONNX graph of a network, with one node for each scan."""

from __future__ import annotations

import logging
import math

import onnx
import onnx.inliner
import onnx_ir
import onnx_ir.passes.common as passes
import torch
from onnx_ir.tape import Tape
from onnxscript import optimizer

from export.blocks import add_functions, blocks_stood_for, write_out
from export.precision import Exported
from export.shape import extra_inputs
from export.tracing import quiet, traced
from zoo.errors import ZooError
from zoo.ops.scan.names import NAMESPACE

logger = logging.getLogger(__name__)

FOLDED = 2**26
"""Largest number of elements of folded constants; enough for all of a network's weights."""

SHARED = 2**18
"""Largest number of elements of equal constants that are stored once: index lists of windows."""

TABLE_GROWTH, FEW = 4, 4096
"""A lookup is not folded if its result is this many times the table, and more elements than few."""

ACTIVATIONS = ("Gelu", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
"""Element-wise operators with one input."""

__all__ = ["traced_graph", "written_out"]


def traced_graph(exported: Exported, opset: int) -> onnx.ModelProto:
    """Trace a network and return its graph, without the functions of the scans.

    Args:
        exported: the network to trace.
        opset: version of the standard operators.

    Raises:
        ZooError: if the network cannot be traced, with the reason.
    """
    try:
        with blocks_stood_for(exported) as calls:
            model = _traced_whole(exported, opset)
        add_functions(model, calls, opset)
    except ZooError as error:
        logger.debug("tracing blocks separately failed: %s", error)
        model = _traced_whole(exported, opset)
    with quiet():
        _tidy(model)
    return onnx_ir.to_proto(model)


def _traced_whole(exported: Exported, opset: int) -> onnx_ir.Model:
    shape, network = exported.shape, exported.network
    sample = shape.sample()
    arguments: list[torch.Tensor | list[torch.Tensor]] = [torch.rand(sample, dtype=exported.border)]
    sizes: list[dict[int, str] | list[dict[int, str]]] = [shape.dynamic]
    extra = extra_inputs(network, shape)
    if extra:
        dtype = torch.float32 if network.takes_flow else exported.border
        like = (sample[0], sample[-2], sample[-1])
        arguments.append([torch.zeros(value.concrete(*like), dtype=dtype) for value in extra])
        sizes.append([value.dynamic for value in extra])
    names = ["input", *(value.name for value in extra)]
    return traced(exported, arguments, names, sizes, ["output"], opset)


def _tidy(model: onnx_ir.Model) -> None:
    """Fold constants, merge common subexpressions, drop metadata about the exporting machine."""
    # Rewriting is the slowest step, so it runs once per kind of block, before blocks are inlined.
    optimizer.optimize_ir(
        model,
        num_iterations=2,
        input_size_limit=FOLDED,
        output_size_limit=FOLDED,
        inline=False,
        should_fold=_may_fold,
    )
    write_out(model)
    optimizer.fold_constants_ir(
        model,
        input_size_limit=FOLDED,
        output_size_limit=FOLDED,
        onnx_shape_inference=False,
        should_fold=_may_fold,
    )
    _drop_undone_transposes(model.graph)
    _average_by_products(model.graph)
    for tidy in (
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(size_limit=SHARED),
        passes.CommonSubexpressionEliminationPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.NameFixPass(),
    ):
        tidy(model)
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _may_fold(node: onnx_ir.Node) -> bool | None:
    """False for a table that is looked up many times, such as the position bias of windows.

    The result would make the file several times as large as the weights. Runtimes fold it when they
    load the file. None leaves the decision to the pass.
    """
    if node.op_type != "Gather":
        return None
    table, index = (None if value is None else value.const_value for value in node.inputs)
    if table is None or index is None:
        return None
    rows = table.shape.numpy()[node.attributes.get_int("axis", 0)]
    found = table.size // max(rows, 1) * index.size
    return False if found > max(TABLE_GROWTH * table.size, FEW) else None


def _drop_undone_transposes(graph: onnx_ir.Graph) -> None:
    """Drop pairs of transposes that cancel out, directly or across an activation.

    Features are (B, H, W, C), but ONNX convolutions take (B, C, H, W). So the layout is changed and
    changed back between two convolutions, without need if there is only an activation between them.
    """
    for back in list(graph):
        between = _maker(back)
        if back.op_type != "Transpose" or between is None or back.outputs[0].is_graph_output():
            continue
        there, found = between, back.outputs[0]
        if between.op_type in ACTIVATIONS and not between.outputs[0].is_graph_output():
            there = _maker(between) or between
        if there.op_type != "Transpose":
            continue
        first, second = (list(node.attributes["perm"].as_ints()) for node in (there, back))
        if [first[axis] for axis in second] != sorted(first):
            continue
        if there is between:
            assert there.inputs[0] is not None
            found.replace_all_uses_with(there.inputs[0])
        else:
            _activate_before(between, there, back)
            found.replace_all_uses_with(between.outputs[0])


def _activate_before(activation: onnx_ir.Node, there: onnx_ir.Node, back: onnx_ir.Node) -> None:
    """Move an activation before the transpose; other users of its output get it transposed."""
    y = activation.outputs[0]
    others = [(node, index) for node, index in y.uses() if node is not back]
    if others:
        moved = onnx_ir.Node("", "Transpose", [y], [there.attributes["perm"]])
        moved.outputs[0].type, moved.outputs[0].shape = y.type, y.shape
        assert activation.graph is not None
        activation.graph.insert_after(activation, moved)
        for node, index in others:
            node.replace_input_with(index, moved.outputs[0])
    activation.replace_input_with(0, there.inputs[0])
    y.shape = back.outputs[0].shape


def _average_by_products(graph: onnx_ir.Graph) -> None:
    """Write float32 means over tokens, (B, L, ...), as products with a row of ones.

    ONNX Runtime takes forty times as long for a mean over the second of several axes.
    """
    for node in list(graph):
        x, axes = (*node.inputs, None, None)[:2]
        if node.op_type != "ReduceMean" or x is None or axes is None or x.shape is None:
            continue
        over = axes.const_value
        kept = x.shape.dims[2:]
        sizes = [size for size in kept if isinstance(size, int)]
        if x.dtype != onnx_ir.DataType.FLOAT or over is None or over.numpy().tolist() != [1]:
            continue
        if not sizes or len(sizes) < len(kept):
            continue
        one = [1] * node.attributes.get_int("keepdims", 1)
        _write_mean(graph, node, x, sizes, [0, *one, *sizes])


def _write_mean(
    graph: onnx_ir.Graph, node: onnx_ir.Node, x: onnx_ir.Value, sizes: list[int], shape: list[int]
) -> None:
    """Replace a node by the mean of x (B, L, *sizes) over L, which is then reshaped."""
    tape = Tape()
    name = node.outputs[0].name

    def constant(word: str, values: list[int]) -> onnx_ir.Value:
        tensor = onnx_ir.tensor(values, dtype=onnx_ir.DataType.INT64, name=f"{name}.{word}")
        value = tape.initializer(tensor)
        graph.register_initializer(value)
        return value

    x_BLC = tape.op("Reshape", [x, constant("rows", [0, -1, math.prod(sizes)])])
    tokens_1 = tape.op("Shape", [x_BLC], {"start": 1, "end": 2})
    row_shape = tape.op("Concat", [constant("one", [1]), tokens_1], {"axis": 0})
    unit = onnx_ir.tensor([1.0], dtype=onnx_ir.DataType.FLOAT)
    # Types follow x, so that converters may change them.
    ones_1L = tape.op("CastLike", [tape.op("ConstantOfShape", [row_shape], {"value": unit}), x])
    sum_B1C = tape.op("MatMul", [ones_1L, x_BLC])
    count_1 = tape.op("CastLike", [tokens_1, x])
    mean_B1C = tape.op("Div", [sum_B1C, count_1])
    mean = tape.op("Reshape", [mean_B1C, constant("shape", shape)])
    mean.type, mean.shape = node.outputs[0].type, node.outputs[0].shape
    onnx_ir.convenience.replace_nodes_and_values(
        graph, node, [node], tape.nodes, node.outputs, [mean]
    )


def _maker(node: onnx_ir.Node) -> onnx_ir.Node | None:
    """The node that produces the first input of a node, or None."""
    first = node.inputs[0] if node.inputs else None
    return None if first is None else first.producer()


def written_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inline the functions of a model, so that it contains standard operators only."""
    inlined = onnx.inliner.inline_local_functions(model)
    kept = [entry for entry in inlined.opset_import if entry.domain != NAMESPACE]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    return inlined
