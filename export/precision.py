"""A network as a file holds it: its numbers in one precision, float32 at the border.

Shape suffixes: B batch, T frames, I channels, H height, W width.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from export.shape import InputShape
from zoo.errors import ZooError
from zoo.networks import Network
from zoo.ops.precision import DTYPES, Precision
from zoo.registry import capabilities_of

SCAN_PARAMETERS = ("A_log", "D", "dt_proj_weight", "dt_proj_bias")
"""Parameters of a mixer that go to the scan's inside, whose arithmetic is float32 always. One of
another name is rounded once and still computed with in float32."""


class Exported(nn.Module):
    """A network behind the border that its file shows.

    Args:
        network: used as it is; see :func:`prepared`.
        shape: of the input.
        dtype: of the network's tokens.
        border: dtype of input and output.
    """

    def __init__(
        self, network: Network, shape: InputShape, *, dtype: torch.dtype, border: torch.dtype
    ) -> None:
        super().__init__()
        self.network, self.shape, self.dtype, self.border = network, shape, dtype, border

    @property
    def takes_flow(self) -> bool:
        """Whether a second input gives the displacement of each frame."""
        return self.network.takes_flow

    def forward(self, input: Tensor, flow: Tensor | None = None) -> Tensor:
        if self.shape.flat:
            input = input.unflatten(1, (self.shape.frames, self.shape.channels))
        arguments = [input.to(self.dtype)]
        if flow is not None:
            arguments.append(flow)
        return self.network(*arguments).to(self.border)


def prepared(
    network: Network, shape: InputShape, precision: Precision, *, half_border: bool = False
) -> Exported:
    """Copy a network and round it to a precision.

    Weights and activations take the precision; norms, the scan's parameters and its state stay
    float32, and so do input and output unless ``half_border`` is set.

    Raises:
        ZooError: where the network loses too much in the precision.
    """
    dtype = DTYPES[precision]
    wanted = str(dtype).removeprefix("torch.")
    able = capabilities_of(network).dtypes
    if wanted not in able:
        names = [name for name, d in DTYPES.items() if str(d).removeprefix("torch.") in able]
        raise ZooError(
            f"--precision {precision}: {type(network).__name__} loses too much in {wanted}; "
            f"use {' or '.join(names)}"
        )
    copied = copy.deepcopy(network).eval().cpu().requires_grad_(False)
    if dtype != torch.float32:
        _round(copied, dtype)
    return Exported(copied, shape, dtype=dtype, border=dtype if half_border else torch.float32)


def _round(network: nn.Module, dtype: torch.dtype) -> None:
    kept = {
        name: value.clone()
        for name, value in network.named_parameters()
        if name.rpartition(".")[2] in SCAN_PARAMETERS
    }
    network.to(dtype)
    for name, parameter in network.named_parameters():
        if name in kept:
            parameter.data = kept[name]
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.float()
            module.register_forward_pre_hook(_to_float32)
            module.register_forward_hook(_to(dtype))


def _to_float32(module: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
    return (arguments[0].float(),)


def _to(dtype: torch.dtype) -> Any:
    def cast(module: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        return output.to(dtype)

    return cast
