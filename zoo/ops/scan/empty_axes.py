"""Axes of size 0, so that backends need not know them.

Without ranks or without states there is still a result: the axis is replaced by one of size 1 that
is zero and adds nothing to any sum. Without images, tokens, directions, steps or channels, all is
zero.
"""

from __future__ import annotations

from torch import Tensor

from zoo.ops.scan.contract import ScanGradients, ScanInputs, differentiable, gradients_of


def nothing_to_scan(inputs: ScanInputs) -> bool:
    """Whether one of the axes B, L, K, S and E has size 0."""
    return inputs.u.numel() == 0 or inputs.order.numel() == 0


def zero_gradients(inputs: ScanInputs) -> ScanGradients:
    """The gradients if there is nothing to scan."""
    zeros = {name: t.new_zeros(t.shape) for name, t in differentiable(inputs).items()}
    return gradients_of(zeros)


def fill_empty_axes(inputs: ScanInputs) -> ScanInputs:
    """The inputs, with R = 1 in place of R = 0 and N = 1 in place of N = 0."""
    weight, u, bias = inputs.delta_weight, inputs.u, inputs.delta_bias

    def zero_tokens() -> Tensor:
        return u.new_zeros(*inputs.delta.shape[:3], 1)

    def zero_parameter() -> Tensor:
        return bias.new_zeros(*bias.shape, 1)

    if weight is not None and weight.shape[2] == 0:
        inputs = inputs._replace(delta=zero_tokens(), delta_weight=zero_parameter())
    if inputs.A.shape[2] == 0:
        inputs = inputs._replace(A=zero_parameter(), B=zero_tokens(), C=zero_tokens())
    return inputs


def empty_again(found: ScanGradients, given: ScanInputs) -> ScanGradients:
    """The gradients with the shapes of ``given``, the inputs before :func:`fill_empty_axes`."""
    gradients = found._asdict()
    for name, tensor in differentiable(given).items():
        if gradients[name].shape != tensor.shape:
            gradients[name] = tensor.new_zeros(tensor.shape)
    return gradients_of(gradients)
