"""Scan order by class: tokens that a router put in the same class are read one after another.

The order depends on the image, so it is computed from the classes of the tokens, one order for each
image of a batch.

Shape suffixes: B batch, L tokens (row-major), T classes, K directions, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from zoo.errors import RecipeError
from zoo.scans.base import SCANS, ScanOrder, check_directions

DIRECTIONS = ("class", "class_reversed")


class ClassOrder(NamedTuple):
    """The order of each image, and its inverse.

    Attributes:
        order_BKS: int32; the token of each step.
        rank_BKL: int64; the step of each token.
    """

    order_BKS: Tensor
    rank_BKL: Tensor


@SCANS.register("by_class")
@dataclass(frozen=True, kw_only=True)
class ByClass(ScanOrder):
    """Tokens sorted by class; those of one class keep their row-major order (MambaIRv2, Sec. 3.3).

    Only mixers with a router can use it, such as ``attentive``.

    Args:
        directions: any of ``class``, ``class_reversed``.
    """

    directions: tuple[str, ...] = ("class",)
    by_content: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_directions(self.directions, DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        raise RecipeError(
            "the order 'by_class' depends on the image, not on its size alone; "
            "use it with a mixer that has a router, such as 'attentive'"
        )

    def of_classes(self, class_BL: Tensor, classes: int) -> ClassOrder:
        """Return the order for the class of each token.

        Args:
            class_BL: int64, class of each token, from 0 to ``classes`` - 1.
            classes: number of classes.
        """
        order_BL, rank_BL = sort_by_class(class_BL, classes)
        last = class_BL.shape[1] - 1
        orders = {"class": order_BL, "class_reversed": order_BL.flip(1)}
        ranks = {"class": rank_BL, "class_reversed": last - rank_BL}
        return ClassOrder(
            torch.stack([orders[name] for name in self.directions], dim=1),
            torch.stack([ranks[name] for name in self.directions], dim=1),
        )


def sort_by_class(class_BL: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Sort tokens by class; the sort is stable.

    Args:
        class_BL: int64, class of each token, from 0 to ``classes`` - 1.
        classes: number of classes T.

    Returns:
        ``order_BL`` (int32), the tokens in sorted order, and ``rank_BL`` (int64), the place of each
        token in it.
    """
    if torch.compiler.is_compiling():
        return _counting_sort(class_BL, classes)
    order_BL = class_BL.sort(stable=True).indices
    place_BL = torch.arange(class_BL.shape[1], device=class_BL.device).expand_as(order_BL)
    rank_BL = torch.empty_like(order_BL).scatter_(1, order_BL, place_BL)
    return order_BL.to(torch.int32), rank_BL


def _counting_sort(class_BL: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Sort by counting, with operators that every runtime has.

    A stable sort does not export to ONNX, and TensorRT sorts at most 3840 tokens.
    """
    numbers_T = torch.arange(classes, device=class_BL.device)
    is_class_BTL = (class_BL[:, None] == numbers_T[:, None]).to(torch.int32)
    # Tokens of the same class up to and including this one, and of all lower classes.
    seen_BTL = is_class_BTL.cumsum(2, dtype=torch.int32)
    count_BT = is_class_BTL.sum(2, dtype=torch.int32)
    lower_BT = count_BT.cumsum(1, dtype=torch.int32) - count_BT
    place_BTL = seen_BTL + lower_BT[:, :, None] - 1
    rank_BL = place_BTL.gather(1, class_BL[:, None])[:, 0].to(torch.int64)
    tokens_L = torch.arange(class_BL.shape[1], dtype=torch.int32, device=class_BL.device)
    order_BL = torch.zeros_like(class_BL, dtype=torch.int32)
    return order_BL.scatter(1, rank_BL, tokens_L.expand_as(class_BL)), rank_BL
