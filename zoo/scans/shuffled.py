"""Random scan orders: the control experiment for claims about scan orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zoo.errors import RecipeError
from zoo.scans.base import SCANS, ScanOrder

MOST_DIRECTIONS = 64
"""Largest number of directions; each has an order of its own for every size of image."""


@SCANS.register("shuffled")
@dataclass(frozen=True, kw_only=True)
class Shuffled(ScanOrder):
    """A random permutation for each direction, determined by the seed and the size.

    Args:
        seed: random seed of the permutations, from 0 to 2**64 - 1.
        count: number of directions K.
    """

    seed: int = 0
    count: int = 4
    traceable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise RecipeError(f"count is {self.count}; it must be at least 1")
        if self.count > MOST_DIRECTIONS:
            raise RecipeError(f"count is {self.count}; it must be at most {MOST_DIRECTIONS}")
        if not 0 <= self.seed < 2**64:
            raise RecipeError(f"seed is {self.seed}; it must be from 0 to 2**64 - 1")

    @property
    def directions(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"shuffle_{index}" for index in range(self.count))

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        paths = [torch.randperm(height * width, generator=generator) for _ in range(self.count)]
        return torch.stack(paths).to(torch.int32).to(device)
