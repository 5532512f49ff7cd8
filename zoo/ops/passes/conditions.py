"""Where passes run: on ordinary tensors, if nothing watches the operators of PyTorch."""

from __future__ import annotations

import functools
import os

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from zoo.ops.passes.library import has_half_products, library
from zoo.ops.passes.self_check import passes_are_right
from zoo.ops.scan.checks import check_memory

ENVIRONMENT = "ZOO_CPU_PASSES"


def switched_off() -> bool:
    """Whether the user wants no passes."""
    return os.environ.get(ENVIRONMENT) == "0"


def may_run(*tensors: Tensor | None) -> bool:
    """Whether a pass may run on these tensors now.

    Raises:
        ValueError: if a tensor's memory was given back.
    """
    if torch.compiler.is_compiling() or is_watched():
        return False
    if switched_off() or library() is None or not passes_are_right():
        return False
    dtypes = {torch.float32}
    if torch.is_autocast_enabled("cpu"):
        if not products_are_half() or needs_gradient(*tensors):
            return False
        dtypes.add(torch.bfloat16)
    for tensor in tensors:
        if tensor is not None and not (is_ordinary(tensor) and tensor.dtype in dtypes):
            return False
    check_memory(tensors)
    return True


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether the gradient of one of the tensors is recorded now."""
    if not torch.is_grad_enabled():
        return False
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def products_are_half() -> bool:
    """Whether autocast asks for products of bfloat16 now, which passes then compute."""
    if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return False
    return _half_products_are_fast()


@functools.cache
def _half_products_are_fast() -> bool:
    """Whether this CPU has the instruction that passes use, and none that is faster."""
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return has_half_products() and not has_tiles()


def is_watched() -> bool:
    """Whether something must see the operators of PyTorch."""
    return (
        torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or (torch._C._len_torch_function_stack() > 0 and not _only_say_cpu())
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def _only_say_cpu() -> bool:
    """Whether all modes are those of ``torch.set_default_device("cpu")``, which change nothing."""
    return all(
        isinstance(mode, DeviceContext) and mode.device.type == "cpu"
        for mode in _get_current_function_mode_stack()
    )


def is_ordinary(tensor: Tensor, device: str = "cpu") -> bool:
    """Whether a tensor is nothing but dense numbers in the memory of a kind of device."""
    return (
        (type(tensor) is Tensor or type(tensor) is Parameter)
        and tensor.device.type == device
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and tensor.numel() > 0
    )
