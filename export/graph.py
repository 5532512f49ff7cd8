"""From a traced network to a tidy ONNX graph with one node for each scan."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import onnx.inliner
import onnx_ir
import onnx_ir.passes.common as passes
import onnxscript
import torch
from onnx.defs import OpSchema
from onnxscript import optimizer

from export.precision import Exported
from export.scan_function import DOMAIN, EACH, OPERATORS, PLUGIN, SUM, VERSION
from zoo.errors import ZooError

INPUTS = ("u", "delta", "delta_weight", "delta_bias", "A", "B", "C", "D", "order")

FOLDED = 2**26
"""Constants up to this many elements are computed at export: all of a network's weights."""


def traced_graph(exported: Exported, opset: int) -> onnx.ModelProto:
    """Trace a network and return its graph, without bodies of the scans.

    Args:
        exported: the network.
        opset: version of the standard operators.

    Raises:
        ZooError: where the network cannot be traced, with the reason.
    """
    shape = exported.shape
    arguments: list[torch.Tensor] = [torch.rand(shape.sample(), dtype=exported.border)]
    names = ["input"]
    sizes: dict[str, Any] = {"input": shape.dynamic}
    if exported.takes_flow:
        batch, height, width = (shape.sample()[axis] for axis in (0, -2, -1))
        arguments.append(torch.zeros(batch, shape.frames or 1, 2, height, width))
        names.append("flow")
        varying = {0: shape.batch, 3: shape.height, 4: shape.width}
        sizes["flow"] = {axis: n for axis, n in varying.items() if isinstance(n, str)}
    with _quiet(), _schemas(), _any_size(), torch.no_grad():
        try:
            program = torch.onnx.export(
                exported,
                tuple(arguments),
                input_names=names,
                output_names=["output"],
                opset_version=opset,
                dynamic_shapes=sizes,
                custom_translation_table={torch.ops.zoo.selective_scan.default: _scan_node},
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise _plain(error) from error
        assert program is not None
        model = program.model
        _tidy(model)
        return onnx_ir.to_proto(model)


def _scan_node(
    u: Any,
    delta: Any,
    delta_weight: Any,
    delta_bias: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    order: Any,
    reduce: bool = False,
    backend: str = "",
) -> Any:
    """``torch.ops.zoo.selective_scan`` as one node; all nine inputs are always there."""
    if delta_weight is None:
        raise ZooError("a scan without delta_weight is not exported; give it a low-rank step")
    operators = onnxscript.values.Opset(DOMAIN, VERSION)
    operator = getattr(operators, SUM if reduce else EACH)
    return operator(u, delta, delta_weight, delta_bias, A, B, C, D, order, **PLUGIN)


@contextlib.contextmanager
def _schemas() -> Iterator[None]:
    """Within, our operators are known to the tools; after, files must do without."""
    tokens = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]
    kinds = dict.fromkeys(("u", "delta", "B", "C"), "T") | {"order": "tensor(int32)"}
    made = []
    for name in OPERATORS:
        schema = OpSchema(
            name,
            DOMAIN,
            VERSION,
            inputs=[OpSchema.FormalParameter(i, kinds.get(i, "tensor(float)")) for i in INPUTS],
            outputs=[OpSchema.FormalParameter("y", "T")],
            type_constraints=[("T", tokens, "dtype of the tokens")],
            attributes=[OpSchema.Attribute(a, OpSchema.AttrType.STRING) for a in PLUGIN],
        )
        onnx.defs.register_schema(schema)
        made.append(schema)
    try:
        yield
    finally:
        for schema in made:
            onnx.defs.deregister_schema(schema.name, schema.since_version, schema.domain)


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Within, a trace does not take for granted that sizes are 2 or more."""
    import torch.fx.experimental._config as config

    with config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's own warnings are about its insides."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _plain(error: BaseException) -> ZooError:
    """The first cause that says something to a user."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ZooError):
            return cause
        last, cause = cause, cause.__cause__ or cause.__context__
    text = " ".join(str(last).split())[:300]
    return ZooError(f"the network cannot be traced: {text}")


def _tidy(model: onnx_ir.Model) -> None:
    """Fold constants, compute equal things once, and drop what points to the exporter's machine."""
    optimizer.optimize_ir(
        model,
        num_iterations=2,
        input_size_limit=FOLDED,
        output_size_limit=FOLDED,
        inline=False,
    )
    for tidy in (
        passes.CommonSubexpressionEliminationPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.DeduplicateInitializersPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.NameFixPass(),
    ):
        tidy(model)
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def written_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions written out in place, of standard operators only."""
    inlined = onnx.inliner.inline_local_functions(model)
    kept = [entry for entry in inlined.opset_import if entry.domain != DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    return inlined
