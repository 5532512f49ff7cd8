"""Traces equal blocks only once.

A network repeats a few kinds of blocks dozens of times with different weights, and tracing one
block takes seconds. So tracing has three steps. The network is traced with each block as a single
node. Each kind of block is traced separately, to a function whose weights are inputs. Finally, each
block's node is replaced by the body of its function, with the weights of the block.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir
import torch
from onnx_ir.passes.common import InlinePass
from torch import Tensor, nn

from export.shape import SAMPLE
from export.tracing import BLOCK_INPUTS, BLOCKS, traced
from zoo.blocks import Block
from zoo.blocks.layers import DropPath

IDLE = (DropPath, nn.Dropout)
"""Modules that do nothing in evaluation mode, whatever their settings."""


@dataclass(frozen=True)
class Call:
    """One use of a block.

    Attributes:
        path: path of the block in the traced module.
        block: the block.
        sizes: sizes of its input; None if a size may vary.
        dtype: dtype of its input.
    """

    path: str
    block: nn.Module
    sizes: tuple[int | None, ...]
    dtype: torch.dtype

    def is_like(self, other: Call) -> bool:
        """Whether both calls have the same graph, apart from the weights."""
        if (self.sizes, self.dtype) != (other.sizes, other.dtype):
            return False
        try:
            return bool(_structure(self.block) == _structure(other.block))
        except (RuntimeError, ValueError):  # settings that cannot be compared, such as arrays
            return False


class StandIn(nn.Module):
    """Replaces a block while tracing: traced as one node, and each call is added to ``calls``."""

    def __init__(self, path: str, block: nn.Module, calls: list[Call]) -> None:
        super().__init__()
        self.path, self.stood_for, self.calls = path, [block], calls

    def forward(self, x_BHWC: Tensor) -> Tensor:
        sizes = tuple(size if isinstance(size, int) else None for size in x_BHWC.shape)
        self.calls.append(Call(self.path, self.stood_for[0], sizes, x_BHWC.dtype))
        return torch.ops.zoo_export.block(x_BHWC, *x_BHWC.shape[:3], len(self.calls) - 1)


@contextlib.contextmanager
def blocks_stood_for(module: nn.Module) -> Iterator[list[Call]]:
    """Replace each block of a module by a node within the context; yield the list of its calls.

    A block that contains several other blocks is not replaced; the blocks inside it are.
    """
    calls: list[Call] = []
    places: list[tuple[nn.Module, str, nn.Module]] = []

    def replace(parent: nn.Module, prefix: str) -> None:
        for name, child in list(parent.named_children()):
            if isinstance(child, Block) and _blocks_in(child) < 2:
                places.append((parent, name, child))
                parent._modules[name] = StandIn(prefix + name, child, calls)
            else:
                replace(child, f"{prefix}{name}.")

    replace(module, "")
    try:
        yield calls
    finally:
        for parent, name, child in places:
            parent._modules[name] = child


def add_functions(model: onnx_ir.Model, calls: list[Call], opset: int) -> None:
    """Replace the node of each block by a call of a function, and add the functions to the model.

    Args:
        model: graph of the network, traced within :func:`blocks_stood_for`.
        calls: the calls of blocks in that trace.
        opset: version of the standard operators.

    Raises:
        ZooError: if a block cannot be traced without the network around it.
    """
    kinds: list[Call] = []
    used: list[tuple[onnx_ir.Node, Call, int]] = []
    for node in model.graph:
        if node.domain == BLOCKS:
            call = calls[node.attributes["call"].as_int()]
            kind = next((i for i, known in enumerate(kinds) if call.is_like(known)), len(kinds))
            if kind == len(kinds):
                kinds.append(call)
            used.append((node, call, kind))
    if not kinds:
        return
    functions = _functions(kinds, opset)
    for function in functions:
        model.functions[function.identifier()] = function
    for node, call, kind in used:
        _call(node, functions[kind], call, model.graph)


class SideBySide(nn.Module):
    """Independent blocks in one module: a single trace of all has the start-up cost only once."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, tokens: list[Tensor]) -> list[Tensor]:
        found = []
        for block, x_BHWC in zip(self.blocks, tokens, strict=True):
            y_BHWC = block(x_BHWC)
            # A block may change nothing, but an input that is an output has only one name.
            found.append(y_BHWC.clone() if y_BHWC is x_BHWC else y_BHWC)
        return found


