"""Small graphs with scans, as files of ``export.onnx`` have them, without tracing a network."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.scan_function import attach_functions
from zoo.ops.scan.names import NAMESPACE, PLUGIN_ATTRIBUTES, SUM, VERSION

FACTS = {
    "model": "two_scans",
    "input": "image",
    "scale": "1",
    "channels": "8",
    "size_multiple": "1",
    "precision": "fp32",
    "shape": "Nx8xHxW",
    "weights": "random",
}

E, N, K, R = 8, 4, 2, 2
SIDE = 12


def two_scans(
    *,
    functions=True,
    elements=TensorProto.FLOAT,
    attributes=None,
    opset=22,
    orders=None,
    fold=False,
):
    """Input (N, 8, 12, 12) -> two scans one after the other -> output of the same shape.

    The order of a scan is a constant here, so the sides are fixed. The batch is not, unless there
    are ``orders``: one for each image. With ``fold``, the second scan sees each image as two.
    """
    generator = np.random.default_rng(0)
    tokens = SIDE * SIDE
    half = helper.tensor_dtype_to_np_dtype(elements)

    def array(*shape):
        return generator.normal(0, 0.2, shape).astype(np.float32)

    order = np.stack([np.arange(tokens), np.arange(tokens)[::-1]])
    if orders is not None:
        order = np.stack([np.roll(order, 5 * image, axis=1) for image in range(orders)])
    constants = {
        "order": order.astype(np.int32),
        "delta_weight": array(K, E, R),
        "delta_bias": array(K, E),
        "A": -np.exp(array(K, E, N)),
        "D": array(K, E),
        "R": array(E, K * R).astype(half),
        "N": array(E, K * N).astype(half),
        "to_delta": np.array([0, -1, K, R]),
        "to_BC": np.array([0, -1, K, N]),
        "to_tokens": np.array([0, E, tokens]),
        "to_image": np.array([0, E, SIDE, SIDE]),
    }
    folds = {
        "order_of_half": np.stack([np.arange(tokens // 2)] * K).astype(np.int32),
        "to_halves": np.array([-1, tokens // 2, E]),
        "to_whole": np.array([-1, tokens, E]),
    }
    constants |= folds if fold else {}
    before = ("delta_weight", "delta_bias", "A")
    nodes = [
        helper.make_node("Reshape", ["input", "to_tokens"], ["channels"]),
        helper.make_node("Transpose", ["channels"], ["full"], perm=[0, 2, 1]),
        helper.make_node("Cast", ["full"], ["u0"], to=elements),
    ]
    for i in range(2):
        order_name = "order"
        if fold and i == 1:
            order_name = "order_of_half"
            nodes[-1].output[0] = "whole"
            nodes.append(helper.make_node("Reshape", ["whole", "to_halves"], ["u1"]))
        nodes += [
            helper.make_node("MatMul", [f"u{i}", "R"], [f"flat_delta{i}"]),
            helper.make_node("Reshape", [f"flat_delta{i}", "to_delta"], [f"delta{i}"]),
            helper.make_node("MatMul", [f"u{i}", "N"], [f"flat_B{i}"]),
            helper.make_node("Reshape", [f"flat_B{i}", "to_BC"], [f"B{i}"]),
            helper.make_node(
                SUM,
                [f"u{i}", f"delta{i}", *before, f"B{i}", f"B{i}", "D", order_name],
                [f"u{i + 1}"],
                name=f"scan_{i}",
                domain=NAMESPACE,
                **(PLUGIN_ATTRIBUTES if attributes is None else attributes),
            ),
        ]
    if fold:
        nodes[-1].output[0] = "halves"
        nodes.append(helper.make_node("Reshape", ["halves", "to_whole"], ["u2"]))
    nodes += [
        helper.make_node("Cast", ["u2"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["y"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["rows", "to_image"], ["output"]),
    ]
    shape = ["N", E, SIDE, SIDE]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "two_scans",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(NAMESPACE, VERSION)],
        ir_version=10,
    )
    helper.set_model_props(model, FACTS)
    if functions:
        attach_functions(model)
        onnx.checker.check_model(model, full_check=True)
    return model
