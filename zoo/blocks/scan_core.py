"""What all parts with a selective scan share: its parameters and what they make of tokens.

Shape suffixes: B batch, H height, W width, C channels, L tokens (H * W), K directions,
E inner channels, R rank of the step, N states, X outputs of a projection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.contract import MergeFactory
from zoo.blocks.layers import Conv2d
from zoo.ops.scan.contract import ScanInputs
from zoo.scans import ScanOrder

STEP_RANGE = (1e-3, 1e-1)
"""Range in which the steps of an untrained network lie, log-uniformly (Mamba, Sec. 3.6)."""


class ScanSizes(NamedTuple):
    """Sizes of a selective scan.

    Attributes:
        inner: inner channels E.
        rank: rank R of the step.
        states: states N of each inner channel.
    """

    inner: int
    rank: int
    states: int


def scan_sizes(
    dim: int,
    *,
    expand: float,
    d_state: int,
    dt_rank: int | None = None,
    d_inner: int | None = None,
) -> ScanSizes:
    """The sizes that a mixer's options ask for.

    Args:
        dim: channels C.
        expand: E as a multiple of C, cut to an integer.
        d_state: N.
        dt_rank: R; ceil(C / 16), if None.
        d_inner: E itself; ``expand`` says it, if None.

    Raises:
        ValueError: for a size below 1, naming it.
    """
    inner = int(expand * dim) if d_inner is None else d_inner
    rank = math.ceil(dim / 16) if dt_rank is None else dt_rank
    width = "expand * dim" if d_inner is None else "d_inner"
    for name, value in {width: inner, "d_state": d_state, "dt_rank": rank}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    return ScanSizes(inner, rank, d_state)


class ScanCore(nn.Module):
    """Parameters of a selective scan in K directions, and the operator's inputs made by them.

    A part that scans derives from it. Its constructor ends with :meth:`reset_parameters`.

    Args:
        sizes: E, R and N.
        scan: the scan order; K is the number of its directions.
        projections: outputs X of each projection of tokens, by the name of its weight (K, X, E).
    """

    def __init__(
        self, sizes: ScanSizes, *, scan: ScanOrder, projections: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.scan = scan
        self.projections = tuple(projections)
        inner, rank, states = sizes
        directions = len(scan.directions)
        for name, outputs in projections.items():
            setattr(self, name, nn.Parameter(torch.empty(directions, outputs, inner)))
        self.dt_proj_weight = nn.Parameter(torch.empty(directions, inner, rank))
        self.dt_proj_bias = nn.Parameter(torch.empty(directions, inner))
        self.A_log = nn.Parameter(torch.empty(directions, inner, states))
        self.D = nn.Parameter(torch.ones(directions, inner))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise the scan's parameters (Mamba, Sec. 3.6); other layers keep their own."""
        _, inner, rank = self.dt_proj_weight.shape
        for name in self.projections:
            nn.init.uniform_(self.get_parameter(name), -(inner**-0.5), inner**-0.5)
        nn.init.uniform_(self.dt_proj_weight, -(rank**-0.5), rank**-0.5)
        low, high = (math.log(s) for s in STEP_RANGE)
        step = torch.exp(torch.rand_like(self.dt_proj_bias) * (high - low) + low).clamp_(min=1e-4)
        self.dt_proj_bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse softplus
        self.A_log.copy_(torch.arange(1, self.A_log.shape[-1] + 1).log())

    def operands(
        self,
        u_BLE: Tensor,
        delta_BLKR: Tensor,
        B_BLKN: Tensor,
        C_BLKN: Tensor,
        order_KS: Tensor,
        which: slice | None = None,
    ) -> ScanInputs:
        """What the operator takes: these tensors and the parameters.

        Args:
            u_BLE: tokens.
            delta_BLKR: their low-rank steps.
            B_BLKN: their input weights.
            C_BLKN: their output weights.
            order_KS: the scan order.
            which: directions that the K of the tensors are; all of them, if None.
        """
        weight, bias, A_log, D = (
            parameter if which is None else parameter[which]
            for parameter in (self.dt_proj_weight, self.dt_proj_bias, self.A_log, self.D)
        )
        return ScanInputs(
            u=u_BLE,
            delta=delta_BLKR,
            delta_weight=weight,
            delta_bias=bias,
            A=-A_log.exp(),
            B=B_BLKN,
            C=C_BLKN,
            D=D,
            order=order_KS,
        )


def project(x: Tensor, weight_KXE: Tensor) -> Tensor:
    """``(..., E) -> (..., K, X)``: one matrix product for all directions."""
    return F.linear(x, weight_KXE.flatten(0, 1)).unflatten(-1, (len(weight_KXE), -1))


class TokenScan(ScanCore):
    """A core whose tokens decide themselves on step, input and output weights.

    Args:
        sizes: E, R and N.
        scan: the scan order; K is the number of its directions.
    """

    x_proj_weight: nn.Parameter

    def __init__(self, sizes: ScanSizes, *, scan: ScanOrder) -> None:
        outputs = (sizes.rank, sizes.states, sizes.states)
        super().__init__(sizes, scan=scan, projections={"x_proj_weight": sum(outputs)})
        self.sizes = outputs

    def scan_inputs(self, u_BLE: Tensor, order_KS: Tensor) -> ScanInputs:
        """What the operator takes for these tokens and this order."""
        delta_BLKR, B_BLKN, C_BLKN = project(u_BLE, self.x_proj_weight).split(self.sizes, dim=-1)
        return self.operands(u_BLE, delta_BLKR, B_BLKN, C_BLKN, order_KS)


class GatedScan(TokenScan):
    """What surrounds the scan of an image (MambaIR, Sec. 3.3)::

        u, gate = split(in_proj(x))
        out = out_proj(out_norm(scan(silu(conv(u)))) * silu(gate))

    Args:
        dim: channels C.
        sizes: E, R and N.
        scan: the scan order; K is the number of its directions.
        d_conv: side of the depthwise convolution in pixels, odd.
        merge: how the directions become one.

    Raises:
        ValueError: for a convolution that does not keep the size.
    """

    def __init__(
        self, dim: int, *, sizes: ScanSizes, scan: ScanOrder, d_conv: int, merge: MergeFactory
    ) -> None:
        if d_conv < 1 or d_conv % 2 == 0:
            raise ValueError(f"d_conv is {d_conv}; it must be odd, so that sizes are kept")
        super().__init__(sizes, scan=scan)
        inner = sizes.inner
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = Conv2d(inner, inner, d_conv, padding=d_conv // 2, groups=inner)
        self.merge = merge(inner)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.reset_parameters()

    def enter(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """What is scanned and what gates it, each (B, H, W, E)."""
        x_BHWE, gate_BHWE = self.in_proj(x_BHWC).chunk(2, dim=-1)
        return F.silu(self.conv(x_BHWE)), gate_BHWE

    def leave(self, y_BHWE: Tensor, gate_BHWE: Tensor) -> Tensor:
        """The output (B, H, W, C) of what was scanned."""
        return self.out_proj(self.out_norm(y_BHWE) * F.silu(gate_BHWE))
