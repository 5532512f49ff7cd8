"""A weighted sum of losses.

Shape suffixes: B batch, I image channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.errors import RecipeError
from zoo.training.losses.contract import LOSSES, Loss, one_number


@LOSSES.register("sum")
class WeightedSum(Loss):
    """A weighted sum of losses.

    Args:
        losses: the losses.
        weights: the weight of each, at least 0 and not all 0; None for 1 each.
    """

    def __init__(
        self, *, losses: tuple[Loss, ...], weights: tuple[float, ...] | None = None
    ) -> None:
        super().__init__()
        if not losses:
            raise RecipeError("losses is empty; name at least one loss")
        self.losses = losses
        self.weights = (1.0,) * len(losses) if weights is None else weights
        if len(self.weights) != len(losses):
            raise RecipeError(
                f"weights has {len(self.weights)} numbers for {len(losses)} losses; give one each"
            )
        if min(self.weights) < 0 or max(self.weights) == 0:
            raise RecipeError(
                f"weights is {list(self.weights)}; each must be at least 0, and one above 0"
            )
        self.parts = nn.ModuleList(losses)

    def prepare(self, channels: int) -> None:
        for loss in self.losses:
            loss.prepare(channels)

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        terms = [
            weight * one_number(loss, loss(output_BIHW, clean_BIHW))
            for weight, loss in zip(self.weights, self.losses, strict=True)
        ]
        return torch.stack(terms).sum()