def _functions(kinds: list[Call], opset: int) -> list[onnx_ir.Function]:
    """Trace each kind of block to a function of the tokens, their sizes and the weights."""
    tokens, dynamic = [], []
    for number, kind in enumerate(kinds):
        sizes = [SAMPLE[n] if s is None else s for n, s in zip(SAMPLE, kind.sizes, strict=False)]
        tokens.append(torch.zeros(*sizes, kind.sizes[3] or 1, dtype=kind.dtype))
        dynamic.append(
            {a: f"{name}_{number}" for a, name in enumerate(SAMPLE) if kind.sizes[a] is None}
        )
    inputs, outputs = ([f"{n}_{number}" for number in range(len(kinds))] for n in "xy")
    # Copies, because a block used at two sizes is two kinds, whose weights need different names.
    module = SideBySide([copy.deepcopy(kind.block) for kind in kinds]).eval()
    graph = traced(module, [tokens], inputs, [dynamic], outputs, opset).graph
    _take_sizes_from_outside(graph)
    return [_function(graph, number) for number in range(len(kinds))]


def _take_sizes_from_outside(graph: onnx_ir.Graph) -> None:
    """Make sizes inputs, so that blocks of the same size share the values computed from them."""
    tokens = list(graph.inputs)
    for number, x in enumerate(tokens):
        given = [
            onnx_ir.Value(
                name=f"{name}_{number}",
                type=onnx_ir.TensorType(onnx_ir.DataType.INT64),
                shape=onnx_ir.Shape([]),
            )
            for name in BLOCK_INPUTS[1:]
        ]
        graph.inputs.extend(given)
        for node in list(graph):
            if node.op_type != "Squeeze" or (shape := node.inputs[0]) is None:
                continue
            maker = shape.producer()
            if maker is not None and maker.op_type == "Shape" and maker.inputs[0] is x:
                start, end = (maker.attributes.get_int(name, -1) for name in ("start", "end"))
                if 0 <= start < len(given) and end == start + 1:
                    node.outputs[0].replace_all_uses_with(given[start])


def _function(graph: onnx_ir.Graph, number: int) -> onnx_ir.Function:
    prefix = f"blocks.{number}."
    weights = [name for name in graph.initializers if name.startswith(prefix)]
    inputs = [f"{name}_{number}" for name in BLOCK_INPUTS] + weights
    body = onnx_ir.convenience.extract(graph, inputs, [f"y_{number}"])
    body.initializers.clear()
    for value in body.inputs:
        value.const_value = None
        value.name = str(value.name).removeprefix(prefix)
    return onnx_ir.Function(BLOCKS, f"block_{number}", graph=body, attributes=[])


def _call(node: onnx_ir.Node, function: onnx_ir.Function, call: Call, graph: onnx_ir.Graph) -> None:
    tensors = dict(call.block.named_parameters()) | dict(call.block.named_buffers())
    inputs = list(node.inputs)
    for value in function.inputs[len(inputs) :]:
        name = f"{call.path}.{value.name}"
        if name not in graph.initializers:
            tensor = onnx_ir.tensor(tensors[str(value.name)].detach(), name=name)
            graph.register_initializer(
                onnx_ir.Value(name=name, type=value.type, shape=value.shape, const_value=tensor)
            )
        inputs.append(graph.initializers[name])
    called = onnx_ir.Node(BLOCKS, function.name, inputs)
    onnx_ir.convenience.replace_nodes_and_values(
        graph, node, [node], [called], node.outputs, called.outputs
    )


def write_out(model: onnx_ir.Model) -> None:
    """Inline the functions of blocks."""
    for function in model.functions.values():
        # Names of varying sizes are valid within one block only.
        for node in function:
            for value in node.outputs:
                if value.shape is not None:
                    value.shape = onnx_ir.Shape(
                        [size if isinstance(size, int) else None for size in value.shape]
                    )
    InlinePass()(model)


def _blocks_in(module: nn.Module) -> int:
    return sum(isinstance(part, Block) for part in module.modules()) - 1


def _structure(module: nn.Module) -> tuple[Any, ...]:
    """Everything in a module except the values of its weights; if equal, so are the graphs."""
    if isinstance(module, IDLE):
        return (type(module),)
    usual = vars(nn.Module())
    return (
        type(module),
        {name: value for name, value in vars(module).items() if name not in usual},
        {name: (w.shape, w.dtype) for name, w in module.named_parameters(recurse=False)},
        {name: (w.shape, w.dtype) for name, w in module.named_buffers(recurse=False)},
        list(module._forward_hooks.values()),
        list(module._forward_pre_hooks.values()),
        [(name, _structure(child)) for name, child in module.named_children()],
    )
