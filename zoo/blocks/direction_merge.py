"""Ways to merge the outputs of the scan directions.

Shape suffixes: B batch, L tokens, K directions, E inner channels, X = E * K.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.contract import MERGES, Merge
from zoo.blocks.joined import gated_sum, mean_of_norm
from zoo.blocks.layers import Conv2d, at_least_one
from zoo.ops.scan import selective_scan
from zoo.ops.scan.contract import ScanInputs


@MERGES.register("sum")
class SumMerge(Merge):
    """Sums the directions inside the scan operator, which saves memory (MambaIR, Sec. 3.4).

    Args:
        dim: inner channels E.
        directions: number of directions K; the merge works for any.
    """

    def __init__(self, dim: int, *, directions: int = 4) -> None:
        super().__init__()

    def forward(self, inputs: ScanInputs) -> Tensor:
        return selective_scan(*inputs, reduce=True)


@MERGES.register("gated")
class GatedMerge(Merge):
    """Sums the directions, weighting each channel by a gate from the direction's mean (MambaCSR).

    All directions share one gate network. The paper does not mention the gate; the authors' code
    has it, as LocalMamba does (Huang et al., 2024)::

        gate_k = sigmoid(select(gelu(reduce(mean over tokens of norm(y_k)))))
        y = sum over k of gate_k * y_k

    Args:
        dim: inner channels E.
        directions: number of directions K; the merge works for any.
        reduction: the gate's hidden layer has E / reduction channels, rounded down.
    """

    def __init__(self, dim: int, *, directions: int = 4, reduction: int = 8) -> None:
        super().__init__()
        hidden = at_least_one(dim, reduction, "reduction of the gated merge")
        self.norm = nn.LayerNorm(dim)
        self.reduce = nn.Linear(dim, hidden)
        self.select = nn.Linear(hidden, dim)

    def forward(self, inputs: ScanInputs) -> Tensor:
        return self.add(selective_scan(*inputs, reduce=False))

    def add(self, y_BLKE: Tensor) -> Tensor:
        """Merge the separate outputs of the directions: ``(B, L, K, E) -> (B, L, E)``."""
        mean_BKE = mean_of_norm(self.norm, y_BLKE)
        gate_BKE = self.select(F.gelu(self.reduce(mean_BKE))).sigmoid()
        return gated_sum(y_BLKE, gate_BKE)


@MERGES.register("shuffle_attention")
class ShuffleAttention(Merge):
    """Sums the directions with a gate for each channel of each direction (MaIR, Sec. 3.4)::

        gate_k = sigmoid(sum over j of weight_kj * mean over tokens of y_j + bias_k)
        y = sum over k of gate_k * y_k

    The weights are those of each channel, so its gates depend on the K directions of this channel
    alone.

    Args:
        dim: inner channels E.
        directions: number of directions K.
    """

    def __init__(self, dim: int, *, directions: int) -> None:
        super().__init__()
        # One group for each channel. Row E-major, as in the authors' weights: channel * K + k.
        self.gate = Conv2d(directions * dim, directions * dim, 1, groups=dim)

    def forward(self, inputs: ScanInputs) -> Tensor:
        return self.add(selective_scan(*inputs, reduce=False))

    def add(self, y_BLKE: Tensor) -> Tensor:
        """Merge the separate outputs of the directions: ``(B, L, K, E) -> (B, L, E)``."""
        mean_BX = y_BLKE.mean(1).transpose(1, 2).flatten(1)
        gate_BX = self.gate(mean_BX[:, None, None]).flatten(1).sigmoid()
        gate_BKE = gate_BX.unflatten(1, (-1, y_BLKE.shape[2])).transpose(1, 2)
        return gated_sum(y_BLKE, gate_BKE)
