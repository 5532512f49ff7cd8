"""Where the norm in Triton runs: on ordinary tensors on a GPU that trusts Triton.

It is one pass instead of three (norm, silu, product), with a gradient. It runs under the conditions
of the passes on a CPU (:mod:`zoo.ops.passes.conditions`), where Triton serves for the scan by
itself: the same self-check examines both. ZOO_SCAN_BACKEND decides for both, too.

Shape suffixes: C channels.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from zoo.ops.passes.conditions import is_ordinary, is_watched, needs_gradient
from zoo.ops.passes.gradients import by_pytorch, is_observed, normalised_by_pytorch
from zoo.ops.scan import triton
from zoo.ops.scan.checks import check_memory
from zoo.ops.scan.dispatch import check_environment
from zoo.ops.scan.self_check import serves_on_gpu

GPU = "cuda"
"""Type of the devices that it runs on."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

MOST_CHANNELS = 1024
"""More do not fit a tile; PyTorch is fast then."""


def normalised(
    x: Tensor, weight_C: Tensor | None, bias_C: Tensor | None, gate: Tensor | None, eps: float
) -> Tensor | None:
    """Compute ``norm(x)``, or ``norm(x) * silu(gate)``; None where it cannot run.

    The dtype is that of PyTorch: float32 under autocast, else that of x.
    """
    if weight_C is None or bias_C is None or not _may_run(x, weight_C, bias_C, gate):
        return None
    shapes_fit = weight_C.shape == bias_C.shape == x.shape[-1:]
    if not shapes_fit or (gate is not None and gate.shape != x.shape):
        return None
    if weight_C.dtype != bias_C.dtype:
        return None
    if torch.is_autocast_enabled(GPU):
        dtype = torch.float32
    elif any(t is not None and t.dtype != x.dtype for t in (weight_C, gate)):
        return None  # PyTorch promotes, or has something to say about it
    else:
        dtype = x.dtype
    if needs_gradient(x, weight_C, bias_C, gate):
        out: Tensor = _Normalised.apply(x, weight_C, bias_C, gate, eps, dtype)
        return out
    return _kernels().forward(x, weight_C, bias_C, gate, eps, dtype, keep=False).out


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, ctx.eps, ctx.dtype = arguments
        found = _kernels().forward(*tensors, ctx.eps, ctx.dtype, keep=True)
        ctx.save_for_backward(*tensors, found.mean_T, found.scale_T)
        out: Tensor = found.out
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,), (*tensors, mean_T, scale_T) = grads, ctx.saved_tensors
        if is_observed((grad,)) or is_watched() or not _is_plain(grad):

            def output(*given: Any) -> Tensor:
                cast: list[Any] = [None if t is None else t.to(ctx.dtype) for t in given]
                return normalised_by_pytorch(*cast, eps=ctx.eps)

            found = by_pytorch(output, tensors, ctx.needs_input_grad[:4], grad)
        else:
            found = _kernels().backward(*tensors, mean_T, scale_T, grad)
        return (*found, None, None)


def _may_run(*tensors: Tensor | None) -> bool:
    x = tensors[0]
    if x is None or x.device.type != GPU or x.dim() < 2 or x.shape[-1] > MOST_CHANNELS:
        return False
    if torch.compiler.is_compiling() or is_watched():
        return False
    same = all(t is None or (_is_plain(t) and t.device == x.device) for t in tensors)
    if not same or not _is_trusted(x.device):
        return False
    check_memory(tensors)
    return True


def _is_plain(tensor: Tensor) -> bool:
    return is_ordinary(tensor, GPU) and tensor.dtype in DTYPES


def _is_trusted(device: torch.device) -> bool:
    """Whether the kernels have passed their self-check, or the environment asks for Triton.

    ``use_backend`` asks for a backend of scans. It does not count here: parts that checkpointing
    computes again, maybe outside its block, must choose as the forward pass did.
    """
    if triton.unavailable() is not None:
        return False
    if name := check_environment():
        return name == triton.NAME
    return serves_on_gpu(triton, device)


def _kernels() -> ModuleType:
    return importlib.import_module("zoo.ops.scan.triton.norm")
