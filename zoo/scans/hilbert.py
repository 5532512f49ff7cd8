"""A space-filling curve for any rectangle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions

DIRECTIONS = ("hilbert", "transposed", "hilbert_reversed", "transposed_reversed")


@SCANS.register("hilbert")
@dataclass(frozen=True, kw_only=True)
class Hilbert(ScanOrder):
    """A Hilbert-like curve: tokens near on the path are near in the image, at every scale.

    The rectangle is split into halves and quarters until they are lines. ``hilbert`` ends at the
    other end of the first row, ``transposed`` at the other end of the first column. Every step
    goes to one of the four neighbours, but for at most one diagonal step in the whole path.

    Args:
        directions: any of ``hilbert``, ``transposed``, ``hilbert_reversed``,
            ``transposed_reversed``.
    """

    directions: tuple[str, ...] = DIRECTIONS
    traceable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_directions(self.directions, DIRECTIONS)

    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        curve = [y * width + x for x, y in _fill((0, 0), (width, 0), (0, height))]
        transposed = [y * width + x for x, y in _fill((0, 0), (0, height), (width, 0))]
        paths = {
            "hilbert": torch.tensor(curve, dtype=torch.int32, device=device),
            "transposed": torch.tensor(transposed, dtype=torch.int32, device=device),
        }
        return stack_directions(paths, self.directions)


def _fill(
    start: tuple[int, int], along: tuple[int, int], across: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Yield each ``(x, y)`` of the rectangle spanned by two axis vectors, ending far ``along``."""
    (x, y), (ax, ay), (bx, by) = start, along, across
    length, breadth = abs(ax + ay), abs(bx + by)
    step_a, step_b = (_sign(ax), _sign(ay)), (_sign(bx), _sign(by))
    if breadth == 1 or length == 1:
        step, count = (step_a, length) if breadth == 1 else (step_b, breadth)
        for _ in range(count):
            yield x, y
            x, y = x + step[0], y + step[1]
        return

    half_a, half_b = (_half(ax), _half(ay)), (_half(bx), _half(by))
    if 2 * length > 3 * breadth:
        # Long: two pieces, one after the other. An even first piece ends where the next begins.
        if abs(sum(half_a)) % 2 and length > 2:
            half_a = (half_a[0] + step_a[0], half_a[1] + step_a[1])
        yield from _fill((x, y), half_a, across)
        rest = (ax - half_a[0], ay - half_a[1])
        yield from _fill((x + half_a[0], y + half_a[1]), rest, across)
        return

    # Near square: up one side, along the far side, and back down.
    if abs(sum(half_b)) % 2 and breadth > 2:
        half_b = (half_b[0] + step_b[0], half_b[1] + step_b[1])
    yield from _fill((x, y), half_b, half_a)
    rest = (bx - half_b[0], by - half_b[1])
    yield from _fill((x + half_b[0], y + half_b[1]), along, rest)
    corner = (
        x + ax - step_a[0] + half_b[0] - step_b[0],
        y + ay - step_a[1] + half_b[1] - step_b[1],
    )
    back_a = (half_a[0] - ax, half_a[1] - ay)
    yield from _fill(corner, (-half_b[0], -half_b[1]), back_a)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _half(value: int) -> int:
    """Half of a signed length, rounded down in the direction of minus infinity."""
    return value // 2
