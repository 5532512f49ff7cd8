"""Several scan orders combined into one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import RecipeError
from zoo.scans.base import SCANS, ScanOrder


@SCANS.register("compose")
@dataclass(frozen=True, kw_only=True)
class Compose(ScanOrder):
    """All directions of several orders; shorter paths are padded with zero tokens.

    Args:
        orders: the scan orders. The directions are named ``0.row``, ``1.diagonal`` and so on.
    """

    orders: tuple[ScanOrder, ...]

    def __post_init__(self) -> None:
        if not self.orders:
            raise RecipeError("orders is empty; name at least one scan order")
        for index, order in enumerate(self.orders):
            if order.grids != 1:
                raise RecipeError(
                    f"orders[{index}] scans {order.grids} grids; compose needs orders of one grid"
                )
            if order.by_content:
                raise RecipeError(
                    f"orders[{index}] is {type(order).__name__}, which depends on the image; "
                    "compose needs orders that depend on the size alone"
                )

    @property
    def directions(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(
            f"{index}.{name}"
            for index, order in enumerate(self.orders)
            for name in order.directions
        )

    @property
    def traceable(self) -> bool:  # type: ignore[override]
        return all(order.traceable for order in self.orders)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        built = [order.build(height, width, device) for order in self.orders]
        steps = built[0].shape[1]
        for order_KS in built[1:]:
            steps = torch.sym_max(steps, order_KS.shape[1])
        return torch.cat([F.pad(o, (0, steps - o.shape[1]), value=-1) for o in built])
