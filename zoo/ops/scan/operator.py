"""``selective_scan``, defined as a PyTorch operator: for autograd, ``torch.compile`` and export.

Shape suffixes: see :mod:`zoo.ops.scan.contract`.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zoo.ops.scan.contract import SCHEMA, TOKENS, Kind, ScanGradients, ScanInputs, axis_sizes
from zoo.ops.scan.dispatch import asked_for, choose
from zoo.ops.scan.names import NAMESPACE
from zoo.ops.scan.order import check_order

TOKEN_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    delta_weight: Tensor | None,
    delta_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    order: Tensor,
    *,
    reduce: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Run the selective state space recurrence (Mamba, Sec. 3.2) over tokens along K paths.

    For each image and direction k, from h = 0, each step s visits token t = order[k, s]::

        step = softplus(delta_weight[k] @ delta[t, k] + delta_bias[k])
        h    = exp(step * A[k]) * h + (step * u[t]) * B[t, k]
        y[t, k] = sum over states of h * C[t, k], plus D[k] * u[t]

    For t = -1 the token is zero (u = delta = B = C = 0) and nothing is written. A token that a
    direction does not visit gets y = 0 there. The state is float32 for every dtype of the tokens,
    also under autocast; only float64 tokens have a float64 state.

    Args:
        u: (B, L, E) tokens, row-major, shared by all directions.
        delta: (B, L, K, R) low-rank step, or (B, L, K, E) step if ``delta_weight`` is None.
        delta_weight: (K, E, R) projection of the low-rank step, or None.
        delta_bias: (K, E) bias of the step, added before softplus.
        A: (K, E, N) state matrix, negative: -exp(A_log).
        B: (B, L, K, N) input matrix.
        C: (B, L, K, N) output matrix.
        D: (K, E) factor of the skip connection.
        order: (K, S) int32 token numbers, or -1; a direction visits no token twice.
        reduce: whether y is summed over the directions.
        backend: name of the backend; None chooses one as :mod:`zoo.ops.scan.dispatch` describes.

    Returns:
        y in the dtype of u: (B, L, K, E), or (B, L, E) with ``reduce``.

    Raises:
        ValueError: if a shape, a dtype or the order is wrong.
        BackendError: if the requested backend cannot run the call.
    """
    inputs = ScanInputs(u, delta, delta_weight, delta_bias, A, B, C, D, order)
    tracing = torch.compiler.is_compiling()
    if not tracing:
        _check(inputs)
    return torch.ops.zoo.selective_scan.default(
        *_in_state_dtype(inputs),
        reduce,
        # A traced graph chooses its backend at each call, not when it is traced.
        (backend or "") if tracing else asked_for(backend),
    )


def _in_state_dtype(inputs: ScanInputs) -> list[Tensor | None]:
    """The inputs, with parameters in the dtype of the state."""
    state = torch.float64 if inputs.u.dtype == torch.float64 else torch.float32
    # A cast to the same dtype would still be a node of every traced graph.
    return [
        tensor.to(state) if cast and tensor is not None and tensor.dtype != state else tensor
        for tensor, cast in zip(inputs, _IS_PARAMETER, strict=True)
    ]


# Read once: looking things up in the schema at each call would take longer than a small scan.
_IS_PARAMETER = tuple(spec.kind is Kind.PARAMETER for spec in SCHEMA.values())
_EXPECTED = tuple(
    (name, itemgetter(*spec.axes), spec.kind is Kind.TOKENS) for name, spec in SCHEMA.items()
)
"""For each tensor: its name, a function from axis sizes to its shape, whether it has the dtype of
the tokens."""


