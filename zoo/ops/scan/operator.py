"""``selective_scan``, defined as a PyTorch operator: for autograd, ``torch.compile`` and export.

Shape suffixes: see :mod:`zoo.ops.scan.contract`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zoo.ops.scan.calls import checked, run_backward, run_forward
from zoo.ops.scan.checks import check_gradient, check_tensors, in_state_dtype, output_shape
from zoo.ops.scan.contract import SCHEMA, ScanGradients, ScanInputs, axis_sizes
from zoo.ops.scan.dispatch import asked_for, named
from zoo.ops.scan.names import NAMESPACE
from zoo.ops.scan.transforms import (
    Scan,
    ScanBackward,
    autograd_kernel,
    vmap_backward,
    vmap_forward,
)


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
    also under autocast; only float64 tokens have a float64 state. A may be positive: a state that
    grows beyond its dtype becomes infinite or NaN.

    Args:
        u: (B, L, E) tokens, row-major, shared by all directions.
        delta: (B, L, K, R) low-rank step, or (B, L, K, E) step if ``delta_weight`` is None.
        delta_weight: (K, E, R) projection of the low-rank step, or None.
        delta_bias: (K, E) bias of the step, added before softplus.
        A: (K, E, N) state matrix, negative: -exp(A_log).
        B: (B, L, K, N) input matrix.
        C: (B, L, K, N) output matrix.
        D: (K, E) factor of the skip connection.
        order: (K, S) int32 token numbers, or -1; a direction visits no token twice. (B, K, S) gives
            each image an order of its own.
        reduce: whether y is summed over the directions.
        backend: name of the backend; None chooses one as :mod:`zoo.ops.scan.dispatch` describes.

    Returns:
        y in the dtype of u: (B, L, K, E), or (B, L, E) with ``reduce``.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if a shape, a dtype, a device or the order is wrong.
        NotImplementedError: if a gradient of second order or a forward-mode gradient is asked for.
        BackendError: if the requested backend cannot run the call.
    """
    inputs = ScanInputs(u, delta, delta_weight, delta_bias, A, B, C, D, order)
    if not isinstance(reduce, bool):
        raise TypeError(f"reduce must be True or False, not {reduce!r:.50}")
    tensors = in_state_dtype(inputs)
    if torch.compiler.is_compiling():
        # Checked here too: the compiler wraps the errors of an operator in pages of its own.
        check_tensors(ScanInputs._make(tensors))
        # A traced graph chooses its backend at each call, not when it is traced.
        name = named(backend)
    else:
        name = asked_for(backend)
    return torch.ops.zoo.selective_scan.default(*tensors, reduce, name)


# The functions below take the operator's arguments in the order of its schema: the tensors of
# SCHEMA, ``reduce`` and ``backend``.


def _empty_output(*arguments: Any) -> Tensor:
    inputs, (reduce, name) = checked(*arguments), arguments[-2:]
    named(name)
    return inputs.u.new_empty(output_shape(inputs, reduce))


def _backward(grad_y: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return run_backward(grad_y, None, *arguments)


def _empty_gradients(grad_y: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    inputs = checked(*arguments)
    check_gradient(grad_y, inputs, arguments[-2])
    given = inputs._asdict()
    return tuple(
        grad_y.new_empty(0)
        if given[name] is None
        else torch.empty_like(given[name], memory_format=torch.contiguous_format)
        for name in ScanGradients._fields
    )


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


def _define(
    schema: str, kernel: Callable[..., Any], fake: Callable[..., Any], function: Any, vmap: Any
) -> None:
    name = schema.partition("(")[0]
    _library.define(schema, tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    autograd = autograd_kernel(getattr(torch.ops.zoo, name).default, function)
    _library.impl(name, autograd, "Autograd", with_keyset=True)
    torch.library.register_vmap(f"{NAMESPACE}::{name}", vmap, lib=_library)


_define(f"selective_scan({_ARGUMENTS}) -> Tensor", run_forward, _empty_output, Scan, vmap_forward)
_define(
    f"selective_scan_backward(Tensor grad_y, {_ARGUMENTS}) -> ({_GRADIENTS})",
    _backward,
    _empty_gradients,
    ScanBackward,
    vmap_backward,
)


@register_flop_formula(torch.ops.zoo.selective_scan, get_raw=True)
def _flops(*arguments: Any, **_: Any) -> int:
    """Floating-point operations: 7 N + 2 R + 5 per step and channel (R = 0 if not low-rank)."""
    steps, states, rank = scan_sizes(*arguments)
    return steps * (7 * states + 2 * rank + 5)


def scan_sizes(*arguments: Any) -> tuple[int, int, int]:
    """Return the steps times channels of a call of the operator, its states N and its rank R.

    All directions and images count. R is 0 if the step is not low-rank.
    """
    inputs = ScanInputs(*arguments[: len(SCHEMA)])
    n = axis_sizes(inputs)
    rank = 0 if inputs.delta_weight is None else n["R"]
    return int(n["B"] * n["K"] * n["S"] * n["E"]), int(n["N"]), int(rank)
