"""The selective scan along rows and columns, each of them a sequence of its own.

Shape suffixes: B batch, H height, W width, C channels, E inner channels, K directions, R rank of
the step, N states.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.blocks.contract import MIXERS
from zoo.blocks.ss2d import SS2D
from zoo.ops.scan import selective_scan
from zoo.scans import Raster, ScanOrder

_LINE = Raster(directions=("row", "row_reversed"))
"""There and back along one line of tokens."""


@MIXERS.register("axial")
class AxialSS2D(SS2D):
    """SS2D whose sequences are single rows and columns, there and back (QMambaBSR, MSFM).

    Sequences are as long as a side of the image instead of its area. Parameters are those of
    SS2D with four directions, in the sequence row, column, row reversed, column reversed.

    Args:
        dim: channels C.
        scan: not used; rows and columns are the scan.
        expand: inner channels E as a multiple of C, cut to an integer.
        d_state: states N of each inner channel.
        dt_rank: rank R of the step; ceil(C / 16) by default.
        d_conv: side of the depthwise convolution in pixels, odd.
    """

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        expand: float = 2.0,
        d_state: int = 16,
        dt_rank: int | None = None,
        d_conv: int = 3,
    ) -> None:
        super().__init__(dim, expand=expand, d_state=d_state, dt_rank=dt_rank, d_conv=d_conv)
        del self.merge

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWE, gate_BHWE = self.in_proj(x_BHWC).chunk(2, dim=-1)
        u_BHWE = F.silu(self.conv(x_BHWE))
        projected = F.linear(u_BHWE, self.x_proj_weight.flatten(0, 1))
        projected = projected.unflatten(3, (len(self.x_proj_weight), -1))
        y_BHWE = self._rows(u_BHWE, projected[:, :, :, 0::2], slice(0, None, 2))
        u_BWHE, turned = u_BHWE.transpose(1, 2), projected[:, :, :, 1::2].transpose(1, 2)
        y_BHWE = y_BHWE + self._rows(u_BWHE, turned, slice(1, None, 2)).transpose(1, 2)
        return self.out_proj(self.out_norm(y_BHWE) * F.silu(gate_BHWE))

    def _rows(self, u_BHWE: Tensor, projected_BHWKX: Tensor, which: slice) -> Tensor:
        batch, height, width, _ = u_BHWE.shape
        delta, B, C = projected_BHWKX.flatten(0, 1).split(self.sizes, dim=-1)
        y = selective_scan(
            u_BHWE.flatten(0, 1),
            delta,
            self.dt_proj_weight[which],
            self.dt_proj_bias[which],
            -self.A_log[which].exp(),
            B,
            C,
            self.D[which],
            _LINE.order(1, width, u_BHWE.device),
            reduce=True,
        )
        return torch.unflatten(y, 0, (batch, height))
