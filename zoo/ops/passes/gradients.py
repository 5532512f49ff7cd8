"""Passes for training: their gradients are passes too.

Each function computes what its first line says, and records how to get its gradient. Where the
gradient is itself recorded, transformed or watched, it is that of the functions ``*_by_pytorch``,
which define what is computed.

Shape suffixes: see :mod:`zoo.ops.passes.library`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops.passes import library
from zoo.ops.passes.conditions import may_run
from zoo.ops.passes.library import Activation, Convolution, TokenGradients, Tokens

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "silu": F.silu,
    "gelu": F.gelu,
}


def convolved(conv: Convolution) -> Tensor:
    """:func:`zoo.ops.passes.library.convolved`, with a gradient."""
    y: Tensor = _Convolved.apply(*conv)
    return y


def convolved_by_pytorch(conv: Convolution) -> Tensor:
    """The same by the operators of PyTorch."""
    channels, _, side, _ = conv.weight.shape
    padding = conv.dilation * (side // 2)
    x_BCHW = conv.x.permute(0, 3, 1, 2)
    y_BCHW = F.conv2d(x_BCHW, conv.weight, conv.bias, 1, padding, conv.dilation, channels)
    return ACTIVATIONS[conv.activation](y_BCHW.permute(0, 2, 3, 1).contiguous())


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        conv = Convolution._make(arguments)
        ctx.save_for_backward(conv.x, conv.weight, conv.bias)
        ctx.settings = conv[3:]
        return library.convolved(conv)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,), tensors = grads, ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        conv = Convolution(*tensors, *ctx.settings)
        if is_observed((grad,)) or not may_run(grad, *tensors):

            def output(*tensors: Any) -> Tensor:
                return convolved_by_pytorch(Convolution(*tensors, *ctx.settings))

            return (*by_pytorch(output, tensors, needed, grad), None, None)
        grad = grad.contiguous()
        if conv.activation != "none":
            grad = library.slope(conv, grad)
        x = weight = bias = None
        if needed[0]:
            # Each tap passes its gradient back to where it read.
            turned = conv.weight.flip(2, 3)
            x = library.convolved(Convolution(grad, turned, None, conv.dilation, "none"))
        if needed[1] or needed[2]:
            weight, bias = library.weight_gradients(conv, grad)
        return x, weight, bias if needed[2] else None, None, None


def summed(inputs: Tokens) -> Tensor:
    """v of :func:`zoo.ops.passes.library.tokens`, with a gradient."""
    return _apply(inputs, True, False)[0]


def normalised(inputs: Tokens) -> Tensor:
    """The gated norm of :func:`zoo.ops.passes.library.tokens`, with a gradient."""
    return _apply(inputs, False, True)[0]


def summed_and_normalised(inputs: Tokens) -> tuple[Tensor, Tensor]:
    """Both results of :func:`zoo.ops.passes.library.tokens`, with a gradient."""
    total, out = _apply(inputs, True, True)
    return total, out


def _apply(inputs: Tokens, with_sum: bool, with_norm: bool) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = _Tokens.apply(with_sum, with_norm, *inputs)
    return found


def summed_by_pytorch(
    x: Tensor, gain: Tensor | None, skip: Tensor | None, scale: Tensor | None
) -> Tensor:
    """v of a pass over tokens, by the operators of PyTorch."""
    v = x if gain is None else x * gain
    if skip is None:
        return v
    return v + (skip if scale is None else skip * scale)


def normalised_by_pytorch(
    v: Tensor, weight: Tensor | None, bias: Tensor | None, gate: Tensor | None, *, eps: float
) -> Tensor:
    """The gated norm of a pass over tokens, by the operators of PyTorch."""
    out = F.layer_norm(v, v.shape[-1:], weight, bias, eps)
    return out if gate is None else out * F.silu(gate)


class _Tokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, with_sum: bool, with_norm: bool, *arguments: Any) -> tuple[Tensor, ...]:
        inputs = Tokens._make(arguments)
        total = inputs.x.new_empty(inputs.x.shape) if with_sum else None
        out = inputs.x.new_empty(inputs.x.shape) if with_norm else None
        library.tokens(inputs, total, out)
        found = tuple(tensor for tensor in (total, out) if tensor is not None)
        # What no gradient depends on is not kept.
        x = None if with_sum and inputs.gain is None else inputs.x
        skip = None if inputs.scale is None else inputs.skip
        _, gain, _, *others, _ = inputs
        ctx.save_for_backward(x, gain, skip, *others, total if with_norm else None)
        ctx.settings = (with_sum, with_norm, inputs.eps, inputs.skip is not None)
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (with_sum, with_norm, eps, has_skip), needed = ctx.settings, ctx.needs_input_grad[2:-1]
        *tensors, total = ctx.saved_tensors
        given = [grad for grad in grads if grad is not None]
        if not given:
            return (None,) * (len(needed) + 3)
        x, gain, skip, scale, weight, bias, gate = tensors
        # Only the shapes of what was not kept matter.
        x = given[0] if x is None else x
        skip = given[0] if skip is None and has_skip else skip
        inputs = Tokens(x, gain, skip, scale, weight, bias, gate, eps)
        g_sum = grads[0] if with_sum else None
        g_out = grads[-1] if with_norm else None
        if is_observed(given) or not may_run(*given, *inputs.tensors, total):
            return (None, None, *_token_gradients_by_pytorch(inputs, total, needed, g_sum, g_out))
        g_sum, g_out = (None if grad is None else grad.contiguous() for grad in (g_sum, g_out))
        found = TokenGradients(
            *[_place(t, wanted) for t, wanted in zip(inputs.tensors, needed, strict=True)]
        )
        if gain is None and scale is None and found.x is not None and found.skip is not None:
            found = found._replace(skip=None)  # the same as that of x
        if g_out is None:
            found = found._replace(weight=None, bias=None, gate=None)
        library.token_gradients(inputs, total, (g_sum, g_out), found)
        if needed[2] and found.skip is None:
            found = found._replace(skip=found.x)
        return (None, None, *found, None)


def _token_gradients_by_pytorch(
    inputs: Tokens,
    total: Tensor | None,
    needed: Sequence[bool],
    g_sum: Tensor | None,
    g_out: Tensor | None,
) -> list[Tensor | None]:
    """The gradients of all fields of the inputs: through the norm, then through the sum."""
    x, gain, skip, scale, weight, bias, gate, eps = inputs
    found: list[Tensor | None] = [None] * len(inputs)
    if g_out is not None:
        v = x if total is None else total
        g_v, *found[4:7] = by_pytorch(
            lambda *tensors: normalised_by_pytorch(*tensors, eps=eps),
            (v, weight, bias, gate),
            (any(needed[:4]), *needed[4:]),
            g_out,
        )
        g_sum = g_v if g_sum is None or g_v is None else g_sum + g_v
    if g_sum is not None:
        found[:4] = by_pytorch(summed_by_pytorch, (x, gain, skip, scale), needed[:4], g_sum)
    return found


def with_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, ..., C), and the mean of each image's tokens, (B, 1, ..., 1, C)."""
    found: tuple[Tensor, Tensor] = _WithMean.apply(x)
    return found


