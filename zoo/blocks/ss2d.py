"""The 2D selective scan module: the one mixer of all networks here.

Shape suffixes: B batch, H height, W width, C channels, L tokens (H * W), K directions,
E inner channels, R rank of the step, N states.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.contract import MIXERS, MergeFactory, Mixer
from zoo.blocks.layers import Conv2d
from zoo.blocks.merge import SumMerge
from zoo.ops.scan.contract import ScanInputs
from zoo.scans import Raster, ScanOrder

STEP_RANGE = (1e-3, 1e-1)
"""Range in which the steps of an untrained network lie, log-uniformly (Mamba, Sec. 3.6)."""


@torch.no_grad()
def init_scan(dt_weight_KER: Tensor, dt_bias_KE: Tensor, A_log_KEN: Tensor) -> None:
    """Initialise steps and decays in place (Mamba, Sec. 3.6)."""
    rank = dt_weight_KER.shape[-1]
    nn.init.uniform_(dt_weight_KER, -(rank**-0.5), rank**-0.5)
    low, high = (math.log(s) for s in STEP_RANGE)
    step = torch.exp(torch.rand_like(dt_bias_KE) * (high - low) + low).clamp_(min=1e-4)
    dt_bias_KE.copy_(step + torch.log(-torch.expm1(-step)))  # inverse softplus
    A_log_KEN.copy_(torch.arange(1, A_log_KEN.shape[-1] + 1).log())


@MIXERS.register("ss2d")
class SS2D(Mixer):
    """Gated selective scan over an image (MambaIR, Sec. 3.3 and 3.4, "VSSM").

    Projections work on tokens, so they commute with any order of visit: they are computed once,
    row-major, for all directions in one product, and the operator reads tokens in its order.

    Args:
        dim: channels C.
        scan: the scan order; K is the number of its directions.
        expand: inner channels E as a multiple of C, cut to an integer.
        d_inner: E itself, where ``expand`` does not say it exactly.
        d_state: states N of each inner channel.
        dt_rank: rank R of the step; ceil(C / 16) by default.
        d_conv: side of the depthwise convolution in pixels, odd.
        merge: how the directions become one.
    """

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        expand: float = 2.0,
        d_inner: int | None = None,
        d_state: int = 16,
        dt_rank: int | None = None,
        d_conv: int = 3,
        merge: MergeFactory = SumMerge,
    ) -> None:
        super().__init__()
        self.scan = Raster() if scan is None else scan
        inner = int(expand * dim) if d_inner is None else d_inner
        rank = math.ceil(dim / 16) if dt_rank is None else dt_rank
        for name, value in {"d_inner": inner, "d_state": d_state, "dt_rank": rank}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if d_conv < 1 or d_conv % 2 == 0:
            raise ValueError(f"d_conv is {d_conv}; it must be odd, so that sizes are kept")
        directions = len(self.scan.directions)
        self.sizes = (rank, d_state, d_state)

        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = Conv2d(inner, inner, d_conv, padding=d_conv // 2, groups=inner)
        self.x_proj_weight = nn.Parameter(torch.empty(directions, sum(self.sizes), inner))
        self.dt_proj_weight = nn.Parameter(torch.empty(directions, inner, rank))
        self.dt_proj_bias = nn.Parameter(torch.empty(directions, inner))
        self.A_log = nn.Parameter(torch.empty(directions, inner, d_state))
        self.D = nn.Parameter(torch.ones(directions, inner))
        self.merge = merge(inner)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise the scan's parameters (Mamba, Sec. 3.6); linear layers keep their own."""
        inner = self.dt_proj_weight.shape[1]
        nn.init.uniform_(self.x_proj_weight, -(inner**-0.5), inner**-0.5)
        init_scan(self.dt_proj_weight, self.dt_proj_bias, self.A_log)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        _, height, width, _ = x_BHWC.shape
        x_BHWE, gate_BHWE = self.in_proj(x_BHWC).chunk(2, dim=-1)
        u_BLE = F.silu(self.conv(x_BHWE)).flatten(1, 2)
        y_BLE = self.merge(self.scan_inputs(u_BLE, self.scan.order(height, width, u_BLE.device)))
        y_BHWE = y_BLE.unflatten(1, (height, width))
        return self.out_proj(self.out_norm(y_BHWE) * F.silu(gate_BHWE))

    def scan_inputs(self, u_BLE: Tensor, order_KS: Tensor) -> ScanInputs:
        """What the operator takes for these tokens and this order."""
        projected = F.linear(u_BLE, self.x_proj_weight.flatten(0, 1))
        projected = projected.unflatten(2, (len(self.x_proj_weight), -1))
        delta_BLKR, B_BLKN, C_BLKN = projected.split(self.sizes, dim=-1)
        return ScanInputs(
            u=u_BLE,
            delta=delta_BLKR,
            delta_weight=self.dt_proj_weight,
            delta_bias=self.dt_proj_bias,
            A=-self.A_log.exp(),
            B=B_BLKN,
            C=C_BLKN,
            D=self.D,
            order=order_KS,
        )
