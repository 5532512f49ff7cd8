"""Plots of scan orders.

Each direction has a panel. Its path changes colour from dark (start) to bright (end). Steps to a
neighbour are thick, with arrowheads; jumps are thin and gray. Small grids show every token as a
disc with the number of its step; the first and the last disc are filled. Larger grids show the
start as a ring and the end as a disc. An order of two grids is drawn on the fine grid, with each
coarse token between the four fine tokens it covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from zoo.data.images import Photo, write_photo
from zoo.errors import ZooError
from zoo.scans import ScanOrder

PANEL = 480
"""Longer side of a panel's grid in pixels; it is larger if cells would be too small."""

CELLS = (11, 96)
"""Smallest and largest side of a cell in pixels."""

MARGIN = 24
TITLE = 44
PANELS_PER_ROW = 4
LARGEST = 64
NUMBERED = 12
"""Grids of up to this many tokens per side show the number of each step."""

ARROWS = 40
"""Largest number of arrowheads in a panel."""

WHITE, _GRID, _JUMP, _INK = (255, 255, 255), (226, 226, 226), (176, 176, 176), (40, 40, 40)
_FONT, _TITLE_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.6
_SUBPIXEL = 4
"""Number of fractional bits in the coordinates for OpenCV."""

Color = tuple[int, int, int]


def plot_order(order: ScanOrder, height: int, width: int, path: str | Path) -> None:
    """Draw a scan order and write it as an image; the format follows from the file's extension.

    Args:
        order: the scan order.
        height: height of the grid in tokens, 1 to 64.
        width: width of the grid in tokens, 1 to 64.
        path: image file to write.

    Raises:
        ZooError: if the grid is too large, or the file cannot be written.
    """
    picture = render_order(order, height, width).astype(np.float32) / 255
    write_photo(Path(path), Photo(color_HWC=picture, alpha_HW=None, bit_depth=8))