def _check(inputs: ScanInputs) -> None:
    u, order = inputs.u, inputs.order
    if u.dim() != 3 or order.dim() != 2:
        raise ValueError(
            f"u must be (B, L, E) and order (K, S), not {tuple(u.shape)} and {tuple(order.shape)}"
        )
    if u.dtype not in TOKEN_DTYPES:
        raise ValueError(f"u must be float32, bfloat16, float16 or float64, not {u.dtype}")
    sizes, dtype, device = axis_sizes(inputs), u.dtype, u.device
    for tensor, (name, expected, is_tokens) in zip(inputs, _EXPECTED, strict=True):
        if tensor is None:
            continue
        if tensor.shape != expected(sizes):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, but u {tuple(u.shape)} and "
                f"order {tuple(order.shape)} need {expected(sizes)}"
            )
        if is_tokens and tensor.dtype != dtype:
            raise ValueError(
                f"{', '.join(TOKENS)} must share one dtype; u is {dtype}, {name} {tensor.dtype}"
            )
        if tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}, u on {device}; move {name} there")
    check_order(order, sizes["L"])


# The functions below take the operator's arguments in the order of its schema: the tensors of
# SCHEMA, ``reduce`` and ``backend``.


def _forward(*arguments: Any) -> Tensor:
    *tensors, reduce, backend = arguments
    inputs = ScanInputs(*tensors)
    with torch.autocast(inputs.u.device.type, enabled=False):
        return choose(inputs, backend or asked_for(None)).forward(inputs, reduce)


def _empty_output(*arguments: Any) -> Tensor:
    *tensors, reduce, _ = arguments
    inputs = ScanInputs(*tensors)
    batch, tokens, channels = inputs.u.shape
    inner = (channels,) if reduce else (inputs.order.shape[0], channels)
    return inputs.u.new_empty(batch, tokens, *inner)


def _backward(grad_y: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, reduce, backend = arguments
    inputs = ScanInputs(*tensors)
    with torch.autocast(grad_y.device.type, enabled=False):
        found = choose(inputs, backend or asked_for(None)).backward(inputs, grad_y, reduce)
    # An operator cannot return None in a tuple; an empty tensor replaces it.
    return tuple(grad_y.new_empty(0) if tensor is None else tensor for tensor in found)


def _empty_gradients(grad_y: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    given = dict(zip(SCHEMA, arguments, strict=False))
    return tuple(
        grad_y.new_empty(0)
        if given[name] is None
        else torch.empty_like(given[name], memory_format=torch.contiguous_format)
        for name in ScanGradients._fields
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.reduce, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    backward = torch.ops.zoo.selective_scan_backward.default
    tensors = ctx.saved_tensors  # read once: under gradient checkpointing, each access recomputes
    found = backward(grad_y, *tensors, ctx.reduce, ctx.backend)
    gradient = dict(zip(ScanGradients._fields, found, strict=True))
    given = dict(zip(SCHEMA, tensors, strict=True))
    return (*(None if t is None else gradient.get(name) for name, t in given.items()), None, None)


_ARGUMENTS = ", ".join(
    [
        *(f"Tensor{'?' if spec.optional else ''} {name}" for name, spec in SCHEMA.items()),
        "bool reduce",
        "str backend",
    ]
)
_GRADIENTS = ", ".join("Tensor" for _ in ScanGradients._fields)

# Not torch.library.custom_op: its first call imports torch.compile, which takes seconds.
_library = torch.library.Library(NAMESPACE, "DEF")


def _define(schema: str, function: Callable[..., Any], fake: Callable[..., Any]) -> None:
    name = schema.partition("(")[0]
    _library.define(schema, tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)


_define(f"selective_scan({_ARGUMENTS}) -> Tensor", _forward, _empty_output)
_define(
    f"selective_scan_backward(Tensor grad_y, {_ARGUMENTS}) -> ({_GRADIENTS})",
    _backward,
    _empty_gradients,
)
torch.library.register_autograd(
    f"{NAMESPACE}::selective_scan", _differentiate, setup_context=_save, lib=_library
)


@register_flop_formula(torch.ops.zoo.selective_scan, get_raw=True)
def _flops(*arguments: Any, **_: Any) -> int:
    """Floating-point operations: 7 N + 2 R + 5 per step and channel (R = 0 if not low-rank)."""
    inputs = ScanInputs(*arguments[: len(SCHEMA)])
    n = axis_sizes(inputs)
    rank = 0 if inputs.delta_weight is None else n["R"]
    return int(n["B"] * n["K"] * n["S"] * n["E"] * (7 * n["N"] + 2 * rank + 5))
