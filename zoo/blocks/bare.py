"""A block that is a norm and a mixer, with no skip around them.

Shape suffixes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.blocks.contract import BLOCKS, Block, MixerFactory
from zoo.blocks.layers import DropPath
from zoo.blocks.mamba1d import Mamba1D
from zoo.scans import ScanOrder


@BLOCKS.register("bare")
class BareBlock(Block):
    """A mixer of normed features and nothing else: ``mixer(norm(x))``, as in DVMSR's code.

    The paper draws a skip around the mixer; the authors' code, and so their weights, have none. The
    group around the blocks has a skip. In training, ``drop_path`` drops the block's input, as in
    the authors' code.

    Args:
        dim: channels C.
        scan: the mixer's scan order.
        drop_path: rate at which the input is dropped in training, in [0, 1).
        mixer: builds the token mixer.
    """

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        drop_path: float = 0.0,
        mixer: MixerFactory = Mamba1D,
    ) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.norm = nn.LayerNorm(dim)
        self.mixer = mixer(dim, scan=scan)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.mixer(self.norm(self.drop_path(x_BHWC)))
