"""``selective_scan``: the one operator of the package, as seen by autograd, compile and export.

Shape suffixes: see :mod:`zoo.ops.scan.contract`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zoo.ops.scan.contract import ScanInputs
from zoo.ops.scan.dispatch import asked_for, choose
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
    """Walk tokens along K paths with the selective state space recurrence (Mamba, Sec. 3.2).

    For each image and direction k, over the steps s with token t = order[k, s], from h = 0::

        step = softplus(delta_weight[k] @ delta[t, k] + delta_bias[k])
        h    = exp(step * A[k]) * h + (step * u[t]) * B[t, k]
        y[t, k] = sum over states of h * C[t, k], plus D[k] * u[t]

    For t = -1 the token is zero (u = delta = B = C = 0) and nothing is written. A token that no
    direction visits gets y = 0. The state is float32 (float64 for float64 tokens) whatever the
    dtype of the tokens, also under autocast.

    Args:
        u: (B, L, E) tokens, row-major, shared by all directions.
        delta: (B, L, K, R) low-rank step, or (B, L, K, E) without ``delta_weight``.
        delta_weight: (K, E, R), or None.
        delta_bias: (K, E).
        A: (K, E, N), negative: -exp(A_log).
        B: (B, L, K, N).
        C: (B, L, K, N).
        D: (K, E).
        order: (K, S) int32; entries are token numbers or -1, no token twice in a direction.
        reduce: sum y over the directions.
        backend: name of the backend to use; otherwise see :mod:`zoo.ops.scan.dispatch`.

    Returns:
        y of the dtype of u: (B, L, K, E), or (B, L, E) with ``reduce``.

    Raises:
        ValueError: if a shape, a dtype or the order is wrong.
        BackendError: if the backend asked for cannot serve the call.
    """
    state = torch.float64 if u.dtype == torch.float64 else torch.float32
    tracing = torch.compiler.is_compiling()
    if not tracing:
        _check(ScanInputs(u, delta, delta_weight, delta_bias, A, B, C, D, order))
    return torch.ops.zoo.selective_scan.default(
        u,
        delta,
        None if delta_weight is None else _cast(delta_weight, state),
        _cast(delta_bias, state),
        _cast(A, state),
        B,
        C,
        _cast(D, state),
        order,
        reduce,
        # A traced graph asks at each call, not once and for all when it is traced.
        (backend or "") if tracing else asked_for(backend),
    )


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # A cast to the same dtype would still be a node of every traced graph.
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _check(inputs: ScanInputs) -> None:
    u, order = inputs.u, inputs.order
    if u.dim() != 3 or order.dim() != 2:
        raise ValueError(
            f"u must be (B, L, E) and order (K, S), not {tuple(u.shape)} and {tuple(order.shape)}"
        )
    batch, tokens, channels = u.shape
    directions, states = len(order), inputs.A.shape[-1]
    rank = channels if inputs.delta_weight is None else inputs.delta_weight.shape[-1]
    expected = {
        "delta": (batch, tokens, directions, rank),
        "delta_weight": (directions, channels, rank),
        "delta_bias": (directions, channels),
        "A": (directions, channels, states),
        "B": (batch, tokens, directions, states),
        "C": (batch, tokens, directions, states),
        "D": (directions, channels),
    }
    for name, shape in expected.items():
        tensor = getattr(inputs, name)
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, but u {tuple(u.shape)} and "
                f"order {tuple(order.shape)} ask for {shape}"
            )
    if u.dtype not in TOKEN_DTYPES:
        raise ValueError(f"u must be float32, bfloat16, float16 or float64, not {u.dtype}")
    for name in ("delta", "B", "C"):
        dtype = getattr(inputs, name).dtype
        if dtype != u.dtype:
            raise ValueError(f"u, delta, B and C share one dtype; u is {u.dtype}, {name} {dtype}")
    for name, tensor in inputs._asdict().items():
        if tensor is not None and tensor.device != u.device:
            raise ValueError(f"{name} is on {tensor.device}, u on {u.device}; move it there")
    check_order(order, tokens)


def _forward(
    u: Tensor,
    delta: Tensor,
    delta_weight: Tensor | None,
    delta_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    order: Tensor,
    reduce: bool,
    backend: str,
) -> Tensor:
    inputs = ScanInputs(u, delta, delta_weight, delta_bias, A, B, C, D, order)
    with torch.autocast(u.device.type, enabled=False):
        return choose(inputs, backend or asked_for(None)).forward(inputs, reduce)


def _empty_output(
    u: Tensor,
    delta: Tensor,
    delta_weight: Tensor | None,
    delta_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    order: Tensor,
    reduce: bool,
    backend: str,
) -> Tensor:
    batch, tokens, channels = u.shape
    inner = (channels,) if reduce else (order.shape[0], channels)
    return u.new_empty(batch, tokens, *inner)


def _backward(
    grad_y: Tensor,
    u: Tensor,
    delta: Tensor,
    delta_weight: Tensor | None,
    delta_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    order: Tensor,
    reduce: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = ScanInputs(u, delta, delta_weight, delta_bias, A, B, C, D, order)
    with torch.autocast(u.device.type, enabled=False):
        found = choose(inputs, backend or asked_for(None)).backward(inputs, grad_y, reduce)
    # An operator cannot return None in a tuple: an empty tensor stands for it.
    weight = u.new_empty(0) if found.delta_weight is None else found.delta_weight
    return tuple(found._replace(delta_weight=weight))  # type: ignore[return-value]


def _empty_gradients(
    grad_y: Tensor,
    u: Tensor,
    delta: Tensor,
    delta_weight: Tensor | None,
    delta_bias: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    order: Tensor,
    reduce: bool,
    backend: str,
) -> tuple[Tensor, ...]:
    weight = u.new_empty(0) if delta_weight is None else delta_weight
    return tuple(
        torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in (u, delta, weight, delta_bias, A, B, C, D)
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.reduce, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    backward = torch.ops.zoo.selective_scan_backward.default
    tensors = ctx.saved_tensors  # read once: a checkpoint computes them anew at each look
    found = list(backward(grad_y, *tensors, ctx.reduce, ctx.backend))
    if tensors[2] is None:
        found[2] = None
    return (*found, None, None, None)


# Not torch.library.custom_op: its first call loads the whole of torch.compile, which takes seconds.
_library = torch.library.Library("zoo", "DEF")


def _define(name: str, function: Callable[..., Any], fake: Callable[..., Any]) -> None:
    schema = torch.library.infer_schema(function, mutates_args=())
    _library.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"zoo::{name}", fake, lib=_library)


_define("selective_scan", _forward, _empty_output)
_define("selective_scan_backward", _backward, _empty_gradients)
torch.library.register_autograd(
    "zoo::selective_scan", _differentiate, setup_context=_save, lib=_library
)


@register_flop_formula(torch.ops.zoo.selective_scan)
def _flops(
    u_shape: Any,
    delta_shape: Any,
    weight_shape: Any,
    bias_shape: Any,
    A_shape: Any,
    *rest: Any,
    **_: Any,
) -> int:
    """Floating-point operations: per step and channel, 7 a state, 2 a rank, and 5."""
    batch = u_shape[0]
    directions, channels, states = A_shape
    steps = rest[3][1]
    rank = weight_shape[-1] if weight_shape else 0
    return int(batch * directions * steps * channels * (7 * states + 2 * rank + 5))
