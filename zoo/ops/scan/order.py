"""The checks of the entries of a scan order.

On a CPU they are checked in every call: a pass over the order costs nothing beside the scan. On
another device the answer would have to be waited for, which slows down every call and cannot be
captured in a CUDA graph. There, orders are checked where they are made, and wrong ones do no harm:
a direction with a wrong entry gives NaN.

Shape suffixes: K directions, S steps; P paths, those of one image or of all. An order without a
suffix is (K, S), or (B, K, S) with an order for each of B images.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_order(order: Tensor, tokens: int) -> None:
    """Check that every entry is -1 or a token and that no direction visits a token twice.

    Waits for the device of the order. An order without values, on the device "meta" or while
    tracing, passes.

    Args:
        order: int32 tensor of K directions and S steps, (K, S), or (B, K, S) for B images.
        tokens: number L of tokens; entries run from -1 to L - 1.

    Raises:
        ValueError: if the order is wrong; the message names the first wrong entry or direction.
    """
    check_order_shape(order)
    if order.is_meta or order.numel() == 0:
        return
    order = order.clone()  # another thread may change it during the checks
    low, high = (int(entry) for entry in order.aminmax())
    if low < -1 or high >= tokens:
        place = _outside(order, tokens).nonzero()[0].tolist()
        raise ValueError(
            f"order{place} is {int(order[tuple(place)])}, outside -1..{tokens - 1} "
            f"for {tokens} tokens; was the order built for another size?"
        )
    repeated = _visits(order, high + 1) > 1
    if repeated.any():
        *place, token = repeated.nonzero()[0].tolist()
        raise ValueError(f"order{place} visits token {token} twice; a direction may visit it once")


def check_order_shape(order: Tensor, batch: int | None = None) -> None:
    """Check the dtype and the axes of an order, for ``batch`` images if that is given.

    Raises:
        ValueError: if one is wrong.
    """
    if order.dtype != torch.int32:
        raise ValueError(f"order must be int32, not {order.dtype}; use .to(torch.int32)")
    if order.dim() not in (2, 3):
        raise ValueError(f"order must be (K, S) or (B, K, S), not {tuple(order.shape)}")
    if order.dim() == 3 and batch is not None and order.shape[0] != batch:
        raise ValueError(
            f"order {tuple(order.shape)} is for {order.shape[0]} images, and there are {batch}"
        )


def without_wrong_entries(order: Tensor, tokens: int, bias_KE: Tensor) -> tuple[Tensor, Tensor]:
    """Make an order safe to follow, without waiting for its device.

    Returns:
        The order, with -1 in place of entries that are no tokens, and the bias of the step, NaN for
        directions that have such an entry or visit a token twice, in any image: their y and
        gradients become NaN.
    """
    outside = _outside(order, tokens)
    order = torch.where(outside, -1, order)
    wrong = outside.any(-1) | (_visits(order, tokens) > 1).any(-1)
    wrong_K = wrong.any(0) if wrong.dim() == 2 else wrong
    return order, bias_KE.masked_fill(wrong_K[:, None], float("nan"))


def paths_of_images(order: Tensor, images: int) -> Tensor:
    """The order of each image, (B, K, S), without copying one that all share."""
    return order if order.dim() == 3 else order.expand(images, -1, -1)


def _outside(order: Tensor, tokens: int) -> Tensor:
    # Not ">= tokens": PyTorch converts the number to int32, and it may be too large.
    return (order < -1) | (order > min(tokens - 1, torch.iinfo(torch.int32).max))


def _visits(order: Tensor, tokens: int) -> Tensor:
    """How often each path visits each of the first tokens, (K, L) or (B, K, L)."""
    visits = order.new_zeros(*order.shape[:-1], tokens + 1)
    visits.scatter_add_(-1, order.long() + 1, torch.ones_like(order))
    return visits[..., 1:]
