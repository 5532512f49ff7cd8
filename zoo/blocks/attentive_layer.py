"""The block of MambaIRv2: attention in windows, then a scan over the whole image.

Shape suffixes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.blocks.attentive import Attentive
from zoo.blocks.contract import BLOCKS, Block, Branch, BranchFactory, Mixer, MixerFactory
from zoo.blocks.feed_forward import ConvFFN
from zoo.blocks.layers import DropPath
from zoo.blocks.window_attention import WindowAttention
from zoo.scans import ScanOrder

INITIAL_SCALE = 1e-4
"""Initial value of the skip scales: at first, a block hardly adds its input a second time."""


class Half(nn.Module):
    """A mixer and a branch, each with a norm and a skip, and a scaled skip around both::

        y = x + drop_path(mixer(norm(x)))
        y = y + drop_path(branch(branch_norm(y)))
        out = skip_scale * x + y

    Args:
        dim: channels C.
        mixer: the token mixer.
        branch: the local branch.
        drop_path: rate at which mixer and branch are dropped in training, in [0, 1).
    """

    def __init__(self, dim: int, *, mixer: Mixer, branch: Branch, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mixer = mixer
        self.branch_norm = nn.LayerNorm(dim)
        self.branch = branch
        self.drop_path = DropPath(drop_path)
        self.skip_scale = nn.Parameter(torch.full((dim,), INITIAL_SCALE))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        y_BHWC = x_BHWC + self.drop_path(self.mixer(self.norm(x_BHWC)))
        y_BHWC = y_BHWC + self.drop_path(self.branch(self.branch_norm(y_BHWC)))
        return x_BHWC * self.skip_scale + y_BHWC


@BLOCKS.register("attentive_layer")
class AttentiveLayer(Block):
    """Attention near, a scan far, each with a feed-forward branch (MambaIRv2, Sec. 3.4).

    The block has two halves of the same form, :class:`Half`. The first one mixes tokens by
    ``attention``, the second one by ``mixer`` along the scan order.

    Args:
        dim: channels C.
        scan: the mixer's scan order.
        drop_path: rate at which mixers and branches are dropped in training, in [0, 1).
        attention: builds the token mixer of the first half.
        mixer: builds the token mixer of the second half.
        branch: builds the branch of each half.
    """

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        drop_path: float = 0.0,
        attention: MixerFactory = WindowAttention,
        mixer: MixerFactory = Attentive,
        branch: BranchFactory = ConvFFN,
    ) -> None:
        super().__init__()
        near, far = attention(dim, scan=scan), mixer(dim, scan=scan)
        self.near = Half(dim, mixer=near, branch=branch(dim), drop_path=drop_path)
        self.far = Half(dim, mixer=far, branch=branch(dim), drop_path=drop_path)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.far(self.near(x_BHWC))
