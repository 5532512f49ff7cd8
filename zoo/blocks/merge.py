"""How the outputs of the scan directions become one.

Shape suffixes: B batch, L tokens, K directions, E inner channels.
"""

from __future__ import annotations

from torch import Tensor

from zoo.blocks.contract import MERGES, Merge
from zoo.ops.scan import selective_scan
from zoo.ops.scan.contract import ScanInputs


@MERGES.register("sum")
class SumMerge(Merge):
    """Adds the directions inside the operator, which never writes them out (MambaIR, Sec. 3.4).

    Args:
        dim: inner channels E.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, inputs: ScanInputs) -> Tensor:
        return selective_scan(*inputs, reduce=True)
