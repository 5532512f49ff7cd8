"""The self-check of the passes: some small features, against PyTorch in float64.

35 channels are whole vectors of every instruction set and a rest.

Shape suffixes: see :mod:`zoo.ops.passes.library`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops.passes import library, rows
from zoo.ops.passes.library import Activation, Convolution, Layer, TokenGradients, Tokens
from zoo.ops.passes.rows import DepthwiseStage, NormStage, ProductStage
from zoo.ops.scan import native
from zoo.ops.scan.self_check import part_serves_on_cpu, serves_on_cpu

PART = "passes over features"
"""What these are called where a verdict is kept or told."""
CHANNELS = 35
GATE = ((3, CHANNELS), (CHANNELS, 3))
"""Weights of the two layers of a channel attention."""
EPS = 1e-5
ALLOWED = 2e-5
"""Largest deviation from float64, relative to the norm: that of a scan in float32."""


@functools.cache
def passes_are_right() -> bool:
    """Whether the passes may run with the instruction set that the library uses here."""
    # First: the scan's check may choose a lower instruction set for all that runs in the library.
    serves_on_cpu(native, torch.device("cpu"))
    return part_serves_on_cpu(PART, first_wrong)


def first_wrong() -> tuple[str, str] | None:
    """The first result that is wrong, and by how much; None if all are right."""
    for name, found, expected in _results():
        far = (found.double() - expected).norm() / (expected.norm() + 1e-30)
        if not float(far) <= ALLOWED:
            return name, f"it deviates by {float(far):.1e}, and {ALLOWED:.1e} is allowed"
    return None


def _results() -> Iterator[tuple[str, Tensor, Tensor]]:
    """What is computed, our result and the right one."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float32)

    activations: tuple[Activation, ...] = ("none", "silu", "gelu")
    for activation in activations:
        x, weight = normal(2, 5, 7, CHANNELS), normal(CHANNELS, 1, 3, 3)
        conv = Convolution(x, weight, normal(CHANNELS), 1, activation)
        yield f"a convolution with {activation}", library.convolved(conv), _convolved(conv)
    yield from _gradients_of_convolution(conv, normal(*x.shape))
    shape = (2, 3, 5, CHANNELS)
    inputs = Tokens(
        x=normal(*shape),
        gain=normal(2, 1, 1, CHANNELS),
        skip=normal(*shape),
        scale=normal(CHANNELS),
        weight=normal(CHANNELS),
        bias=normal(CHANNELS),
        gate=normal(*shape),
        eps=EPS,
    )
    yield from _tokens(inputs, (normal(*shape), normal(*shape)))
    norm = NormStage(normal(CHANNELS), normal(CHANNELS), EPS, gate=normal(*shape))
    skip, scale = normal(*shape), normal(CHANNELS)
    product = ProductStage(normal(CHANNELS, CHANNELS), normal(CHANNELS), skip, scale, keep=0)
    yield from _through_rows(normal(*shape), norm, product, conv)
    yield from _directions(normal(*shape), norm)
    yield from _gain(normal(*shape), *(Layer(normal(*s), normal(s[0])) for s in GATE))
    if library.has_half_products():
        yield _half_product(normal(*shape), product)


def _half_product(x: Tensor, product: ProductStage) -> tuple[str, Tensor, Tensor]:
    """A product of factors that bfloat16 holds: rounding changes nothing."""
    x, weight = x.bfloat16(), product.weight.bfloat16()
    (found,) = rows.through_rows(x, [product._replace(weight=weight.float())], half=True)
    _, bias, skip, scale, *_ = product
    assert bias is not None and skip is not None and scale is not None
    right = F.linear(x.double(), weight.double(), bias.double()) + skip.double() * scale.double()
    return "a product of bfloat16", found, right


def _directions(y: Tensor, norm: NormStage) -> Iterator[tuple[str, Tensor, Tensor]]:
    assert norm.weight is not None and norm.bias is not None
    exact, weight, bias = (t.double() for t in (y, norm.weight, norm.bias))
    normed = F.layer_norm(exact, [CHANNELS], weight, bias, EPS)
    yield (
        "the mean of the norms of directions",
        library.directions_mean(y, norm.weight, norm.bias, EPS),
        normed.mean(1),
    )
    gate = y[:, 0].contiguous()
    right = (exact * gate[:, None].double()).sum(2)
    yield "the gated sum of directions", library.directions_sum(y, gate), right


