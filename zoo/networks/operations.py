"""Counting the operations of a network, as we count them and as papers do.

Papers of this field count in two ways. Until August 2024 their tool (thop) saw layers only: the
projections of a scan and the scan itself are no layers, so they were left out, and so were their
parameters. Since then they count multiply-adds of all products, 9 N + 1 operations for each step
and channel of a scan with N states, 5 for each normalised value and 1 for each averaged one.

Sources: issue 44 of MambaIR's repository; the formula of VMamba for the scan, and fvcore's for
norms and means, which together give the numbers of MambaIRv2, Table 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from zoo.networks.contract import Network
from zoo.ops.scan.operator import scan_sizes

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.LayerNorm)
"""What tools that see layers count."""

PER_NORM, PER_NORM_OF_LAYERS = 5, 4
"""Operations for each normalised value, in the two ways."""

PER_STATE = 9
"""Operations for each step, channel and state of a scan."""


@dataclass(frozen=True)
class Operations:
    """Operations for one input, in units of 1e9.

    Attributes:
        flops: ours: all operations; a multiply-add counts as two.
        macs: as papers count since August 2024: a multiply-add counts as one.
        layer_macs: as they counted before: in layers only.
    """

    flops: float
    macs: float
    layer_macs: float


def count_operations(network: Network, inputs: Sequence[Tensor]) -> Operations:
    """Count the operations of a network.

    Args:
        network: the network, without gradients; it may be on the device "meta".
        inputs: its inputs.
    """
    other, norms, means = 0, 0, 0

    def scan(*arguments: Any, **_: Any) -> int:
        nonlocal other
        steps, states, rank = scan_sizes(*arguments)
        other += steps * (PER_STATE * states + 1 + rank)
        return steps * (7 * states + 2 * rank + 5)

    def norm(values: Tensor, *_: Any, **__: Any) -> int:
        nonlocal norms
        norms += values.numel()
        return 0

    def mean(values: Tensor, *_: Any, **__: Any) -> int:
        nonlocal means
        means += values.numel()
        return 0

    rules: dict[Any, Callable[..., int]] = {
        torch.ops.zoo.selective_scan: scan,
        torch.ops.aten.native_layer_norm: norm,
        torch.ops.aten.mean: mean,
    }
    for rule in rules.values():
        rule._get_raw = True  # type: ignore[attr-defined]
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=rules) as counter:
        network(*inputs)
    counts = counter.get_flop_counts()
    everything = counts["Global"]
    scans = sum(count for kind, count in everything.items() if kind is torch.ops.zoo.selective_scan)
    products = sum(everything.values()) - scans
    convolutions = sum(n for kind, n in everything.items() if kind is torch.ops.aten.convolution)
    modules = dict(network.named_modules())
    linear = sum(
        sum(found.values())
        for path, found in counts.items()
        if isinstance(modules.get(path.partition(".")[2]), nn.Linear)
    )
    return Operations(
        flops=sum(everything.values()) / 1e9,
        macs=(products / 2 + other + PER_NORM * norms + means) / 1e9,
        layer_macs=((convolutions + linear) / 2 + PER_NORM_OF_LAYERS * norms + means) / 1e9,
    )


def layer_parameters(network: nn.Module) -> int:
    """Count the parameters that tools see which look at layers: not those of scans."""
    layers = (module for module in network.modules() if isinstance(module, LAYERS))
    return sum(p.numel() for layer in layers for p in layer.parameters())
