"""A call of the operator: its checks, the backend that runs it, and what that returns.

The functions take the operator's arguments in the order of its schema: the tensors of ``SCHEMA``,
``reduce`` and ``backend``. They check them, because not every path to them leads through the public
function.

A training step that nothing but autograd looks at keeps what the forward pass knows, so that the
backward pass need not compute it again: see :class:`KeepingBackend`.

Shape suffixes: see :mod:`zoo.ops.scan.contract`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.ops.scan.checks import check_gradient, check_memory, check_tensors, output_shape, plain
from zoo.ops.scan.contract import Backend, ScanInputs
from zoo.ops.scan.dispatch import CHECK_ORDERS, KEEPING, asked_for, choose
from zoo.ops.scan.empty_axes import (
    empty_again,
    fill_empty_axes,
    nothing_to_scan,
    zero_gradients,
)
from zoo.ops.scan.order import check_order, without_wrong_entries


def checked(*arguments: Any) -> ScanInputs:
    """The tensors of a call.

    Raises:
        ValueError: if anything about them but their values is wrong.
    """
    *tensors, _, _ = arguments
    inputs = ScanInputs(*map(plain, tensors))
    check_tensors(inputs)
    return inputs


def _ready(inputs: ScanInputs, name: str) -> tuple[Backend, ScanInputs]:
    """The backend that runs the call, and the inputs as it gets them: see ``Backend``."""
    check_memory(inputs)
    backend = choose(inputs, name or asked_for(None))
    ready = fill_empty_axes(inputs)
    if backend.NAME in CHECK_ORDERS and not nothing_to_scan(inputs):
        return backend, ready
    if inputs.order.device.type == "cpu":
        check_order(inputs.order, inputs.u.shape[1])
        return backend, ready
    order, bias = without_wrong_entries(inputs.order, inputs.u.shape[1], inputs.delta_bias)
    return backend, ready._replace(order=order, delta_bias=bias)


def run_forward(*arguments: Any) -> Tensor:
    """The output of a call."""
    return _run(arguments, keep=False)[0]


def run_keeping(*arguments: Any) -> tuple[Tensor, Tensor | None]:
    """The output of a call, and what :func:`run_backward` can start from, if anything."""
    return _run(arguments, keep=True)


def _run(arguments: tuple[Any, ...], keep: bool) -> tuple[Tensor, Tensor | None]:
    inputs, (reduce, name) = checked(*arguments), arguments[-2:]
    with torch.autocast(inputs.u.device.type, enabled=False):
        backend, ready = _ready(inputs, name)
        if nothing_to_scan(inputs):
            return inputs.u.new_zeros(output_shape(inputs, reduce)), None
        if keep and backend.NAME in KEEPING:
            return KEEPING[backend.NAME].forward_keeping(ready, reduce)
        return backend.forward(ready, reduce), None


def run_backward(grad_y: Tensor, kept: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
    """The gradients of a call; an empty tensor in place of one that is None.

    Args:
        grad_y: the gradient of its output.
        kept: what :func:`run_keeping` returned for the same arguments, or None.
        arguments: those of the call.
    """
    inputs, (reduce, name) = checked(*arguments), arguments[-2:]
    grad_y = plain(grad_y)
    check_gradient(grad_y, inputs, reduce)
    check_memory((grad_y, kept))
    with torch.autocast(grad_y.device.type, enabled=False):
        backend, ready = _ready(inputs, name)
        if nothing_to_scan(inputs):
            found = zero_gradients(inputs)
        elif kept is not None and backend.NAME in KEEPING:
            known = KEEPING[backend.NAME].backward_kept(ready, kept, grad_y, reduce)
            found = empty_again(known, inputs)
        else:
            found = empty_again(backend.backward(ready, grad_y, reduce), inputs)
    # An operator cannot return None in a tuple; an empty tensor replaces it.
    return tuple(grad_y.new_empty(0) if tensor is None else tensor for tensor in found)
