"""The attentive state-space mixer of MambaIRv2: the scan follows the content of the image.

Shape suffixes: B batch, H height, W width, C channels, L tokens (H * W), E inner channels,
K directions, S steps, N states, T classes, R rank of the step size, P rank of the prompts.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.contract import MIXERS, Mixer
from zoo.blocks.layers import Conv2d, check_kernel
from zoo.blocks.router import Router, Routes, Routing
from zoo.blocks.scan_core import TokenScan, scan_sizes
from zoo.ops.scan import selective_scan
from zoo.scans import ByClass, ScanOrder

Prompt: TypeAlias = Literal["raster", "sorted"]


@MIXERS.register("attentive")
class Attentive(TokenScan, Mixer):
    """Scans tokens in the order of their classes, with a prompt for each class (MambaIRv2)::

        class = router(x)                        one of T classes for each token
        u = in_proj(x);  u = u * sigmoid(conv(u))
        C = C + prompts[class]                   the scan reads the states of its class
        out = out_proj(out_norm(scan(u)))        in the order of the classes

    Tokens of one class are neighbours in the scan, however far apart they are in the image. With a
    scan order that does not depend on the image, only the prompts do.

    Args:
        dim: channels C, at least 3.
        scan: the scan order, with K directions; ``by_class`` by default.
        expand: inner channels E as a multiple of C, rounded down to an integer; 2 by default.
        d_inner: inner channels E, instead of ``expand``; None to use ``expand``.
        d_state: number of states N of each inner channel.
        dt_rank: rank R of the step size delta; ceil(E / 16) by default.
        d_conv: kernel size of the depthwise convolution in pixels, odd.
        classes: number of classes T.
        prompt_rank: rank P of the table of prompts, which is a product (T, P) x (P, N).
        prompt: which prompt a token gets from the order ``by_class``. "sorted" is the paper's: that
            of the token's own class. "raster" is that of the released code and weights: the token
            at step s gets the prompt of the token number s in row-major order.
        routing: "argmax" or "sample": how evaluation chooses classes; training always samples. See
            :class:`zoo.blocks.router.Router`.
    """

    takes_content = True

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        expand: float | None = None,
        d_inner: int | None = None,
        d_state: int = 16,
        dt_rank: int | None = None,
        d_conv: int = 3,
        classes: int = 64,
        prompt_rank: int = 32,
        prompt: Prompt = "raster",
        routing: Routing = "argmax",
    ) -> None:
        for name, value in {"classes": classes, "prompt_rank": prompt_rank}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        check_kernel(d_conv, "d_conv")
        sizes = scan_sizes(dim, expand=expand, d_inner=d_inner, d_state=d_state, dt_rank=dt_rank)
        inner = sizes.inner
        if dt_rank is None:
            sizes = sizes._replace(rank=math.ceil(inner / 16))
        super().__init__(sizes, scan=ByClass() if scan is None else scan)
        self.classes, self.prompt = classes, prompt
        self.router = Router(dim, classes=classes, routing=routing)
        self.prompt_classes = nn.Parameter(torch.empty(classes, prompt_rank))
        self.prompt_states = nn.Parameter(torch.empty(prompt_rank, d_state))
        self.in_proj = Conv2d(dim, inner, 1)
        self.conv = Conv2d(inner, inner, d_conv, padding=d_conv // 2, groups=inner)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim)
        self.reset_parameters()
        for table in (self.prompt_classes, self.prompt_states):
            nn.init.uniform_(table, -1 / len(table), 1 / len(table))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        _, height, width, _ = x_BHWC.shape
        routes = self.router(x_BHWC.flatten(1, 2))
        u_BHWE = self.in_proj(x_BHWC)
        u_BLE = (u_BHWE * self.conv(u_BHWE).sigmoid()).flatten(1, 2)
        if isinstance(self.scan, ByClass):
            order, rank_BKL = self.scan.of_classes(routes.class_BL, self.classes)
        else:
            order, rank_BKL = self.scan.order(height, width, u_BLE.device), None
        inputs = self.scan_inputs(u_BLE, order)
        prompts_BLKN = self.prompts(routes, rank_BKL if self.prompt == "raster" else None)
        inputs = inputs._replace(C=inputs.C + prompts_BLKN.to(inputs.C.dtype))
        y_BLE = selective_scan(*inputs, reduce=True)
        return self.out_proj(self.out_norm(y_BLE)).unflatten(1, (height, width))

    def prompts(self, routes: Routes, rank_BKL: Tensor | None) -> Tensor:
        """Return what the prompts add to C, (B, L, K, N), or (B, L, 1, N) for all directions.

        Args:
            routes: the class of each token.
            rank_BKL: the step of each token, to give it the prompt of the token with that number;
                None to give each token the prompt of its own class.
        """
        table_TN = self.prompt_classes @ self.prompt_states
        if routes.one_hot_BLT is None:
            prompt_BLN = F.embedding(routes.class_BL, table_TN)
        else:
            prompt_BLN = routes.one_hot_BLT.to(table_TN.dtype) @ table_TN
        if rank_BKL is None:
            return prompt_BLN[:, :, None]
        rank_BLKN = rank_BKL.transpose(1, 2)[..., None].expand(-1, -1, -1, prompt_BLN.shape[-1])
        return prompt_BLN[:, :, None].expand(-1, -1, rank_BKL.shape[1], -1).gather(1, rank_BLKN)
