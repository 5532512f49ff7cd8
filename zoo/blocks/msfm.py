"""The multi-scale fusion module of QMambaBSR, and a plain residual block for comparison.

Shape suffixes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.blocks.axial import AxialSS2D
from zoo.blocks.channel_transformer import ChannelTransformer
from zoo.blocks.contract import BLOCKS, Block, MixerFactory
from zoo.blocks.layers import Conv2d, DropPath
from zoo.scans import ScanOrder

BRANCHES = ("conv", "ssm", "transformer")


@BLOCKS.register("msfm")
class MSFM(Block):
    """Convolution, axial scan and channel transformer in parallel (QMambaBSR, Sec. 3.3)::

        n = norm(x)
        x = x + out_proj(sum of weight_i * branch_i(n))

    The weights are learnt; with k branches, they start at 1 / k. The paper gives the three
    branches and their weighted sum; the norm, ``out_proj`` and the skip are our choice.

    Args:
        dim: channels C.
        scan: scan order of the mixer; the default mixer takes none and scans rows and columns.
        drop_path: rate at which the branches are dropped in training, in [0, 1).
        branches: branches to use, any of "conv" (3x3), "ssm" and "transformer".
        mixer: builds the "ssm" branch.
        heads: number of attention heads in the channel transformer; must divide C.
        ratio: hidden channels of the transformer's feed-forward as a multiple of C, rounded down.
    """

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        drop_path: float = 0.0,
        branches: Sequence[Literal["conv", "ssm", "transformer"]] = BRANCHES,  # type: ignore[assignment]
        mixer: MixerFactory = AxialSS2D,
        heads: int = 4,
        ratio: float = 2.66,
    ) -> None:
        super().__init__()
        if not branches or len(set(branches)) < len(branches):
            raise ValueError(
                f"branches is {list(branches)}; name at least one of {', '.join(BRANCHES)}, "
                "each once"
            )
        self.takes_scan = "ssm" in branches
        self.norm = nn.LayerNorm(dim)
        parts: dict[str, nn.Module] = {}
        if "conv" in branches:
            parts["conv"] = nn.Sequential(Conv2d(dim, dim, 3, padding=1), nn.GELU())
        if "ssm" in branches:
            parts["ssm"] = mixer(dim, scan=scan)
        if "transformer" in branches:
            parts["transformer"] = ChannelTransformer(dim, heads=heads, ratio=ratio)
        self.branches = nn.ModuleDict(parts)
        self.weights = nn.Parameter(torch.full((len(parts),), 1 / len(parts)))
        self.out_proj = nn.Linear(dim, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        normed_BHWC = self.norm(x_BHWC)
        weighted = [
            weight * branch(normed_BHWC)
            for weight, branch in zip(self.weights.unbind(), self.branches.values(), strict=True)
        ]
        return x_BHWC + self.drop_path(self.out_proj(reduce(torch.add, weighted)))


@BLOCKS.register("res")
class ResBlock(Block):
    """Two 3x3 convolutions with GELU between, and a skip: the baseline body.

    Args:
        dim: channels C.
        scan: not used; the block does not scan.
        drop_path: rate at which the convolutions are dropped in training, in [0, 1).
    """

    takes_scan = False

    def __init__(self, dim: int, *, scan: ScanOrder | None = None, drop_path: float = 0.0) -> None:
        super().__init__()
        self.before = Conv2d(dim, dim, 3, padding=1)
        self.after = Conv2d(dim, dim, 3, padding=1)
        self.activation = nn.GELU()
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC + self.drop_path(self.after(self.activation(self.before(x_BHWC))))
