"""What autograd and the transforms of ``torch.func`` do with the operator.

Gradients of first order are the operator's own, also under ``grad``, ``vjp``, ``jacrev`` and
``vmap``. Gradients of gradients and forward-mode gradients do not exist; PyTorch would take them
for zero, so they are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction
from torch.nn import Parameter

from zoo.ops.scan.calls import run_backward, run_keeping
from zoo.ops.scan.checks import check_tensors, plain
from zoo.ops.scan.contract import PARAMETERS, SCHEMA, TOKENS, ScanGradients, ScanInputs

_INSTEAD = (
    "for that, call zoo.ops.scan.reference.scan(ScanInputs(...), reduce), which PyTorch can "
    "differentiate as often as you like"
)
_IMAGES = tuple(index for index, name in enumerate(SCHEMA) if name in TOKENS)
_SHARED = tuple(index for index, name in enumerate(SCHEMA) if name in PARAMETERS)
"""Indices of the tensors that have an axis of images, and of those that all images share."""


_PLAIN = (Tensor, Parameter)


class Scan(_SingleLevelFunction):
    """The operator, with its gradient.

    Not an ordinary ``torch.autograd.Function``: one that is applied inside an operator may handle a
    single level of transforms, and leaves the others to the dispatcher.
    """

    @staticmethod
    def forward(ctx: Any, keyset: Any, tangents: bool, *arguments: Any) -> Tensor:
        *tensors, ctx.reduce, ctx.backend = arguments
        if _alone(tensors):
            y, kept = run_keeping(*arguments)
        else:
            scan = torch.ops.zoo.selective_scan.default
            y, kept = _at_next_level(scan, keyset, tangents, arguments), None
        ctx.save_for_backward(*tensors, kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, kept = ctx.saved_tensors  # read once: under checkpointing, each access recomputes
        arguments = (*tensors, ctx.reduce, ctx.backend)
        # Where gradients are enabled, someone asks for those of second order.
        if kept is not None and _alone((grad_y, *tensors)) and not torch.is_grad_enabled():
            found = run_backward(grad_y, kept, *arguments)
        else:
            found = torch.ops.zoo.selective_scan_backward.default(grad_y, *arguments)
        gradient = dict(zip(ScanGradients._fields, found, strict=True))
        given = dict(zip(SCHEMA, tensors, strict=True))
        of_tensors = (None if t is None else gradient.get(name) for name, t in given.items())
        return (None, None, *of_tensors, None, None)


class ScanBackward(_SingleLevelFunction):
    """The operator's gradient, which has no gradient itself."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, tangents: bool, *arguments: Any) -> tuple[Tensor, ...]:
        backward = torch.ops.zoo.selective_scan_backward.default
        return _at_next_level(backward, keyset, tangents, arguments)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError(
            f"selective_scan has no gradient of its gradient (second order); {_INSTEAD}"
        )


def autograd_kernel(op: Any, function: Any) -> Callable[..., Any]:
    """Make the operator's kernel for the dispatch key Autograd.

    ``torch.library.register_autograd`` makes one that drops forward-mode gradients and that
    ``torch.func.grad`` cannot use.
    """

    def kernel(keyset: Any, *arguments: Any) -> Any:
        tensors = [value for value in arguments if isinstance(value, Tensor)]
        _refuse_tangents(tensors)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            with enable_single_level_autograd_function():
                return function.apply(keyset, torch._C._is_fwd_grad_enabled(), *arguments)
        return _below(op, keyset, arguments)

    return kernel


def _alone(tensors: Iterable[Tensor | None]) -> bool:
    """Whether nothing but autograd looks at a call on the CPU.

    Transforms, modes (tracing, counting operations), tensors of other classes and those that stand
    for many at once (``is_grads_batched``) must see the operator, which keeps nothing.
    """
    return (
        torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and all(t is None or _is_plain_on_cpu(t) for t in tensors)
    )


def _is_plain_on_cpu(tensor: Tensor) -> bool:
    plain = type(tensor) in _PLAIN and tensor.device.type == "cpu"
    return plain and not torch._C._functorch.is_legacy_batchedtensor(tensor)


def _at_next_level(op: Any, keyset: Any, tangents: bool, arguments: Sequence[Any]) -> Any:
    # Autograd switches itself off inside a function, both ways. But an outer transform may need it:
    # without tangents, an outer jvp would take its gradient for zero.
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(tangents):
        return _below(op, keyset, arguments)


def _below(op: Any, keyset: Any, arguments: Sequence[Any]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)


def _refuse_tangents(tensors: Iterable[Tensor]) -> None:
    if forward_ad._current_level < 0:
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(
            f"selective_scan has no forward-mode gradient (jvp, jacfwd); {_INSTEAD}"
        )


def vmap_forward(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, int]:
    """Fold the mapped axis into the images, or scan one slice after another.

    Images share their parameters, so slices with parameters of their own are separate scans.
    """
    scan = torch.ops.zoo.selective_scan.default
    tensors, rest = arguments[: len(SCHEMA)], arguments[len(SCHEMA) :]
    size = info.batch_size
    # Once folded, tensors have other sizes than those that an error should name.
    check_tensors(ScanInputs._make(map(plain, next(_slices(size, in_dims, tensors)))))
    if any(in_dims[index] is not None for index in _SHARED):
        return torch.stack([scan(*a) for a in _slices(size, in_dims, arguments)])[:size], 0
    *folded, order = tensors
    for index in _IMAGES:
        folded[index] = _first(folded[index], in_dims[index], size)
    images = folded[0].shape[1]
    for index in _IMAGES:
        folded[index] = folded[index].flatten(0, 1)
    order = _fold_order(order, in_dims[len(folded)], size, images)
    return scan(*folded, order, *rest).unflatten(0, (size, images)), 0


def vmap_backward(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
    """One slice after another: images that are folded together would share their gradients."""
    backward = torch.ops.zoo.selective_scan_backward.default
    size = info.batch_size
    found = [backward(*a) for a in _slices(size, in_dims, arguments)]
    stacked = tuple(torch.stack(gradients)[:size] for gradients in zip(*found, strict=True))
    return stacked, (0,) * len(stacked)


def _fold_order(order: Tensor, dim: int | None, size: int, images: int) -> Tensor:
    """The order of each of ``size`` times ``images`` images, unless all share one."""
    if dim is None and order.dim() == 2:
        return order
    order = _first(order, dim, size)
    if order.dim() == 3:  # one for the images of a slice
        order = order[:, None].expand(-1, images, -1, -1)
    return order.flatten(0, 1)


def _first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The tensor with its mapped axis in front; repeated without copying if it has none."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _slices(
    size: int, in_dims: Sequence[int | None], arguments: Sequence[Any]
) -> Iterator[list[Any]]:
    """The arguments of each slice. If there are none, those of one slice, to be dropped."""
    for index in range(max(size, 1)):
        yield [
            value if dim is None else value.select(dim, index) if size else _nothing(value, dim)
            for value, dim in zip(arguments, in_dims, strict=False)
        ]


def _nothing(tensor: Tensor, dim: int) -> Tensor:
    """A slice of an empty axis: zeros that belong to autograd's graph, or an order of no tokens."""
    total = tensor.sum(dim, dtype=tensor.dtype)
    return total if tensor.is_floating_point() else torch.full_like(total, -1)