def _gain(x: Tensor, reduce: Layer, expand: Layer) -> Iterator[tuple[str, Tensor, Tensor]]:
    mean, (first, first_bias), (last, last_bias) = (
        x.double().mean((1, 2), keepdim=True),
        *([t.double() for t in layer if t is not None] for layer in (reduce, expand)),
    )
    right = F.linear(F.linear(mean, first, first_bias).relu(), last, last_bias).sigmoid()
    yield "the gain of a channel attention", library.gain(x, reduce, expand), right


def _through_rows(
    x: Tensor, norm: NormStage, product: ProductStage, conv: Convolution
) -> Iterator[tuple[str, Tensor, Tensor]]:
    last = DepthwiseStage(conv.weight, conv.bias, 1, conv.activation, keep=0)
    multiplied, convolved = rows.through_rows(x, [norm, product, last])
    exact: Any = [t.double() for t in (x, *norm, *product) if isinstance(t, Tensor)]
    x, weight, bias, gate, matrix, added, skip, scale = exact
    normed = F.layer_norm(x, [CHANNELS], weight, bias, norm.eps) * F.silu(gate)
    right = F.linear(normed, matrix, added) + skip * scale
    yield "a product in a row of layers", multiplied, right
    (activated,) = rows.through_rows(
        multiplied, [product._replace(skip=None, scale=None, activation="gelu")]
    )
    right_again = F.gelu(F.linear(right, matrix, added))
    yield "a product with its activation", activated, right_again
    yield "a convolution in a row of layers", convolved, _convolved(conv._replace(x=right))


def _convolved(conv: Convolution) -> Tensor:
    x, weight = conv.x.double().permute(0, 3, 1, 2), conv.weight.double()
    bias = None if conv.bias is None else conv.bias.double()
    y = F.conv2d(x, weight, bias, padding=1, groups=CHANNELS).permute(0, 2, 3, 1)
    return {"none": lambda y: y, "silu": F.silu, "gelu": F.gelu}[conv.activation](y)


# Below, gradients are written out: PyTorch's autograd takes half a second to start.
_aten = torch.ops.aten


def _gradients_of_convolution(
    conv: Convolution, grad: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    linear = _convolved(conv._replace(activation="none"))
    slope = _aten.gelu_backward(grad.double(), linear)
    yield "the slope of an activation", library.slope(conv, grad), slope
    one = [1, 1]
    _, *wanted = _aten.convolution_backward(
        grad.double().permute(0, 3, 1, 2),
        conv.x.double().permute(0, 3, 1, 2),
        conv.weight.double(),
        [CHANNELS],
        *(one, one, one, False, [0, 0], CHANNELS, [False, True, True]),
    )
    found = library.weight_gradients(conv, grad)
    for name, ours, right in zip(("weight", "bias"), found, wanted, strict=True):
        yield f"the gradient of a convolution's {name}", ours, right


def _tokens(inputs: Tokens, grads: tuple[Tensor, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    total, out = (torch.empty_like(inputs.x) for _ in range(2))
    library.tokens(inputs, total, out)
    exact: Any = [t.double() for t in inputs.tensors if t is not None]
    x, gain, skip, scale, weight, bias, gate = exact
    right = x * gain + skip * scale
    normed, mean, rstd = _aten.native_layer_norm(right, [CHANNELS], weight, bias, inputs.eps)
    yield "a scaled sum", total, right
    yield "a gated norm", out, normed * F.silu(gate)
    found = TokenGradients(*(torch.empty_like(t) for t in inputs.tensors if t is not None))
    library.token_gradients(inputs, total, grads, found)
    g_total, g_out = (grad.double() for grad in grads)
    g_right, g_weight, g_bias = _aten.native_layer_norm_backward(
        g_out * F.silu(gate), right, [CHANNELS], mean, rstd, weight, bias, [True, True, True]
    )
    g_right = g_right + g_total
    wanted = TokenGradients(
        x=g_right * gain,
        gain=(g_right * x).sum((1, 2), keepdim=True),
        skip=g_right * scale,
        scale=(g_right * skip).sum((0, 1, 2)),
        weight=g_weight,
        bias=g_bias,
        gate=_aten.silu_backward(g_out * normed, gate),
    )
    for name, ours, theirs in zip(TokenGradients._fields, found, wanted, strict=True):
        assert ours is not None and theirs is not None
        yield f"the gradient of a pass's {name}", ours, theirs
