"""Stripes, zigzags, spirals and the like, each against a construction by plain loops."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from zoo.recipe import load_recipe
from zoo.scans import (
    Dilated,
    HilbertCropped,
    ScanOrder,
    Spiral,
    Stripes,
    Window,
    Zigzag,
    ZOrder,
)

SIZES = [(h, w) for h in range(1, 11) for w in range(1, 11)]
SIZES += [(3, 20), (20, 3), (16, 16), (17, 20)]


def transposed(by_loops):
    """The construction with rows and columns exchanged."""

    def walk(height, width):
        return [(y, x) for x, y in by_loops(width, height)]

    return walk


def mirrored(by_loops):
    def walk(height, width):
        return [(y, width - 1 - x) for y, x in by_loops(height, width)]

    return walk


def turned(by_loops):
    def walk(height, width):
        return [(height - 1 - y, width - 1 - x) for y, x in by_loops(height, width)]

    return walk


def stripes(width, shift):
    def walk(rows, columns):
        edges = sorted({0, *range(shift, columns, width), columns})
        cells = []
        for number, (start, end) in enumerate(pairwise(edges)):
            for down in range(rows):
                row = down if number % 2 == 0 else rows - 1 - down
                line = [(row, column) for column in range(start, end)]
                cells += line if down % 2 == 0 or 1 < columns < shift else line[::-1]
        return cells

    return walk


def zigzag(height, width):
    cells = []
    for line in range(height + width - 1):
        cells_of_line = [(y, line - y) for y in range(height) if 0 <= line - y < width]
        cells += cells_of_line if line % 2 else cells_of_line[::-1]
    return cells


def spiral(height, width):
    """Walks and turns right wherever the next cell is outside or already visited."""
    cells, (y, x), (down, right) = [(0, 0)], (0, 0), (0, 1)
    while len(cells) < height * width:
        ahead = (y + down, x + right)
        inside = 0 <= ahead[0] < height and 0 <= ahead[1] < width
        if inside and ahead not in cells:
            y, x = ahead
            cells.append(ahead)
        else:
            down, right = right, -down
    return cells


def dilated(step):
    def walk(height, width):
        return [
            (y, x)
            for first_y in range(step)
            for first_x in range(step)
            for y in range(first_y, height, step)
            for x in range(first_x, width, step)
        ]

    return walk


def z_order(height, width, y=0, x=0, side=32):
    if y >= height or x >= width:
        return []
    if side == 1:
        return [(y, x)]
    half = side // 2
    quarters = [(y, x), (y, x + half), (y + half, x), (y + half, x + half)]
    return [cell for near in quarters for cell in z_order(height, width, *near, half)]


def hilbert(height, width):
    """Each curve is four smaller ones, the first and the last with axes exchanged."""

    def curve(side):
        if side == 1:
            return [(0, 0)]
        half, part = side // 2, curve(side // 2)
        return [
            *((x, y) for y, x in part),
            *((y + half, x) for y, x in part),
            *((y + half, x + half) for y, x in part),
            *((half - 1 - x, side - 1 - y) for y, x in part),
        ]

    side = 1
    while side < max(height, width):
        side *= 2
    return [(y, x) for y, x in curve(side) if y < height and x < width]


def windows(tall, wide, shift, *, serpentine):
    def walk(height, width):
        tops = range((shift - tall) if shift else 0, height, tall)
        lefts = range((shift - wide) if shift else 0, width, wide)
        cells = []
        for number, top in enumerate(tops):
            backward = serpentine and number % 2
            for left in reversed(lefts) if backward else lefts:
                for row in range(tall):
                    columns = range(wide)
                    if serpentine and row % 2:
                        columns = reversed(columns)
                    cells += [(top + row, left + column) for column in columns]
        inside = [0 <= y < height and 0 <= x < width for y, x in cells]
        return [cell if ok else None for cell, ok in zip(cells, inside, strict=True)]

    return walk


def of_columns(tall, wide, shift, *, serpentine):
    by_rows = windows(wide, tall, shift, serpentine=serpentine)

    def walk(height, width):
        return [cell and (cell[1], cell[0]) for cell in by_rows(width, height)]

    return walk


def striped(width, shift):
    walk = stripes(width, shift)
    across = transposed(walk)
    return {
        "stripe": walk,
        "stripe_turned": turned(walk),
        "transposed": across,
        "transposed_turned": turned(across),
    }


def windowed(*settings, serpentine):
    return {
        "row": windows(*settings, serpentine=serpentine),
        "column": of_columns(*settings, serpentine=serpentine),
    }


CASES = [
    *((Stripes(width=w, shift=s), striped(w, s)) for w, s in ((4, 0), (4, 2), (8, 4), (1, 0))),
    (Zigzag(), {"diagonal": zigzag, "antidiagonal": mirrored(zigzag)}),
    (Spiral(), {"clockwise": spiral, "anticlockwise": transposed(spiral)}),
    (Dilated(step=3), {"row": dilated(3), "column": transposed(dilated(3))}),
    (ZOrder(), {"row": z_order, "column": transposed(z_order)}),
    (HilbertCropped(), {"hilbert": hilbert, "transposed": transposed(hilbert)}),
    (Window(size=4, shift=1), windowed(4, 4, 1, serpentine=False)),
    (Window(size=(2, 5)), windowed(2, 5, 0, serpentine=False)),
    (
        Window(size=(3, 4), shift=2, serpentine=True),
        windowed(3, 4, 2, serpentine=True),
    ),
]


@pytest.mark.parametrize(
    ("order", "by_loops"), CASES, ids=lambda v: "" if isinstance(v, dict) else repr(v)[:60]
)
def test_orders_equal_a_construction_by_loops(order: ScanOrder, by_loops):
    for height, width in SIZES:
        found = order.order(height, width).tolist()
        for name, path in zip(order.directions, found, strict=True):
            cells = by_loops[name.removesuffix("_reversed")](height, width)
            expected = [-1 if cell is None else cell[0] * width + cell[1] for cell in cells]
            assert path == (expected[::-1] if name.endswith("_reversed") else expected)


# From the specification of MaIR: size, width, shift, direction, path.
LISTED = """
3 7 4 0 stripe 0 1 2 3 10 9 8 7 14 15 16 17 18 19 20 13 12 11 4 5 6
3 7 4 0 transposed 0 7 14 15 8 1 2 9 16 17 10 3 4 11 18 19 12 5 6 13 20
3 7 4 2 stripe 0 1 8 7 14 15 16 17 18 19 12 11 10 9 2 3 4 5 6 13 20
3 7 4 2 transposed 0 7 8 1 2 9 10 3 4 11 12 5 6 13 20 19 18 17 16 15 14
2 5 4 2 stripe 0 1 6 5 7 8 9 4 3 2
2 5 4 2 stripe_turned 9 8 3 4 2 1 0 5 6 7
2 5 4 2 transposed 0 5 6 1 2 7 8 3 4 9
2 5 4 2 transposed_turned 9 4 3 8 7 2 1 6 5 0
3 5 8 4 transposed 0 5 10 1 6 11 2 7 12 3 8 13 4 9 14
"""


@pytest.mark.parametrize("line", LISTED.strip().splitlines())
def test_stripes_equal_the_paths_of_the_authors_code(line):
    height, width, stripe, shift, name, *path = line.split()
    order = Stripes(width=int(stripe), shift=int(shift), directions=(name,))
    assert order.order(int(height), int(width)).tolist() == [list(map(int, path))]


def test_a_turned_stripe_is_not_the_reversed_one():
    names = ("stripe_turned", "stripe_reversed")
    turned_S, reversed_S = Stripes(directions=names).order(3, 7)
    assert turned_S.tolist() != reversed_S.tolist()


def test_zigzags_and_spirals_step_to_a_neighbour():
    for height, width in SIZES:
        for order, farthest in ((Zigzag(), 2), (Spiral(), 1)):
            for path in order.order(height, width).tolist():
                for a, b in pairwise(path):
                    down, right = a // width - b // width, a % width - b % width
                    assert down * down + right * right <= farthest


def test_a_window_of_a_recipe_may_have_two_sides():
    scans = [{"type": "window", "size": [4, 8], "shift": 2, "serpentine": True}]
    recipe = {"network": {"type": "single_image", "dim": 32, "depths": [1], "scans": scans}}
    assert json.loads(json.dumps(load_recipe(recipe).network["scans"])) == scans
