"""Training losses, as parts that recipes choose by name."""

from __future__ import annotations

from zoo.training.losses.contract import LOSSES, Loss, one_number
from zoo.training.losses.luma import Luma
from zoo.training.losses.perceptual import Perceptual
from zoo.training.losses.pixel import (
    L1,
    Charbonnier,
    CharbonnierBasicSR,
    Fourier,
    NegativePSNR,
)
from zoo.training.losses.scales import largest, loss_of_scales
from zoo.training.losses.weighted_sum import WeightedSum

__all__ = [
    "L1",
    "LOSSES",
    "Charbonnier",
    "CharbonnierBasicSR",
    "Fourier",
    "Loss",
    "Luma",
    "NegativePSNR",
    "Perceptual",
    "WeightedSum",
    "largest",
    "loss_of_scales",
    "one_number",
]
