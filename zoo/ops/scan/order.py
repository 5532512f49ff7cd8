"""The checks of the entries of a scan order.

On a CPU they are checked in every call: a pass over the order costs nothing beside the scan. On
another device the answer would have to be waited for, which slows down every call and cannot be
captured in a CUDA graph. There, orders are checked where they are made, and wrong ones do no harm:
a direction with a wrong entry gives NaN.

Shape suffixes: K directions, S steps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_order(order_KS: Tensor, tokens: int) -> None:
    """Check that every entry is -1 or a token and that no direction visits a token twice.

    Waits for the device of the order. An order without values, on the device "meta" or while
    tracing, passes.

    Args:
        order_KS: int32 tensor of K directions and S steps.
        tokens: number L of tokens; entries run from -1 to L - 1.

    Raises:
        ValueError: if the order is wrong; the message names the first wrong entry or direction.
    """
    if order_KS.dtype != torch.int32 or order_KS.dim() != 2:
        raise ValueError(
            f"order must be an int32 tensor (K, S), not {order_KS.dtype} "
            f"{tuple(order_KS.shape)}; use .to(torch.int32)"
        )
    if order_KS.is_meta or order_KS.numel() == 0:
        return
    low, high = order_KS.aminmax()
    if low < -1 or high >= tokens:
        k, s = (int(i) for i in _outside(order_KS, tokens).nonzero()[0])
        raise ValueError(
            f"order[{k}, {s}] is {int(order_KS[k, s])}, outside -1..{tokens - 1} "
            f"for {tokens} tokens; was the order built for another size?"
        )
    repeated = _visits(order_KS, tokens) > 1
    if repeated.any():
        k, token = (int(i) for i in repeated.nonzero()[0])
        raise ValueError(f"order[{k}] visits token {token} twice; a direction may visit it once")


def without_wrong_entries(order_KS: Tensor, tokens: int, bias_KE: Tensor) -> tuple[Tensor, Tensor]:
    """Make an order safe to follow, without waiting for its device.

    Returns:
        The order, with -1 in place of entries that are no tokens, and the bias of the step, NaN for
        directions that have such an entry or visit a token twice: their y and gradients become NaN.
    """
    outside_KS = _outside(order_KS, tokens)
    order_KS = torch.where(outside_KS, -1, order_KS)
    wrong_K = outside_KS.any(1) | (_visits(order_KS, tokens) > 1).any(1)
    return order_KS, bias_KE.masked_fill(wrong_K[:, None], float("nan"))


def _outside(order_KS: Tensor, tokens: int) -> Tensor:
    return (order_KS < -1) | (order_KS >= tokens)


def _visits(order_KS: Tensor, tokens: int) -> Tensor:
    """How often each direction visits each token, (K, L)."""
    visits_KL = order_KS.new_zeros(order_KS.shape[0], tokens + 1)
    visits_KL.scatter_add_(1, order_KS.long() + 1, torch.ones_like(order_KS))
    return visits_KL[:, 1:]
