"""Two scales in one scan: coarse tokens beside the fine tokens they were pooled from (MambaCSR).

Shape suffixes: S steps, K directions; T coarse tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from zoo.errors import RecipeError
from zoo.scans.base import SCANS, ScanOrder, check_directions
from zoo.scans.raster import FOUR_DIRECTIONS
from zoo.scans.window import Window, check_window

Arrangement: TypeAlias = Literal["aligned", "sequential"]

AUTHORS_DIRECTIONS = ("row", "row_reversed", "column", "column_reversed")
"""Directions in the order in which MambaCSR stores their weights."""


@SCANS.register("cross_scale")
@dataclass(frozen=True, kw_only=True)
class CrossScale(ScanOrder):
    """Position-aligned scan of a fine grid and its half-size copy (MambaCSR, Sec. 3.4).

    Tokens are numbered ``[coarse | fine]``, both grids in row-major order. Both grids are split
    into windows, which are scanned one after another. In a window, the 2x2 fine tokens follow the
    coarse token that covers them. In a reversed direction, the coarse path and the fine path are
    each reversed before they are interleaved, so a coarse token still precedes its four fine
    tokens.

    Height and width must be multiples of ``size``; networks that fuse scales pad to it.

    Args:
        size: side of a window of the fine grid in tokens, even; the coarse window is half of that.
        directions: any of ``row`` (windows and tokens row by row), ``column`` (both column by
            column), ``row_reversed``, ``column_reversed``.
        arrangement: "aligned" interleaves the two grids as above. "sequential" scans all coarse
            tokens, then all fine tokens, each in the same order as in the aligned scan (MambaCSR,
            Table 3).
    """

    grids: ClassVar[int] = 2

    size: int = 16
    directions: tuple[str, ...] = AUTHORS_DIRECTIONS
    arrangement: Arrangement = "aligned"

    def __post_init__(self) -> None:
        if self.size < 2 or self.size % 2:
            raise RecipeError(
                f"size is {self.size}; it must be even and at least 2, because the window of the "
                "coarse grid is half of it"
            )
        check_window(self.size)
        check_directions(self.directions, FOUR_DIRECTIONS)

    def tokens(self, height: int, width: int) -> int:
        return (height // 2) * (width // 2) + height * width

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        # The network has padded a traced size, which is a symbol; a comparison would fix its value.
        if isinstance(height, int) and isinstance(width, int):
            for name, side in (("height", height), ("width", width)):
                if side % self.size:
                    raise RecipeError(
                        f"{name} is {side}; the cross_scale order with windows of {self.size} "
                        f"tokens needs a multiple of {self.size}, so pad it"
                    )
        coarse = Window(size=self.size // 2, directions=("row", "column"))
        half_width = width // 2
        near_4 = torch.arange(4, dtype=torch.int32, device=device)
        paths = {}
        for name, coarse_T, below_4, right_4 in zip(
            coarse.directions,
            coarse.build(height // 2, half_width, device),
            (near_4 // 2, near_4 % 2),
            (near_4 % 2, near_4 // 2),
            strict=True,
        ):
            y_T1, x_T1 = (coarse_T // half_width)[:, None], (coarse_T % half_width)[:, None]
            fine_T4 = (2 * y_T1 + below_4) * width + 2 * x_T1 + right_4
            fine_T4 = fine_T4 + (height // 2) * half_width
            paths[name] = self._arranged(coarse_T, fine_T4)
            paths[f"{name}_reversed"] = self._arranged(coarse_T.flip(0), fine_T4.flip(0, 1))
        return torch.stack([paths[name] for name in self.directions])

    def _arranged(self, coarse_T: Tensor, fine_T4: Tensor) -> Tensor:
        if self.arrangement == "sequential":
            return torch.cat([coarse_T, fine_T4.flatten()])
        return torch.cat([coarse_T[:, None], fine_T4], dim=1).flatten()
