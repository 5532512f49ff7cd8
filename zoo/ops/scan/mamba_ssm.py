"""An adapter to the selective scan of the package mamba-ssm, for comparison.

It does what the authors' networks do: it copies the tokens into the order of each direction,
projects the step to all channels, scans each copy with the kernel, and writes the outputs back to
their tokens.

Shape suffixes: B batch, L tokens, K directions, S steps, E channels, R rank, N states; G = K E.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops.scan.contract import ScanGradients, ScanInputs
from zoo.ops.scan.order import paths_of_images

NAME = "mamba_ssm"


def summary() -> str:
    return "the kernel of mamba-ssm with permuted copies, as in the authors' code, for comparison"


def unavailable() -> str | None:
    if importlib.util.find_spec("mamba_ssm") is None:
        return "mamba-ssm is not installed; pip install --no-build-isolation '.[cuda]'"
    if importlib.util.find_spec("selective_scan_cuda") is None:
        return "mamba-ssm has no compiled kernel; reinstall it on a machine with nvcc"
    if not torch.cuda.is_available():
        return "it needs an NVIDIA GPU, and this PyTorch sees none"
    return None


def declines(inputs: ScanInputs) -> str | None:
    if inputs.u.device.type != "cuda":
        return f"it runs on CUDA devices, and the tokens are on {inputs.u.device}"
    if inputs.u.dtype == torch.float64:
        return f"it computes in float32, and the tokens are {inputs.u.dtype}"
    return None


def kernel() -> Any:
    """Import the package's autograd function, whose two passes are called without autograd.

    ``forward(context, u_BGS, delta_BGS, A_GN, B_BKNS, C_BKNS, D_G, z, bias_G, softplus)``, and
    ``backward(context, grad_y_BGS)``, which gives their gradients.
    """
    from mamba_ssm.ops.selective_scan_interface import SelectiveScanFn

    return SelectiveScanFn


class _Context:
    """What the passes expect of autograd's context: to hold tensors and attributes."""

    saved_tensors: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors


class Walk:
    """The order of the steps: gathers tokens along the paths, and scatters steps to tokens."""

    def __init__(self, inputs: ScanInputs) -> None:
        self.batch, self.tokens = inputs.u.shape[:2]
        order = inputs.order
        # A zero token is appended; each -1 becomes its index.
        order = torch.where(order < 0, self.tokens, order).long()
        self.visit_BKS = paths_of_images(order, self.batch)
        self.direction_K1 = torch.arange(len(inputs.D), device=order.device)[:, None]
        self.image_B11 = torch.arange(self.batch, device=order.device)[:, None, None]

    def gather(self, tensor: Tensor) -> Tensor:
        """(B, L, K, X) or, alike for all directions, (B, L, X), to (B, K, X, S)."""
        padded = F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, 1))
        if tensor.dim() == 3:
            return padded[self.image_B11, self.visit_BKS].transpose(2, 3)
        return padded[self.image_B11, self.visit_BKS, self.direction_K1].transpose(2, 3)

    def scatter(self, steps_BKXS: Tensor) -> Tensor:
        """(B, K, X, S) to (B, L, K, X); zero where no path goes."""
        steps_BKSX = steps_BKXS.transpose(2, 3)
        shape = self.batch, self.tokens + 1, len(self.direction_K1), steps_BKSX.shape[-1]
        place = (self.image_B11, self.visit_BKS, self.direction_K1)
        return steps_BKSX.new_zeros(shape).index_put(place, steps_BKSX)[:, : self.tokens]


def _scanned(inputs: ScanInputs, walk: Walk, context: _Context) -> Tensor:
    u_BLE, delta_BLKR, weight_KER, bias_KE, A_KEN, B_BLKN, C_BLKN, D_KE, _ = inputs
    delta_BKES = walk.gather(delta_BLKR)
    if weight_KER is not None:
        delta_BKES = torch.einsum("bkrs,ker->bkes", delta_BKES, weight_KER.to(delta_BKES.dtype))
    y_BGS: Tensor = kernel().forward(
        context,
        walk.gather(u_BLE).flatten(1, 2).contiguous(),
        delta_BKES.flatten(1, 2).contiguous(),
        A_KEN.flatten(0, 1).contiguous(),
        walk.gather(B_BLKN).contiguous(),
        walk.gather(C_BLKN).contiguous(),
        D_KE.flatten().contiguous(),
        None,
        bias_KE.flatten().contiguous(),
        True,
    )
    return y_BGS


@torch.no_grad()
def forward(inputs: ScanInputs, reduce: bool) -> Tensor:
    walk = Walk(inputs)
    y_BGS = _scanned(inputs, walk, _Context())
    y_BLKE = walk.scatter(y_BGS.unflatten(1, inputs.D.shape))
    return (y_BLKE.sum(2) if reduce else y_BLKE).to(inputs.u.dtype)


@torch.no_grad()
def backward(inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
    walk, context = Walk(inputs), _Context()
    _scanned(inputs, walk, context)
    grad_BGS = walk.gather(grad_y).flatten(1, 2).contiguous()
    gu, gdelta, gA, gB, gC, gD, _, gbias, *_ = kernel().backward(context, grad_BGS)
    gdelta_BKES, gweight_KER = gdelta.unflatten(1, inputs.D.shape), None
    if inputs.delta_weight is not None:
        low_BKRS, weight_KER = walk.gather(inputs.delta), inputs.delta_weight
        gweight_KER = torch.einsum("bkes,bkrs->ker", gdelta_BKES, low_BKRS.to(gdelta.dtype))
        gweight_KER = gweight_KER.to(weight_KER.dtype)
        gdelta_BKES = torch.einsum("bkes,ker->bkrs", gdelta_BKES, weight_KER.to(gdelta.dtype))
    return ScanGradients(
        u=walk.scatter(gu.unflatten(1, inputs.D.shape)).sum(2).to(inputs.u.dtype),
        delta=walk.scatter(gdelta_BKES).to(inputs.delta.dtype),
        delta_weight=gweight_KER,
        delta_bias=gbias.view_as(inputs.delta_bias),
        A=gA.view_as(inputs.A),
        B=walk.scatter(gB).to(inputs.B.dtype),
        C=walk.scatter(gC).to(inputs.C.dtype),
        D=gD.view_as(inputs.D),
    )
