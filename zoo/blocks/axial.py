"""The selective scan along rows and columns; each row and each column is its own sequence.

Shape suffixes: B batch, H height, W width, C channels, E inner channels, K directions, X outputs
of the projections of one direction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.blocks.contract import MIXERS, Mixer
from zoo.blocks.direction_merge import SumMerge
from zoo.blocks.scan_core import GatedScan, scan_sizes
from zoo.scans import Raster, ScanOrder

_LINE = Raster(directions=("row", "row_reversed"))
"""Forward and backward along one line of tokens."""

_ROWS, _COLUMNS = slice(0, None, 2), slice(1, None, 2)
"""Indices of the directions along rows and along columns."""


@MIXERS.register("axial")
class AxialSS2D(GatedScan, Mixer):
    """SS2D that scans each row and each column separately, both ways (QMambaBSR, MSFM).

    A sequence is as long as one side of the image, not as its area. The parameters are those of
    SS2D with four directions: row, column, row reversed, column reversed, in this order.

    Args:
        dim: channels C.
        scan: not used; the scan always follows rows and columns.
        expand: inner channels E as a multiple of C, rounded down to an integer.
        d_state: number of states N of each inner channel.
        dt_rank: rank R of the step size delta; ceil(C / 16) by default.
        d_conv: kernel size of the depthwise convolution in pixels, odd.
    """

    takes_scan = False

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
        super().__init__(
            dim,
            sizes=scan_sizes(dim, expand=expand, d_state=d_state, dt_rank=dt_rank),
            scan=Raster(),  # for the names of its four directions
            d_conv=d_conv,
            merge=SumMerge,
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        u_BHWE, gate_BHWE = self.enter(x_BHWC)
        projected = self.project("x_proj_weight", u_BHWE)
        y_BHWE = self._rows(u_BHWE, projected[:, :, :, _ROWS], _ROWS)
        u_BWHE, turned = u_BHWE.transpose(1, 2), projected[:, :, :, _COLUMNS].transpose(1, 2)
        y_BHWE = y_BHWE + self._rows(u_BWHE, turned, _COLUMNS).transpose(1, 2)
        return self.leave(y_BHWE, gate_BHWE)

    def _rows(self, u_BHWE: Tensor, projected_BHWKX: Tensor, which: slice) -> Tensor:
        batch, height, width, _ = u_BHWE.shape
        delta, B, C = projected_BHWKX.flatten(0, 1).split(self.sizes, dim=-1)
        order_KS = _LINE.order(1, width, u_BHWE.device)
        y = self.merge(self.operands(u_BHWE.flatten(0, 1), delta, B, C, order_KS, which))
        return torch.unflatten(y, 0, (batch, height))
