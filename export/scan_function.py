"""The selective scan as a function of standard ONNX operators.

Every scan of an exported file is one node of the domain ``zoo``. A runtime that does not know the
node runs the function of the same name in the file. The names are in :mod:`zoo.ops.scan.names`. The
inputs are those of :data:`zoo.ops.scan.contract.SCHEMA`; all are required. The order is (K, S), or
(B, K, S) with an order for each image.
"""

from __future__ import annotations

import math

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from export import scan_text
from export.scan_bodies import Body, one_by_one, side_by_side, together
from zoo.ops.scan.contract import SCHEMA
from zoo.ops.scan.names import NAMESPACE, NODES, PLUGIN_ATTRIBUTES

TENSORRT_CHUNK = 64
"""Steps per iteration of the function for TensorRT; a power of two."""

CHUNKS = (4, 32)
"""Fewest and most steps per iteration of the function for other runtimes."""

NUMBERS = 2**16
"""Decays computed per iteration, at most, so that they stay in a core's cache: 256 KiB. Larger
chunks save the cost of iterations and of nodes."""

FEW, LANES, WALK = 2**10, 16, 8
"""Scans of up to so many decays per step are computed in lanes of so many steps."""


def scan_function(name: str, opset: int, body: Body) -> FunctionProto:
    """Make the function of one of ``NODES`` from standard operators.

    Args:
        name: name of the node.
        opset: version of the standard operators, 18 or later.
        body: how it computes a chunk of steps.
    """
    text = scan_text.FUNCTION.format(
        domain=NAMESPACE,
        inputs=", ".join(SCHEMA),
        name=name,
        opset=opset,
        attributes=", ".join(PLUGIN_ATTRIBUTES),
        chunk=body.chunk,
        places=body.places,
        scan=body.scan,
        first_rows=body.first_rows,
        result=scan_text.RESULTS[name].format(total=body.total),
    )
    function = onnx.parser.parse_function(text)
    _name_nodes(function)
    return function


def _name_nodes(graph: FunctionProto | GraphProto) -> None:
    """Name each node after its first output. Some converters need names."""
    for node in graph.node:
        node.name = node.output[0]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _name_nodes(attribute.g)


def scan_nodes(model: ModelProto) -> list[NodeProto]:
    """The nodes of a model's selective scans. All of them are in the main graph."""
    return [n for n in model.graph.node if n.domain == NAMESPACE and n.op_type in NODES]


def attach_functions(model: ModelProto, *, tensorrt: bool = False) -> None:
    """Add the functions of its scans to a model; see :func:`scan_function`.

    This must be the last step of an export, because optimisers and version converters inline or
    drop functions.
    """
    strip_functions(model)
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    numbers = _decays_of_a_step(model)
    for name, largest in sorted(numbers.items()):
        body = together(TENSORRT_CHUNK) if tensorrt else _body(largest)
        model.functions.append(scan_function(name, opset, body))


def _decays_of_a_step(model: ModelProto) -> dict[str, int]:
    """The largest K * E * N of each kind of scan; 1 if no size is known."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    a = list(SCHEMA).index("A")
    found: dict[str, int] = {}
    for node in scan_nodes(model):
        found[node.op_type] = max(found.get(node.op_type, 1), sizes.get(node.input[a], 1))
    return found


def _body(numbers: int) -> Body:
    """How to compute a scan of so many decays per step, outside TensorRT."""
    if numbers <= FEW:
        return side_by_side(LANES, WALK)
    fewest, most = CHUNKS
    chunk = 2 ** (max(1, NUMBERS // numbers).bit_length() - 1)
    return one_by_one(min(most, max(fewest, chunk)))


def scan_functions(model: ModelProto) -> list[FunctionProto]:
    """The functions of a model's scans."""
    return [function for function in model.functions if function.domain == NAMESPACE]


def without_functions(model: ModelProto) -> ModelProto:
    """Copy a model without the functions of its scans."""
    copied = ModelProto()
    copied.CopyFrom(model)
    strip_functions(copied)
    return copied


def strip_functions(model: ModelProto) -> None:
    """Remove the functions of the scans. TensorRT up to 10.6 would prefer them to the plugin."""
    kept = [function for function in model.functions if function.domain != NAMESPACE]
    del model.functions[:]
    model.functions.extend(kept)
