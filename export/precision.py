"""Prepares a network for export: rounds it to a precision; inputs and outputs stay float32.

Shape suffixes: B batch, T frames, I channels, H height, W width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from export.shape import InputShape
from zoo.errors import ZooError
from zoo.networks import Network
from zoo.ops.precision import DTYPES, Precision
from zoo.registry import capabilities_of
from zoo.scans import ScanOrder

SCAN_PARAMETERS = ("A_log", "D", "dt_proj_weight", "dt_proj_bias")
"""Parameters of a mixer that the scan uses. They stay float32, like its arithmetic. A parameter of
the scan with another name is rounded once, but the arithmetic is still float32."""


class Exported(nn.Module):
    """A network with the inputs and outputs of its file.

    Args:
        network: the network; it is not copied. See :func:`prepared`.
        shape: shape of the input.
        dtype: dtype of the activations.
        border: dtype of input and output.
    """

    def __init__(
        self, network: Network, shape: InputShape, *, dtype: torch.dtype, border: torch.dtype
    ) -> None:
        super().__init__()
        self.network, self.shape, self.dtype, self.border = network, shape, dtype, border

    def forward(self, input: Tensor, extra: Sequence[Tensor] = ()) -> Tensor:
        if self.shape.flat:
            input = input.unflatten(1, (self.shape.frames, self.shape.channels))
        given = extra if self.network.takes_flow else [guide.to(self.dtype) for guide in extra]
        return self.network(input.to(self.dtype), *given).to(self.border)


def prepared(
    network: Network, shape: InputShape, precision: Precision, *, half_border: bool = False
) -> Exported:
    """Copy a network and round it to a precision.

    Norms, the scan's parameters and its state stay float32, and so do modules that ask for it by
    ``keeps_float32``.

    Args:
        network: the network to copy.
        shape: shape of the input.
        precision: precision of weights and activations.
        half_border: whether input and output have the precision, too; otherwise they are float32.

    Raises:
        ZooError: if the network is not accurate enough in the precision, or a scan order cannot be
            traced.
    """
    dtype = DTYPES[precision]
    wanted = str(dtype).removeprefix("torch.")
    able = capabilities_of(network).dtypes
    if wanted not in able:
        names = [name for name, d in DTYPES.items() if str(d).removeprefix("torch.") in able]
        raise ZooError(
            f"--precision {precision}: {type(network).__name__} is too inaccurate in {wanted}; "
            f"use {' or '.join(names)}"
        )
    for module in network.modules():
        scan = vars(module).get("scan")
        if isinstance(scan, ScanOrder):  # told before the tracing, which takes long
            scan.check_traceable()
    copied = copy.deepcopy(network).eval().cpu().requires_grad_(False)
    if dtype != torch.float32:
        _round(copied, dtype)
    return Exported(copied, shape, dtype=dtype, border=dtype if half_border else torch.float32)


def _round(network: nn.Module, dtype: torch.dtype) -> None:
    modules = network.named_modules()
    wide = tuple(f"{name}." for name, m in modules if getattr(m, "keeps_float32", False))
    kept = {
        name: value.clone()
        for name, value in network.named_parameters()
        if name.rpartition(".")[2] in SCAN_PARAMETERS or name.startswith(wide)
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
