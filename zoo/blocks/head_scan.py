"""A selective scan with heads: each head has some of the channels and a path of its own.

Shape suffixes: B batch, H height, W width, C channels, L tokens (H * W), E inner channels of all
heads, S steps of a path, X outputs of a head's projection, J channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.blocks.contract import MIXERS, Mixer
from zoo.blocks.norm import LayerNorm, NormFactory
from zoo.blocks.scan_core import GatedScan, scan_sizes
from zoo.ops.scan import selective_scan
from zoo.scans import Raster, ScanOrder


@MIXERS.register("head_scan")
class HeadScan(GatedScan, Mixer):
    """SS2D whose channels are split into heads, one for each direction (EAMamba, Sec. 3.2, MHSSM).

    The scan order has K directions. Head k has E / K channels and scans them along direction k
    alone, with its own projection. The outputs are concatenated, so nothing is summed, and the
    cost does not grow with K.

    Args:
        dim: channels C.
        scan: the scan order, with K directions; raster by default.
        expand: inner channels E as a multiple of C, rounded down to an integer; K must divide E.
        d_state: number of states N of each inner channel.
        dt_rank: rank R of the step size delta of a head; ceil(C / 16) by default.
        d_conv: kernel size of the depthwise convolution in pixels, odd.
        norm: builds the norm after the scan.
        bias: whether the two projections have biases.
    """

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        expand: float = 1.0,
        d_state: int = 16,
        dt_rank: int | None = None,
        d_conv: int = 3,
        norm: NormFactory = LayerNorm,
        bias: bool = False,
    ) -> None:
        scan = Raster() if scan is None else scan
        heads = len(scan.directions)
        sizes = scan_sizes(dim, expand=expand, d_state=d_state, dt_rank=dt_rank)
        if sizes.inner % heads:
            raise ValueError(
                f"expand * dim is {sizes.inner}, but the scan order has {heads} directions; each "
                f"is a head, so the inner channels must be a multiple of {heads}"
            )
        super().__init__(
            dim,
            sizes=sizes._replace(inner=sizes.inner // heads),
            scan=scan,
            d_conv=d_conv,
            merge=None,
            bias=bias,
            norm=norm,
            heads=heads,
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        _, height, width, _ = x_BHWC.shape
        u_BHWE, gate_BHWE = self.enter(x_BHWC)
        order_KS = self.scan.order(height, width, u_BHWE.device)
        heads = u_BHWE.flatten(1, 2).chunk(len(self.scan.directions), dim=-1)
        y_BLE = torch.cat([self._head(k, u, order_KS) for k, u in enumerate(heads)], dim=-1)
        return self.leave(y_BLE.unflatten(1, (height, width)), gate_BHWE)

    def _head(self, head: int, u_BLJ: Tensor, order_KS: Tensor) -> Tensor:
        which = slice(head, head + 1)
        projected_BL1X = self.project("x_proj_weight", u_BLJ, head)
        delta, B, C = projected_BL1X.split(self.sizes, dim=-1)
        inputs = self.operands(u_BLJ, delta, B, C, order_KS[which], which)
        return selective_scan(*inputs, reduce=True)
