"""Fusion of two scales by one scan over the tokens of both (MambaCSR).

Shape suffixes: B batch, H height, W width of the fine grid, h, w of the coarse one (half of it),
C channels, L tokens, K directions, E inner channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.channel_attention import MLP
from zoo.blocks.layers import Conv2d
from zoo.blocks.merge import GatedMerge
from zoo.blocks.ss2d import SS2D
from zoo.ops.scan import selective_scan
from zoo.registry import Registry
from zoo.scans import CrossScale, ScanOrder
from zoo.scans.official import official_column_sources

ALIGNED = CrossScale(size=16)
"""The walk of the published network."""

Compat: TypeAlias = Literal["official"]
"""Whose outputs to reproduce where the authors' code differs from what it means to compute."""


class ScaleFusion(nn.Module):
    """Brings coarse features into fine ones, ``(fine_BHWC, coarse_BhwC) -> (B, H, W, C)``.

    Built as ``fusion(dim, compat=)``. ``dim`` is C; the coarse grid is half of the fine one.

    Attributes:
        size_multiple: height and width of the fine grid must be multiples of this.
    """

    size_multiple: int = 2

    def forward(self, fine_BHWC: Tensor, coarse_BhwC: Tensor) -> Tensor:
        raise NotImplementedError


ScaleFusionFactory: TypeAlias = Callable[..., ScaleFusion]

SCALE_FUSIONS = Registry("scale_fusion", ScaleFusion, supplied=("dim", "compat"))


@SCALE_FUSIONS.register("cross_scale")
class CrossScaleFusion(ScaleFusion):
    """Selective scan over coarse and fine tokens, of which the fine ones go on (Sec. 3.4)::

        x = skip_scale * x + mixer(norm(x), coarse)
        x = mlp_scale * x + mlp(mlp_norm(x))

    Both scales have an input projection and a depthwise convolution of their own; the parameters of
    the scan, its gate and its output projection are shared. The coarse features are not normalised.

    Args:
        dim: channels C.
        compat: "official" maps column-first directions back as the authors' code does, which is
            wrong unless the grid of windows is square (:mod:`zoo.scans.official`).
        scan: the walk over both grids.
        expand: inner channels E as a multiple of C, cut to an integer.
        d_state: states N of each inner channel.
        d_conv: side of the depthwise convolutions in pixels, odd.
        mlp_ratio: hidden channels of the MLP as a multiple of C.
    """

    def __init__(
        self,
        dim: int,
        *,
        compat: Compat | None = None,
        scan: ScanOrder = ALIGNED,
        expand: float = 2.0,
        d_state: int = 16,
        d_conv: int = 3,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if not isinstance(scan, CrossScale):
            raise ValueError(
                f"scan {type(scan).__name__} walks one grid; "
                "a fusion of two scales needs cross_scale"
            )
        self.scan, self.compat = scan, compat
        self.size_multiple = scan.size
        self.norm = nn.LayerNorm(dim)
        self.mixer = SS2D(
            dim, scan=scan, expand=expand, d_state=d_state, d_conv=d_conv, merge=GatedMerge
        )
        # The authors' projection makes a gate for the coarse tokens too and drops it: the second
        # half of these rows never learns. It is kept, so that weights pass both ways unchanged.
        self.coarse_proj = nn.Linear(dim, self.mixer.in_proj.out_features, bias=False)
        inner = self.mixer.in_proj.out_features // 2
        self.coarse_conv = Conv2d(inner, inner, d_conv, padding=d_conv // 2, groups=inner)
        self.skip_scale = nn.Parameter(torch.ones(dim))
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, ratio=mlp_ratio)
        self.mlp_scale = nn.Parameter(torch.ones(dim))

    def forward(self, fine_BHWC: Tensor, coarse_BhwC: Tensor) -> Tensor:
        x_BHWC = fine_BHWC * self.skip_scale + self._mixed(self.norm(fine_BHWC), coarse_BhwC)
        return x_BHWC * self.mlp_scale + self.mlp(self.mlp_norm(x_BHWC))

    def _mixed(self, fine_BHWC: Tensor, coarse_BhwC: Tensor) -> Tensor:
        mixer = self.mixer
        height, width = fine_BHWC.shape[1:3]
        fine_BHWE, gate_BHWE = mixer.in_proj(fine_BHWC).chunk(2, dim=-1)
        inner = fine_BHWE.shape[-1]
        coarse_BhwE = F.linear(coarse_BhwC, self.coarse_proj.weight[:inner])
        coarse_BLE = F.silu(self.coarse_conv(coarse_BhwE)).flatten(1, 2)
        fine_BLE = F.silu(mixer.conv(fine_BHWE)).flatten(1, 2)
        u_BLE = torch.cat([coarse_BLE, fine_BLE], dim=1)
        order_KS = self.scan.order(height, width, u_BLE.device)
        y_BLKE = selective_scan(*mixer.scan_inputs(u_BLE, order_KS), reduce=False)
        y_BLKE = y_BLKE[:, coarse_BLE.shape[1] :]
        if self.compat == "official":
            y_BLKE = self._mapped_back_as_official(y_BLKE, height, width)
        y_BHWE = cast(GatedMerge, mixer.merge).add(y_BLKE).unflatten(1, (height, width))
        return mixer.out_proj(mixer.out_norm(y_BHWE) * F.silu(gate_BHWE))

    def _mapped_back_as_official(self, y_BLKE: Tensor, height: int, width: int) -> Tensor:
        sources_L = official_column_sources(height, width, self.scan.size, y_BLKE.device)
        return torch.stack(
            [
                y_BLE[:, sources_L] if name.startswith("column") else y_BLE
                for name, y_BLE in zip(self.scan.directions, y_BLKE.unbind(2), strict=True)
            ],
            dim=2,
        )
