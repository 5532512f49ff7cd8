"""Names of precisions and their dtypes, and mixed precision, for inference, training and export."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


TF32 = "let a GPU compute fp32 in TF32: faster, with 10 bits of fraction in products"
"""Help of the option ``--tf32``."""

SLOW_BFLOAT16 = "bfloat16 is slower than float32 here: the processor has no instructions for it"


def autocast(device: str | torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Autocast: run a network's matrix products and convolutions in the given precision.

    Weights and the scan's state stay float32. With "fp32" nothing changes.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, DTYPES[precision])


@contextmanager
def float32_products(*, tf32: bool = False) -> Iterator[None]:
    """Within the block, a GPU computes float32 products and convolutions in float32.

    By default PyTorch lets convolutions use TF32 there, whose factors have 10 bits of fraction
    instead of 23. Backward passes must be in the block, too. The setting is that of the process: if
    blocks overlap in several threads, TF32 is allowed only if all of them allow it. After the last
    block, PyTorch's settings are what they were before the first.

    Args:
        tf32: whether to allow TF32, in both.
    """
    with _tf32_lock:
        if not _tf32_asked:
            _tf32_before.append(tf32_settings())
        _tf32_asked.append(tf32)
        _allow_tf32()
    try:
        yield
    finally:
        with _tf32_lock:
            _tf32_asked.remove(tf32)
            if _tf32_asked:
                _allow_tf32()
            else:
                _set_tf32(_tf32_before.pop())


_tf32_lock = threading.Lock()

_tf32_asked: list[bool] = []
"""What the blocks that are running allow."""

_tf32_before: list[Tf32Settings] = []
"""PyTorch's settings before the first of them."""


class Tf32Settings(NamedTuple):
    """PyTorch's settings: the older ones, and the newer ones, which mirror them.

    The older ones are None where the newer ones are such that they have no value.
    """

    convolutions: bool | None
    products: str | None
    newer: tuple[str, ...]


def _newer() -> list[Any]:
    """The places of the newer settings, from PyTorch 2.9 on."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    return [cudnn.conv, cudnn.rnn, matmul] if hasattr(matmul, "fp32_precision") else []


def tf32_settings() -> Tf32Settings:
    """Return PyTorch's settings now."""
    convolutions = products = None
    with suppress(RuntimeError):
        convolutions = bool(torch.backends.cudnn.allow_tf32)
    with suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()
    newer = tuple(place.fp32_precision for place in _newer())
    return Tf32Settings(convolutions, products, newer)


def _set_tf32(settings: Tf32Settings) -> None:
    if settings.convolutions is not None:
        torch.backends.cudnn.allow_tf32 = settings.convolutions
    if settings.products is not None:
        torch.set_float32_matmul_precision(settings.products)
    for place, value in zip(_newer(), settings.newer, strict=True):
        place.fp32_precision = value


def _allow_tf32() -> None:
    """Allow it if all running blocks do."""
    if all(_tf32_asked):
        _set_tf32(Tf32Settings(True, "high", ("tf32",) * len(_newer())))
    else:
        _set_tf32(Tf32Settings(False, "highest", ("ieee",) * len(_newer())))


def bfloat16_is_slow(device: str | torch.device) -> bool:
    """Whether bfloat16 is slower than float32 on a device, up to 2.6 times.

    That is so on x86-64 processors that have no instructions for it (AVX512_BF16 or AMX). Of other
    processors nothing is known; the answer is False.
    """
    if torch.device(device).type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    # PyTorch has these tests, but no public names for them.
    tests = [
        getattr(torch.cpu, "_is_avx512_bf16_supported", None),
        getattr(torch.cpu, "_is_amx_tile_supported", None),
    ]
    return None not in tests and not any(test() for test in tests if test)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Turn autocast off inside, for arithmetic that must keep the dtype of its tensors."""
    # Entered only where autocast is on: a traced graph would keep the context as an operator.
    # The meta device has no autocast.
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
