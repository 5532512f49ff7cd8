"""Pictures of scan orders that a person understands at a glance.

Each direction is a panel: tokens are cells, the path runs from dark to bright, a ring marks the
start and a disc the end. Steps to a neighbour are thick; jumps are thin and gray.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from zoo.data.images import Photo, write_photo
from zoo.errors import ZooError
from zoo.scans.base import ScanOrder

PANEL = 460
"""Longer side of a panel's grid, in pixels."""

MARGIN = 24
TITLE = 44
PANELS_PER_ROW = 4
LARGEST = 64
NUMBERED = 12
"""Grids up to this many tokens a side show the number of each step."""

_WHITE, _GRID, _JUMP, _INK = (255, 255, 255), (226, 226, 226), (176, 176, 176), (40, 40, 40)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def plot_order(order: ScanOrder, height: int, width: int, path: str | Path) -> None:
    """Draw an order for a grid of tokens and write it as PNG.

    Args:
        order: what to draw.
        height: tokens, 1 to 64.
        width: tokens, 1 to 64.
        path: file to write.

    Raises:
        ZooError: for a grid too large to draw, or a path that cannot be written.
    """
    picture = render_order(order, height, width).astype(np.float32) / 255
    write_photo(Path(path), Photo(color_HWC=picture, alpha_HW=None, bit_depth=8))


def render_order(order: ScanOrder, height: int, width: int) -> np.ndarray:
    """Draw an order as an (H, W, 3) RGB array of uint8; see :func:`plot_order`."""
    if not (1 <= height <= LARGEST and 1 <= width <= LARGEST):
        raise ZooError(f"a grid of {height}x{width} cannot be drawn; use sizes from 1 to {LARGEST}")
    panels = [
        _panel(name, path_S.tolist(), height, width)
        for name, path_S in zip(order.directions, order.order(height, width), strict=True)
    ]
    rows = []
    columns = min(PANELS_PER_ROW, len(panels))
    for first in range(0, len(panels), columns):
        row = panels[first : first + columns]
        row += [np.full_like(panels[0], 255)] * (columns - len(row))
        rows.append(np.hstack(row))
    return np.vstack(rows)


def _panel(name: str, path: list[int], height: int, width: int) -> np.ndarray:
    cell = max(PANEL // max(height, width), 6)
    canvas_height = TITLE + height * cell + MARGIN
    canvas_width = max(width * cell, 220) + 2 * MARGIN
    canvas = np.full((canvas_height, canvas_width, 3), _WHITE, np.uint8)
    left, top = (canvas_width - width * cell) // 2, TITLE
    _draw_grid(canvas, left, top, cell, height, width)

    steps = [token for token in path if token >= 0]
    padding = len(path) - len(steps)
    title = name + (f"  (+{padding} zero tokens)" if padding else "")
    cv2.putText(canvas, title, (left, TITLE - 14), _FONT, 0.6, _INK, 1, cv2.LINE_AA)

    def centre(token: int) -> tuple[int, int]:
        return left + token % width * cell + cell // 2, top + token // width * cell + cell // 2

    pairs = list(pairwise(steps))
    # Jumps first, so that they lie beneath the path.
    for a, b in pairs:
        if not _adjacent(a, b, width):
            cv2.line(canvas, centre(a), centre(b), _JUMP, 1, cv2.LINE_AA)
    thickness = max(2, cell // 10)
    for index, (a, b) in enumerate(pairs):
        if _adjacent(a, b, width):
            color = _shade(index / max(len(pairs) - 1, 1))
            cv2.line(canvas, centre(a), centre(b), color, thickness, cv2.LINE_AA)
    for index in range(0, len(pairs), max(1, len(pairs) // 12)):
        a, b = pairs[index]
        if _adjacent(a, b, width):
            color = _shade(index / max(len(pairs) - 1, 1))
            cv2.arrowedLine(canvas, centre(a), centre(b), color, thickness, cv2.LINE_AA, 0, 0.35)
    if steps:
        radius = max(3, cell // 5)
        cv2.circle(canvas, centre(steps[-1]), radius, _shade(1.0), -1, cv2.LINE_AA)
        cv2.circle(canvas, centre(steps[0]), radius, _WHITE, -1, cv2.LINE_AA)
        cv2.circle(canvas, centre(steps[0]), radius, _shade(0.0), 2, cv2.LINE_AA)
    if max(height, width) <= NUMBERED:
        for number, token in enumerate(path):
            if token >= 0:
                x, y = centre(token)
                corner = (x - cell // 2 + 3, y - cell // 2 + 12)
                cv2.putText(canvas, str(number), corner, _FONT, 0.36, _INK, 1, cv2.LINE_AA)
    return canvas


def _draw_grid(canvas: np.ndarray, left: int, top: int, cell: int, height: int, width: int) -> None:
    right, bottom = left + width * cell, top + height * cell
    for row in range(height + 1):
        cv2.line(canvas, (left, top + row * cell), (right, top + row * cell), _GRID, 1)
    for column in range(width + 1):
        cv2.line(canvas, (left + column * cell, top), (left + column * cell, bottom), _GRID, 1)


def _adjacent(a: int, b: int, width: int) -> bool:
    return max(abs(a // width - b // width), abs(a % width - b % width)) == 1


def _shade(position: float) -> tuple[int, int, int]:
    """RGB colour of a place on the path, from 0 (start) to 1 (end)."""
    # The brightest tenth of the map is too pale on white.
    value = np.array([[round(position * 225)]], np.uint8)
    blue, green, red = (int(c) for c in cv2.applyColorMap(value, cv2.COLORMAP_PLASMA)[0, 0])
    return red, green, blue
