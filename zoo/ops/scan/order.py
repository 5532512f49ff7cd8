"""The check of a scan order: done once per tensor, so that kernels need no clamps of their own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_checked: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Order tensors already checked, each with the version and token count it was checked for."""

_UNCOUNTED = -1
"""Stands for the version of a tensor made in inference mode: its changes are not counted."""


def check_order(order_KS: Tensor, tokens: int) -> None:
    """Raise unless every entry is -1 or a token, and no direction visits a token twice.

    A tensor that has passed is remembered for as long as it lives unchanged: the check waits for
    the device, which would slow every call and cannot be captured in a CUDA graph. A tensor made in
    inference mode is remembered too, and PyTorch does not count its changes: do not write into it.

    Args:
        order_KS: int32 tensor of K directions and S steps.
        tokens: number L of tokens; entries run from -1 to L - 1.

    Raises:
        ValueError: naming the first direction and step at fault.
    """
    if order_KS.is_meta:
        return
    stamp = (_UNCOUNTED if order_KS.is_inference() else order_KS._version, tokens)
    if _checked.get(order_KS) == stamp:
        return
    _validate(order_KS, tokens)
    _checked[order_KS] = stamp


def _validate(order_KS: Tensor, tokens: int) -> None:
    if order_KS.dtype != torch.int32 or order_KS.dim() != 2:
        raise ValueError(
            f"order must be an int32 tensor (K, S), not {order_KS.dtype} "
            f"{tuple(order_KS.shape)}; use .to(torch.int32)"
        )
    outside = (order_KS < -1) | (order_KS >= tokens)
    if outside.any():
        k, s = (int(i) for i in outside.nonzero()[0])
        raise ValueError(
            f"order[{k}, {s}] is {int(order_KS[k, s])}, outside -1..{tokens - 1} "
            f"for {tokens} tokens; was the order built for another size?"
        )
    for k, path_S in enumerate(order_KS):
        visits = torch.bincount(path_S[path_S >= 0], minlength=tokens)
        if (visits > 1).any():
            token = int(visits.argmax())
            raise ValueError(
                f"order[{k}] visits token {token} twice; a direction may visit it once"
            )
