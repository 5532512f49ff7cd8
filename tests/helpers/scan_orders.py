"""Sizes, cross-scale orders and the authors' lists, for the tests of scan orders."""

from __future__ import annotations

import json
from pathlib import Path

from zoo.scans import CrossScale

CROSS_SCALES = [
    CrossScale(size=2),
    CrossScale(size=6, directions=("column_reversed", "row")),
    CrossScale(size=16),
    CrossScale(size=4, arrangement="sequential"),
]
SIZES = [(h, w) for h in range(1, 21) for w in range(1, 21)]
AUTHORS_NAMES = {
    "w": "row",
    "w_flip": "row_reversed",
    "c_w": "column",
    "c_w_flip": "column_reversed",
}
OFFICIAL = json.loads((Path(__file__).parent.parent / "official" / "scan_indices.json").read_text())


def sizes_of(order):
    """All sizes up to 20 x 20 that an order is defined on, and one that is far from square."""
    if not isinstance(order, CrossScale):
        return SIZES
    defined = [(h, w) for h, w in SIZES if h % order.size == w % order.size == 0]
    return [*defined, (order.size, 3 * order.size), (3 * order.size, 2 * order.size)]
