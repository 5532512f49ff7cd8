"""An adapter to ``selective_scan_fn`` of the package mamba-ssm, for comparison.

It does what the authors' networks do: it copies the tokens into the order of each direction,
projects the step to all channels, scans each copy with the kernel, and writes the outputs back to
their tokens.

Shape suffixes: B batch, L tokens, K directions, S steps, E channels, R rank, N states; G = K E.
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops.scan.contract import ScanGradients, ScanInputs, differentiable, gradients_of
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
    """Import ``selective_scan_fn(u_BGS, delta_BGS, A_GN, B_BKNS, C_BKNS, D_G, delta_bias=...)``."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn


def scan(inputs: ScanInputs, reduce: bool) -> Tensor:
    """Permute, scan, scatter; differentiable where the kernel is."""
    u_BLE, delta_BLKR, weight_KER, bias_KE, A_KEN, B_BLKN, C_BLKN, D_KE, order = inputs
    batch, tokens = u_BLE.shape[:2]
    # A zero token is appended; each -1 becomes its index.
    visit_BKS = paths_of_images(torch.where(order < 0, tokens, order).long(), batch)
    direction_K1 = torch.arange(len(D_KE), device=order.device)[:, None]
    image_B11 = torch.arange(batch, device=order.device)[:, None, None]

    def walk(tensor_BLKX: Tensor) -> Tensor:
        padded_BPKX = F.pad(tensor_BLKX, (0, 0, 0, 0, 0, 1))
        return padded_BPKX[image_B11, visit_BKS, direction_K1].transpose(2, 3)

    u_BKES = F.pad(u_BLE, (0, 0, 0, 1))[image_B11, visit_BKS].transpose(2, 3)
    delta_BKES = walk(delta_BLKR)
    if weight_KER is not None:
        delta_BKES = torch.einsum("bkrs,ker->bkes", delta_BKES, weight_KER.to(delta_BKES.dtype))
    y_BGS = kernel()(
        u_BKES.flatten(1, 2).contiguous(),
        delta_BKES.flatten(1, 2).contiguous(),
        A_KEN.flatten(0, 1).contiguous(),
        walk(B_BLKN).contiguous(),
        walk(C_BLKN).contiguous(),
        D_KE.flatten().contiguous(),
        delta_bias=bias_KE.flatten().contiguous(),
        delta_softplus=True,
    )
    y_BKSE = y_BGS.unflatten(1, D_KE.shape).transpose(2, 3)
    y_BLKE = y_BKSE.new_zeros(batch, tokens + 1, *D_KE.shape)
    y_BLKE = y_BLKE.index_put((image_B11, visit_BKS, direction_K1), y_BKSE)[:, :tokens]
    return y_BLKE.sum(2) if reduce else y_BLKE


def forward(inputs: ScanInputs, reduce: bool) -> Tensor:
    with torch.no_grad():
        return scan(inputs, reduce).to(inputs.u.dtype)


def backward(inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
    leaves = {name: t.detach().requires_grad_() for name, t in differentiable(inputs).items()}
    # Autograd is off inside an operator, but the package's function gives gradients only through
    # it. The switch is per thread, so another thread can use autograd.
    with ThreadPoolExecutor(1) as thread:
        stream = torch.cuda.current_stream() if grad_y.is_cuda else None
        found = thread.submit(_differentiate, inputs, leaves, grad_y, reduce, stream).result()
    return gradients_of(dict(zip(leaves, found, strict=True)))


def _differentiate(
    inputs: ScanInputs, leaves: dict[str, Tensor], grad_y: Tensor, reduce: bool, stream: Any
) -> tuple[Tensor, ...]:
    with torch.cuda.stream(stream):  # None is none
        y = scan(inputs._replace(**leaves), reduce)
        return torch.autograd.grad(y, list(leaves.values()), grad_y.to(y.dtype))
