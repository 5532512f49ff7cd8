"""Traces PyTorch modules to ONNX graphs, which are not yet optimised.

Two of our operators become nodes: the selective scan, and a block that is traced separately
(:mod:`export.blocks`).
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import onnx_ir
import onnxscript
import torch
from onnx.defs import OpSchema
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.ops.scan.contract import SCHEMA, Kind, ScanInputs
from zoo.ops.scan.names import EACH, NAMESPACE, NODES, PLUGIN_ATTRIBUTES, SUM, VERSION

BLOCKS = "zoo.blocks"
"""Domain of the nodes of blocks, until the blocks are inlined."""

BLOCK_INPUTS = ("x", "batch", "height", "width")

_library = torch.library.Library("zoo_export", "DEF")
_library.define("block(Tensor x, SymInt batch, SymInt height, SymInt width, int call) -> Tensor")


@torch.library.register_fake("zoo_export::block", lib=_library)
def _block_output(x: Tensor, batch: int, height: int, width: int, call: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def traced(
    module: nn.Module,
    arguments: Sequence[Tensor | list[Tensor]],
    inputs: Sequence[str],
    dynamic: Sequence[dict[int, str] | list[dict[int, str]]],
    outputs: Sequence[str],
    opset: int,
) -> onnx_ir.Model:
    """Trace a module to an ONNX graph.

    Args:
        module: the module, in evaluation mode.
        arguments: example tensors for the module; a list of tensors is several inputs.
        inputs: names of the inputs.
        dynamic: for each input, the names of the sizes that may vary, by index of the dimension.
        outputs: names of the outputs.
        opset: version of the standard operators.

    Raises:
        ZooError: if the module cannot be traced, with the reason.
    """
    with quiet(), _schemas(), _any_size(), torch.no_grad():
        try:
            # Captured here, because the exporter retries failures with other methods, which call
            # modules in a different way; blocks would then be mixed up.
            captured = torch.export.export(
                module, tuple(arguments), dynamic_shapes=_varying(dynamic), strict=False
            )
            program = torch.onnx.export(
                captured,
                input_names=list(inputs),
                dynamic_shapes=tuple(dynamic),
                output_names=list(outputs),
                opset_version=opset,
                custom_translation_table={
                    torch.ops.zoo.selective_scan.default: _scan_node,
                    torch.ops.zoo_export.block.default: _block_node,
                    torch.ops.aten.remainder.Scalar: _remainder,
                },
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # from the network, torch.export or the ONNX exporter
            raise _plain(error) from error
    assert program is not None
    return program.model


def _varying(dynamic: Sequence[dict[int, str] | list[dict[int, str]]]) -> tuple[Any, ...]:
    """Replace the name of each size that may vary by ``Dim.DYNAMIC``."""
    return tuple(
        [dict.fromkeys(sizes, torch.export.Dim.DYNAMIC) for sizes in entry]
        if isinstance(entry, list)
        else dict.fromkeys(entry, torch.export.Dim.DYNAMIC)
        for entry in dynamic
    )


def _scan_node(*arguments: Any) -> Any:
    """Translate ``torch.ops.zoo.selective_scan`` to one node, whose inputs are all required."""
    *tensors, reduce, _ = arguments
    if ScanInputs(*tensors).delta_weight is None:
        raise ZooError("a scan without delta_weight cannot be exported; use a low-rank step")
    operators = onnxscript.values.Opset(NAMESPACE, VERSION)
    operator = getattr(operators, SUM if reduce else EACH)
    return operator(*tensors, **PLUGIN_ATTRIBUTES)


def _block_node(x: Any, batch: Any, height: Any, width: Any, call: int) -> Any:
    return onnxscript.values.Opset(BLOCKS, VERSION).Block(x, batch, height, width, call=call)


def _remainder(x: Any, divisor: Any) -> Any:
    """Translate ``x % divisor``. PyTorch's translation fails if the divisor is a varying size."""
    standard = onnxscript.opset18
    divisor = standard.CastLike(divisor, x)
    if x.dtype.is_integer():
        return standard.Mod(x, divisor)
    return standard.Sub(x, standard.Mul(standard.Floor(standard.Div(x, divisor)), divisor))


@contextlib.contextmanager
def _schemas() -> Iterator[None]:
    """Register our operators with ONNX within the context; exported files work without this."""
    tokens = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]
    constraints = [("T", tokens, "dtype of the tokens")]
    types = {Kind.TOKENS: "T", Kind.PARAMETER: "tensor(float)", Kind.ORDER: "tensor(int32)"}
    made = [
        OpSchema(
            node,
            NAMESPACE,
            VERSION,
            inputs=[
                OpSchema.FormalParameter(name, types[spec.kind]) for name, spec in SCHEMA.items()
            ],
            outputs=[OpSchema.FormalParameter("y", "T")],
            type_constraints=constraints,
            attributes=[OpSchema.Attribute(a, OpSchema.AttrType.STRING) for a in PLUGIN_ATTRIBUTES],
        )
        for node in NODES
    ]
    kinds = {"x": "T"}
    made.append(
        OpSchema(
            "Block",
            BLOCKS,
            VERSION,
            inputs=[
                OpSchema.FormalParameter(i, kinds.get(i, "tensor(int64)")) for i in BLOCK_INPUTS
            ],
            outputs=[OpSchema.FormalParameter("y", "T")],
            type_constraints=constraints,
            attributes=[OpSchema.Attribute("call", OpSchema.AttrType.INT)],
        )
    )
    for schema in made:
        onnx.defs.register_schema(schema)
    try:
        yield
    finally:
        for schema in made:
            onnx.defs.deregister_schema(schema.name, schema.since_version, schema.domain)


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Within the context, tracing does not assume that sizes are 2 or more."""
    import torch.fx.experimental._config as config

    with config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter and its passes within the context: their messages are internal."""
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
    """Convert to an error for users: the first ZooError among the causes, or the root cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ZooError):
            return cause
        last, cause = cause, cause.__cause__ or cause.__context__
    text = " ".join(str(last).split())
    if "specialized it to be a constant" in text:
        return ZooError(
            "the network cannot be traced: a part treats a varying size as a fixed number; "
            f"use x.shape there, not len(x) or int(): {text[:300]}"
        )
    return ZooError(f"the network cannot be traced: {text[:300]}")
