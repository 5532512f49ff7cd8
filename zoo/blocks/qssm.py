"""The query state space module of QMambaBSR: the reference frame controls a scan of all frames.

Shape suffixes: B batch, S other frames, H height, W width, C channels, L tokens (H * W),
K directions, E inner channels, R rank of the step, N states.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.burst_fusion import BURST_FUSIONS, BurstFusion, side_by_side
from zoo.blocks.channel_attention import ChannelAttention
from zoo.blocks.layers import Conv2d
from zoo.blocks.scan_core import ScanCore, scan_sizes
from zoo.ops.scan import selective_scan
from zoo.ops.scan.contract import ScanInputs
from zoo.scans import Raster, ScanOrder

FrameMix = Literal["concat", "mean_max"]


@BURST_FUSIONS.register("qssm")
class QSSM(ScanCore, BurstFusion):
    """Selective scan over all frames, controlled by the reference (QMambaBSR, Sec. 3.2)::

        q       = reference + mlp([reference, frames])          # preliminary denoising
        delta, B from q;  u from the frames, all at once;  C from the frames
        output  = q + channel_attention(out_proj(norm(scan(u, delta, B, C)) * silu(gate(q))))

    The paper specifies the sources of delta, B and u, the four directions and the channel
    attention. The source of C, the gate, the norms and both residuals are our choice.

    Args:
        dim: channels C.
        burst: number of frames T, including the reference.
        scan: the scan order.
        expand: inner channels E as a multiple of C, rounded down to an integer.
        d_state: number of states N of each inner channel.
        dt_rank: rank R of the step size delta; ceil(C / 16) by default.
        frame_mix: how the frames become one sequence. "concat" is one linear layer over the
            channels of all frames, as in the paper; it fixes the number and order of the frames.
            "mean_max" is one linear layer shared by all frames, then their mean and maximum; it
            takes any number of frames in any order.
        denoise: how the preliminary denoising combines the other frames: their channels joined
            ("concat"), their mean and maximum ("mean_max"), or no denoising ("none").
        c_source: whether C comes from the "frames" or the "reference".
        squeeze: C is divided by this inside channel attention.
    """

    def __init__(
        self,
        dim: int,
        *,
        burst: int,
        scan: ScanOrder = Raster(),  # noqa: B008
        expand: float = 2.0,
        d_state: int = 16,
        dt_rank: int | None = None,
        frame_mix: FrameMix = "concat",
        denoise: Literal["none", "concat", "mean_max"] = "concat",
        c_source: Literal["frames", "reference"] = "frames",
        squeeze: int = 4,
    ) -> None:
        if burst < 2:
            raise ValueError(f"burst is {burst}; this fusion needs at least 2 frames")
        sizes = scan_sizes(dim, expand=expand, d_state=d_state, dt_rank=dt_rank)
        inner, rank, states = sizes
        projections = {"query_weight": rank + states, "C_weight": states}
        super().__init__(sizes, scan=scan, projections=projections)
        self.sizes = (rank, states)
        self.frame_mix, self.denoise, self.c_source = frame_mix, denoise, c_source
        self.any_length = frame_mix == "mean_max" and denoise != "concat"

        if denoise != "none":
            seen = burst * dim if denoise == "concat" else 3 * dim
            self.denoiser = nn.Sequential(
                nn.Linear(seen, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
            )
        self.query_norm = nn.LayerNorm(dim)
        self.query_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.query_conv = Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.frame_norm = nn.LayerNorm(dim)
        if frame_mix == "concat":
            self.frame_proj = nn.Linear((burst - 1) * dim, inner, bias=False)
        else:
            self.frame_proj = nn.Linear(dim, inner, bias=False)
            self.frame_mixer = nn.Linear(2 * inner, inner, bias=False)
        self.frame_conv = Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.channel_attention = ChannelAttention(dim, squeeze=squeeze)
        self.reset_parameters()

    def forward(self, reference_BHWC: Tensor, frames_BSHWC: Tensor) -> Tensor:
        query_BHWC = self.query(reference_BHWC, frames_BSHWC)
        inputs, gate_BHWE = self.inputs(query_BHWC, frames_BSHWC)
        y_BHWE = selective_scan(*inputs, reduce=True).unflatten(1, query_BHWC.shape[1:3])
        mixed_BHWC = self.out_proj(self.out_norm(y_BHWE) * F.silu(gate_BHWE))
        return query_BHWC + self.channel_attention(mixed_BHWC)

    def query(self, reference_BHWC: Tensor, frames_BSHWC: Tensor) -> Tensor:
        """Return the reference, denoised with the help of the other frames: (B, H, W, C)."""
        if self.denoise == "none":
            return reference_BHWC
        if self.denoise == "concat":
            others = side_by_side(frames_BSHWC)
        else:
            others = torch.cat([frames_BSHWC.mean(1), frames_BSHWC.amax(1)], dim=-1)
        return reference_BHWC + self.denoiser(torch.cat([reference_BHWC, others], dim=-1))

    def inputs(self, query_BHWC: Tensor, frames_BSHWC: Tensor) -> tuple[ScanInputs, Tensor]:
        """Return the inputs of the scan operator, and the gate of its output (B, H, W, E)."""
        _, height, width, _ = query_BHWC.shape
        query_BHWE, gate_BHWE = self.query_proj(self.query_norm(query_BHWC)).chunk(2, dim=-1)
        query_BLE = F.silu(self.query_conv(query_BHWE)).flatten(1, 2)
        frames_BSHWC = self.frame_norm(frames_BSHWC)
        if self.frame_mix == "concat":
            mixed_BHWE = self.frame_proj(side_by_side(frames_BSHWC))
        else:
            each_BSHWE = self.frame_proj(frames_BSHWC)
            mixed_BHWE = self.frame_mixer(
                torch.cat([each_BSHWE.mean(1), each_BSHWE.amax(1)], dim=-1)
            )
        u_BLE = F.silu(self.frame_conv(mixed_BHWE)).flatten(1, 2)
        delta_BLKR, B_BLKN = self.project("query_weight", query_BLE).split(self.sizes, dim=-1)
        source_BLE = u_BLE if self.c_source == "frames" else query_BLE
        C_BLKN = self.project("C_weight", source_BLE)
        order_KS = self.scan.order(height, width, u_BLE.device)
        return self.operands(u_BLE, delta_BLKR, B_BLKN, C_BLKN, order_KS), gate_BHWE
