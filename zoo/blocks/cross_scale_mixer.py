"""One selective scan over the tokens of two grids (MambaCSR).

Shape suffixes: B batch, H height, W width of the fine grid, h, w of the coarse grid (half of H, W),
C channels, L tokens, K directions, E inner channels.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from zoo.blocks.direction_merge import GatedMerge
from zoo.blocks.scan_core import GatedScan, ScanSizes
from zoo.ops.scan import selective_scan
from zoo.scans import CrossScale
from zoo.scans.official import official_column_sources

Compat: TypeAlias = Literal["official"]
"""With "official", outputs are those of the authors' code, errors included."""


class CrossScaleMixer(GatedScan):
    """Scans coarse and fine tokens together and keeps the fine ones (MambaCSR, Sec. 3.4).

    ``(fine_BHWC, coarse_BhwE) -> (B, H, W, C)``. The input projection and the convolution apply to
    the fine tokens only; the coarse tokens must already have E channels.

    Args:
        dim: channels C.
        sizes: inner channels E, rank R and states N of the scan.
        scan: the scan order over both grids.
        d_conv: kernel size of the depthwise convolution in pixels, odd.
        compat: "official" maps the column-first directions back as the authors' code does, which
            is wrong unless the grid of windows is square (:mod:`zoo.scans.official`).
    """

    scan: CrossScale
    merge: GatedMerge

    def __init__(
        self,
        dim: int,
        *,
        sizes: ScanSizes,
        scan: CrossScale,
        d_conv: int,
        compat: Compat | None = None,
    ) -> None:
        super().__init__(dim, sizes=sizes, scan=scan, d_conv=d_conv, merge=GatedMerge)
        self.compat = compat

    def forward(self, fine_BHWC: Tensor, coarse_BhwE: Tensor) -> Tensor:
        height, width = fine_BHWC.shape[1:3]
        fine_BHWE, gate_BHWE = self.enter(fine_BHWC)
        coarse_BLE = coarse_BhwE.flatten(1, 2)
        u_BLE = torch.cat([coarse_BLE, fine_BHWE.flatten(1, 2)], dim=1)
        order_KS = self.scan.order(height, width, u_BLE.device)
        y_BLKE = selective_scan(*self.scan_inputs(u_BLE, order_KS), reduce=False)
        y_BLKE = y_BLKE[:, coarse_BLE.shape[1] :]
        if self.compat == "official":
            y_BLKE = self._mapped_back_as_official(y_BLKE, height, width)
        y_BHWE = self.merge.add(y_BLKE).unflatten(1, (height, width))
        return self.leave(y_BHWE, gate_BHWE)

    def _mapped_back_as_official(self, y_BLKE: Tensor, height: int, width: int) -> Tensor:
        sources_L = official_column_sources(height, width, self.scan.size, y_BLKE.device)
        return torch.stack(
            [
                y_BLE[:, sources_L] if name.startswith("column") else y_BLE
                for name, y_BLE in zip(self.scan.directions, y_BLKE.unbind(2), strict=True)
            ],
            dim=2,
        )
