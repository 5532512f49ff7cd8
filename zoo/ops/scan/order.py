"""The check of a scan order. It runs once per tensor, so that kernels need not check entries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_checked: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Order tensors already checked, each with its version and token count at that time."""

_UNCOUNTED = -1
"""Used as the version of a tensor made in inference mode, whose changes PyTorch does not count."""


def check_order(order_KS: Tensor, tokens: int) -> None:
    """Check that every entry is -1 or a token and that no direction visits a token twice.

    A tensor that has passed is not checked again until it changes. The check waits for the device,
    which would slow down every call and cannot be captured in a CUDA graph. PyTorch does not count
    changes of tensors made in inference mode: do not write into them after the check.

    Args:
        order_KS: int32 tensor of K directions and S steps.
        tokens: number L of tokens; entries run from -1 to L - 1.

    Raises:
        ValueError: if the order is wrong; the message names the first wrong entry or direction.
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