class _WithMean(torch.autograd.Function):
    """Its gradient is one sum; PyTorch writes that of the mean for each token, and adds it then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        axes = tuple(range(1, x.dim() - 1))
        ctx.tokens = x[0, ..., 0].numel()
        return x.view_as(x), x.mean(axes, keepdim=True)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        g_x, g_mean = grads
        return torch.add(g_x, g_mean, alpha=1 / ctx.tokens)


def is_observed(grads: Sequence[Tensor]) -> bool:
    """Whether gradients are recorded themselves, or stand for many at once."""
    batched = torch._C._functorch.is_legacy_batchedtensor
    return torch.is_grad_enabled() or any(map(batched, grads))


def _place(tensor: Any, wanted: bool) -> Tensor | None:
    return tensor.new_empty(tensor.shape) if wanted and tensor is not None else None


def by_pytorch(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    grad: Tensor,
) -> list[Tensor | None]:
    """Gradients of the needed inputs of a function, which are recorded if gradients are now."""
    if not any(needed):
        return [None] * len(needed)
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return _by_transform(function, inputs, needed, grad)
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases, because an input may depend on another one, which is no part of this gradient.
        aliases = [
            tensor
            if tensor is None or not wanted
            else (tensor.view_as(tensor) if recorded else tensor.detach().requires_grad_())
            for tensor, wanted in zip(inputs, needed, strict=True)
        ]
        y = function(*aliases)
    wanted = [
        alias for alias, want in zip(aliases, needed, strict=True) if want and alias is not None
    ]
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=recorded))
    return [next(found) if want else None for want in needed]


def _by_transform(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    grad: Tensor,
) -> list[Tensor | None]:
    """The same inside a transform of ``torch.func``, which refuses leaves of its own."""
    wanted = [n for n, want in enumerate(needed) if want and inputs[n] is not None]

    def of_wanted(*given: Tensor) -> Tensor:
        tensors = list(inputs)
        for n, tensor in zip(wanted, given, strict=True):
            tensors[n] = tensor
        return function(*tensors)

    pull = torch.func.vjp(of_wanted, *(inputs[n] for n in wanted))[1]
    found: list[Tensor | None] = [None] * len(needed)
    for n, tensor in zip(wanted, pull(grad), strict=True):
        found[n] = tensor
    return found