def render_order(order: ScanOrder, height: int, width: int) -> np.ndarray:
    """Draw a scan order and return it as RGB, (H, W, 3) uint8; see :func:`plot_order`."""
    if not (1 <= height <= LARGEST and 1 <= width <= LARGEST):
        raise ZooError(f"a grid of {height}x{width} cannot be drawn; use sizes from 1 to {LARGEST}")
    paths = order.order(height, width).tolist()
    titles = [_title(name, path) for name, path in zip(order.directions, paths, strict=True)]
    cell = int(np.clip(PANEL // max(height, width), *CELLS))
    inner = max(width * cell, *(text_width(title) for title in titles))
    panels = []
    for title, path in zip(titles, paths, strict=True):
        canvas = np.full((TITLE + height * cell + MARGIN, inner + 2 * MARGIN, 3), WHITE, np.uint8)
        write_text(canvas, title, MARGIN, TITLE - 16)
        coarse = order.tokens(height, width) - height * width
        Panel(
            canvas, left=MARGIN, top=TITLE, cell=cell, height=height, width=width, coarse=coarse
        ).draw(path)
        panels.append(canvas)
    columns = min(PANELS_PER_ROW, len(panels))
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % columns)
    return np.vstack([np.hstack(panels[i : i + columns]) for i in range(0, len(panels), columns)])


@dataclass(frozen=True)
class Panel:
    """The grid of one direction on a canvas; its upper left corner is at (left, top)."""

    canvas: np.ndarray
    left: int
    top: int
    cell: int
    height: int
    width: int
    coarse: int
    """Number of coarse tokens; they are numbered before the fine ones."""

    def draw(self, path: list[int]) -> None:
        self._draw_grid()
        steps = [(number, token) for number, token in enumerate(path) if token >= 0]
        shades = {token: shade(i / max(len(steps) - 1, 1)) for i, (_, token) in enumerate(steps)}
        pairs = list(pairwise(token for _, token in steps))
        # Draw jumps first, so that they are below the path.
        for a, b in pairs:
            if not self._adjacent(a, b):
                cv2.line(self.canvas, self._centre(a), self._centre(b), _JUMP, 1, cv2.LINE_AA)
        walked = [pair for pair in pairs if self._adjacent(*pair)]
        thickness = int(np.clip(self.cell // 10, 2, 5))
        for a, b in walked:
            ends = self._centre(a), self._centre(b)
            cv2.line(self.canvas, *ends, shades[a], thickness, cv2.LINE_AA)
        numbered = max(self.height, self.width) <= NUMBERED
        for a, b in walked if numbered else self._middles_of_runs(pairs):
            self._draw_arrowhead(a, b, shades[a], 0.11 if numbered else 0.32)
        if numbered:
            for number, token in steps:
                is_end = token in (steps[0][1], steps[-1][1])
                small = token < self.coarse
                self._draw_numbered(token, number, shades[token], filled=is_end, small=small)
        else:
            self._draw_ends(steps[0][1], steps[-1][1], shades)

    def _draw_grid(self) -> None:
        right, bottom = self.left + self.width * self.cell, self.top + self.height * self.cell
        for y in range(self.top, bottom + 1, self.cell):
            cv2.line(self.canvas, (self.left, y), (right, y), _GRID, 1)
        for x in range(self.left, right + 1, self.cell):
            cv2.line(self.canvas, (x, self.top), (x, bottom), _GRID, 1)

    def _draw_arrowhead(self, a: int, b: int, color: Color, size: float) -> None:
        """Draw a triangle on the middle of a step; ``size`` is half its length in cells."""
        start, end = np.array(self._centre(a), float), np.array(self._centre(b), float)
        forward = (end - start) / np.linalg.norm(end - start) * self.cell * size
        sideways = forward[::-1] * (-1, 1)
        middle = (start + end) / 2
        corners = [middle + forward, middle - forward + sideways, middle - forward - sideways]
        points = np.round(np.array(corners) * 2**_SUBPIXEL).astype(np.int32)
        cv2.fillConvexPoly(self.canvas, points, color, cv2.LINE_AA, _SUBPIXEL)

    def _draw_numbered(
        self, token: int, number: int, color: Color, *, filled: bool, small: bool
    ) -> None:
        radius = self.cell * (22 if small else 35) // 100
        self._draw_disc(token, radius, color if filled else WHITE, color)
        text, scale = str(number), radius / 36
        (text_width, text_height), _ = cv2.getTextSize(text, _FONT, scale, 1)
        x, y = self._centre(token)
        ink = WHITE if filled and sum(color) < 384 else _INK
        place = x - text_width // 2, y + text_height // 2
        cv2.putText(self.canvas, text, place, _FONT, scale, ink, 1, cv2.LINE_AA)

    def _draw_ends(self, start: int, end: int, shades: dict[int, Color]) -> None:
        radius = max(4, self.cell // 4)
        self._draw_disc(end, radius, shades[end], shades[end])
        self._draw_disc(start, radius, WHITE, shades[start])

    def _draw_disc(self, token: int, radius: int, fill: Color, border: Color) -> None:
        cv2.circle(self.canvas, self._centre(token), radius, fill, -1, cv2.LINE_AA)
        cv2.circle(self.canvas, self._centre(token), radius, border, 2, cv2.LINE_AA)

    def _middles_of_runs(self, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the middle step of every straight run, or of every n-th run if there are many."""
        runs: list[list[tuple[int, int]]] = []
        direction = None
        for a, b in pairs:
            if not self._adjacent(a, b):
                direction = None
            elif direction == b - a:
                runs[-1].append((a, b))
            else:
                direction = b - a
                runs.append([(a, b)])
        return [run[len(run) // 2] for run in runs[:: -(-len(runs) // ARROWS) or 1]]

    def _centre(self, token: int) -> tuple[int, int]:
        if token < self.coarse:
            y, x = divmod(token, self.width // 2)
            return self.left + (2 * x + 1) * self.cell, self.top + (2 * y + 1) * self.cell
        y, x = divmod(token - self.coarse, self.width)
        half = self.cell // 2
        return self.left + x * self.cell + half, self.top + y * self.cell + half

    def _adjacent(self, a: int, b: int) -> bool:
        (ax, ay), (bx, by) = self._centre(a), self._centre(b)
        return max(abs(ay - by), abs(ax - bx)) <= self.cell


def _title(name: str, path: list[int]) -> str:
    padding = path.count(-1)
    return f"{name}  (+{padding} zero tokens)" if padding else name


def text_width(text: str) -> int:
    """Return the width of a title in pixels."""
    return cv2.getTextSize(text, _FONT, _TITLE_SCALE, 1)[0][0]


def write_text(canvas: np.ndarray, text: str, x: int, y: int) -> None:
    """Write a title whose lower left corner is at (x, y)."""
    cv2.putText(canvas, text, (x, y), _FONT, _TITLE_SCALE, _INK, 1, cv2.LINE_AA)


@cache
def _palette() -> np.ndarray:
    """Return the 256 RGB colours of the plasma colour map, (256, 3) uint8."""
    values = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.applyColorMap(values, cv2.COLORMAP_PLASMA).reshape(256, 3)[:, ::-1]


def shade(position: float) -> Color:
    """Return the RGB colour at a position on the path, from 0 (start) to 1 (end)."""
    # The brightest tenth of the colour map is too pale on white.
    red, green, blue = _palette()[round(position * 225)].tolist()
    return red, green, blue
