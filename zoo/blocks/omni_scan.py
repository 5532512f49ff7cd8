"""A selective scan over the image, then one over its channels (VmambaIR).

Shape suffixes: B batch, H height, W width, C channels, E inner channels, V channels of the scan
over channels, K directions, N states, R rank of the step size.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from zoo.blocks.contract import MIXERS, MergeFactory
from zoo.blocks.direction_merge import SumMerge
from zoo.blocks.norm import LayerNorm, NormFactory
from zoo.blocks.scan_core import ScanSizes, TokenScan
from zoo.blocks.ss2d import SS2D
from zoo.ops.scan import selective_scan
from zoo.scans import Raster, ScanOrder

Combine: TypeAlias = Literal["add", "scale"]

MOST_CHANNEL_SIZE = 1024
"""Largest width and rank of the scan over channels. A wide scan has few parameters, but takes much
memory, so the limit on parameters does not catch it."""

_BOTH_WAYS = Raster(directions=("row", "row_reversed"))
"""The channels, a line of E tokens, from the first to the last and back."""


class ChannelScan(TokenScan):
    """Scans the means of the channels as a sequence, ``(B, H, W, E) -> (B, 1, 1, E)``::

        v = rise(mean over pixels of x)           E tokens of V channels
        out = norm(fall(scan(v)))                 one number for each channel

    Args:
        dim: channels E of the image.
        width: channels V of the sequence; 1 for the means themselves, without the two layers.
        rank: rank R of the step size delta.
        states: number of states N.
        norm: builds the norm of the result.
    """

    def __init__(
        self, dim: int, *, width: int, rank: int, states: int, norm: NormFactory = LayerNorm
    ) -> None:
        for name, value in {"channel_width": width, "channel_rank": rank}.items():
            if not 1 <= value <= MOST_CHANNEL_SIZE:
                raise ValueError(f"{name} is {value}; it must be from 1 to {MOST_CHANNEL_SIZE}")
        super().__init__(ScanSizes(width, rank, states), scan=_BOTH_WAYS)
        self.rise = nn.Linear(1, width) if width > 1 else nn.Identity()
        self.fall = nn.Linear(width, 1) if width > 1 else nn.Identity()
        self.norm = norm(dim)
        self.reset_parameters()

    def forward(self, x_BHWE: Tensor) -> Tensor:
        means_BE1 = x_BHWE.mean((1, 2))[..., None]
        order_KS = self.scan.order(1, means_BE1.shape[1], x_BHWE.device)
        inputs = self.scan_inputs(self.rise(means_BE1), order_KS)
        out_BE1 = self.fall(selective_scan(*inputs, reduce=True))
        return self.norm(out_BE1.squeeze(-1))[:, None, None]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as the authors do: as Mamba, or A, delta's weight and its bias normal.

        Mamba's values are for a sequence of width 1, as in their network for real images.
        """
        super().reset_parameters()
        if isinstance(self.rise, nn.Linear):
            for parameter in (self.A_log, self.dt_proj_weight, self.dt_proj_bias):
                nn.init.normal_(parameter)


@MIXERS.register("omni_scan")
class OmniScan(SS2D):
    """SS2D, then a scan over the channels of its gated result (VmambaIR, Sec. 3.3)::

        y = out_norm(scan(u)) * silu(gate)
        out = out_proj(y + channels(y))

    The scan over channels has one number for each channel and image, which is added to all pixels.

    Args:
        dim: channels C.
        scan: the scan order, with K directions; raster by default.
        expand: inner channels E as a multiple of C, rounded down to an integer.
        d_state: number of states N of each inner channel, in both scans.
        dt_rank: rank R of the step size delta; ceil(C / 16) by default.
        d_conv: kernel size of the depthwise convolution in pixels, odd.
        merge: builds the part that merges the directions.
        norm: builds the norms after the scans.
        bias: whether the two projections have biases.
        channel_width: channels of the sequence of channels; 1 for the means alone.
        channel_rank: rank of the step size in the scan over channels; None for ceil(C / 16).
        combine: "add" for y + channels(y), the published deraining network; "scale" for
            y * channels(y) + y, its networks for super-resolution.
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
        merge: MergeFactory = SumMerge,
        norm: NormFactory = LayerNorm,
        bias: bool = True,
        channel_width: int = 4,
        channel_rank: int | None = 6,
        combine: Combine = "add",
    ) -> None:
        super().__init__(
            dim,
            scan=scan,
            expand=expand,
            d_state=d_state,
            dt_rank=dt_rank,
            d_conv=d_conv,
            merge=merge,
            norm=norm,
            bias=bias,
        )
        rank = math.ceil(dim / 16) if channel_rank is None else channel_rank
        self.channels = ChannelScan(
            self.out_proj.in_features, width=channel_width, rank=rank, states=d_state, norm=norm
        )
        self.combine = combine

    def forward(self, x_BHWC: Tensor) -> Tensor:
        u_BHWE, gate_BHWE = self.enter(x_BHWC)
        y_BHWE = self.gated(self.scanned(u_BHWE), gate_BHWE)
        channels_B11E = self.channels(y_BHWE)
        if self.combine == "scale":
            return self.out_proj(y_BHWE * channels_B11E + y_BHWE)
        return self.out_proj(y_BHWE + channels_B11E)
