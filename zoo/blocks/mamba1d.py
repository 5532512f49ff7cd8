"""The original Mamba mixer on tokens in row-major order: the baseline for all scan orders.

Shape suffixes: B batch, H height, W width, C channels, L tokens (H * W), E inner channels.
"""

from __future__ import annotations

import importlib.util

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.contract import MIXERS, Mixer
from zoo.blocks.layers import check_kernel
from zoo.blocks.scan_core import TokenScan, scan_sizes
from zoo.ops.scan import selective_scan
from zoo.scans import Raster, ScanOrder


def causal_conv(x_BLE: Tensor, weight_EW: Tensor, bias_E: Tensor) -> Tensor:
    """Compute a causal depthwise convolution, then SiLU: ``(B, L, E) -> (B, L, E)``.

    Each output token depends on its input token and the W - 1 tokens before it. On CUDA,
    causal-conv1d computes it if installed and 2 <= W <= 4, with the same result.
    """
    x_BEL = x_BLE.transpose(1, 2)
    width = weight_EW.shape[1]
    if x_BLE.is_cuda and 2 <= width <= 4 and importlib.util.find_spec("causal_conv1d"):
        from causal_conv1d import causal_conv1d_fn

        y_BEL = causal_conv1d_fn(x_BEL, weight_EW, bias_E, activation="silu")
    else:
        padded_BEL = F.pad(x_BEL, (width - 1, 0))
        y_BEL = F.silu(F.conv1d(padded_BEL, weight_EW[:, None], bias_E, groups=len(weight_EW)))
    return y_BEL.transpose(1, 2).contiguous()


@MIXERS.register("mamba1d")
class Mamba1D(TokenScan, Mixer):
    """The Mamba mixer for text: one direction, row by row, causal convolution (Mamba, Fig. 3).

    It is the baseline that shows what a scan order for images gains. As in the original, there is
    no norm between the scan and the gate.

    Args:
        dim: channels C.
        scan: not used; tokens are always read row by row.
        expand: inner channels E as a multiple of C, rounded down to an integer.
        d_state: number of states N of each inner channel.
        dt_rank: rank R of the step size delta; ceil(C / 16) by default.
        d_conv: kernel size of the causal convolution in tokens.
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
        d_conv: int = 4,
    ) -> None:
        check_kernel(d_conv, "d_conv", odd=False)
        sizes = scan_sizes(dim, expand=expand, d_state=d_state, dt_rank=dt_rank)
        super().__init__(sizes, scan=Raster(directions=("row",)))
        inner = sizes.inner
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        convolution = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.conv_weight = nn.Parameter(convolution.weight.detach()[:, 0])
        assert convolution.bias is not None
        self.conv_bias = nn.Parameter(convolution.bias.detach())
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.reset_parameters()

    def forward(self, x_BHWC: Tensor) -> Tensor:
        _, height, width, _ = x_BHWC.shape
        x_BLE, gate_BLE = self.in_proj(x_BHWC).flatten(1, 2).chunk(2, dim=-1)
        u_BLE = causal_conv(x_BLE, self.conv_weight, self.conv_bias)
        order_KS = self.scan.order(height, width, u_BLE.device)
        y_BLE = selective_scan(*self.scan_inputs(u_BLE, order_KS), reduce=True)
        return self.out_proj(y_BLE * F.silu(gate_BLE)).unflatten(1, (height, width))
