"""Parts of the figures of :mod:`zoo.analysis`: panels with a title, heat maps, colour bars, curves.

Shape suffixes: H height, W width in pixels, C 3 colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np

from zoo.plots.scan_order import MARGIN, TITLE, WHITE, text_width, write_text

PANEL = 320
"""Longer side of a panel in pixels, about; pixels of the image are repeated a whole number of
times."""

Map: TypeAlias = Literal["dark", "light"]
"""Colours of a heat map: from nearly black to bright yellow, or from white to dark red."""

CURVES = (
    (31, 119, 180),
    (214, 39, 40),
    (44, 160, 44),
    (255, 127, 14),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (90, 90, 90),
)
"""Colours of curves, in turn."""

_INK, _GRID, _FRAME = (40, 40, 40), (225, 225, 225), (170, 170, 170)
_BAR, _GAP = 16, 10
_SMALL = 0.45


def heat(value_HW: np.ndarray, *, decades: float = 0.0, colors: Map = "dark") -> np.ndarray:
    """Return the colours (H, W, 3) uint8 of values relative to their largest one.

    Args:
        value_HW: values of at least 0; where all are 0, all pixels get the lowest colour.
        decades: 0 for linear colours from 0; else logarithmic ones from the largest value down to
            that many powers of ten less.
        colors: the colour map.
    """
    largest = float(value_HW.max())
    share_HW = value_HW / largest if largest > 0 else np.zeros_like(value_HW)
    if decades:
        floor = 10.0**-decades
        share_HW = np.log10(np.maximum(share_HW, floor)) / decades + 1
    return _colors(colors)[np.round(np.clip(share_HW, 0, 1) * 255).astype(int)]


def _colors(colors: Map) -> np.ndarray:
    """Return 256 RGB colours, (256, 3) uint8."""
    ramp = np.linspace(0, 1, 256)
    if colors == "dark":
        levels = np.arange(256, dtype=np.uint8)[:, None]
        found = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO).reshape(256, 3)[:, ::-1]
        return np.ascontiguousarray(found)
    stops = np.array([[255, 255, 255], [253, 212, 194], [251, 106, 74], [165, 15, 21]], float)
    places = [0, 0.25, 0.6, 1]
    mixed = [np.interp(ramp, places, stops[:, c]) for c in range(3)]
    return np.stack(mixed, 1).round().astype(np.uint8)


def enlarged(pixels_HWC: np.ndarray, longer: int = PANEL) -> np.ndarray:
    """Repeat pixels so that the longer side has about ``longer`` pixels, or shrink to it."""
    height, width = pixels_HWC.shape[:2]
    if max(height, width) > 2 * longer:
        factor = longer / max(height, width)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        return cv2.resize(pixels_HWC, size, interpolation=cv2.INTER_AREA)
    factor = max(1, round(longer / max(height, width)))
    return np.repeat(np.repeat(pixels_HWC, factor, 0), factor, 1)


def framed(
    pixels_HWC: np.ndarray, title: str, below: Sequence[str] = (), *, beside: Bar | None = None
) -> np.ndarray:
    """Return a panel: pixels in a thin frame, a title above, lines of text below, a bar beside."""
    height, width = pixels_HWC.shape[:2]
    bar = np.zeros((height, 0, 3), np.uint8) if beside is None else beside.drawn(height)
    inner = max(width + bar.shape[1], text_width(title), *(small_width(line) for line in below), 1)
    space = 22 * len(below)
    canvas = np.full((TITLE + height + MARGIN + space, inner + 2 * MARGIN, 3), WHITE, np.uint8)
    write_text(canvas, title, MARGIN, TITLE - 16)
    canvas[TITLE : TITLE + height, MARGIN : MARGIN + width] = pixels_HWC
    canvas[TITLE : TITLE + height, MARGIN + width : MARGIN + width + bar.shape[1]] = bar
    corners = (MARGIN - 1, TITLE - 1), (MARGIN + width, TITLE + height)
    cv2.rectangle(canvas, *corners, _FRAME, 1)
    for number, line in enumerate(below):
        write_small(canvas, line, MARGIN, TITLE + height + 20 + 22 * number)
    return canvas


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A colour bar with numbers.

    Attributes:
        decades: powers of ten that it covers, down from 1; 0 for linear colours from 0 to 1.
        colors: the colour map.
    """

    decades: int = 0
    colors: Map = "dark"

    def drawn(self, height: int) -> np.ndarray:
        """Return the bar as pixels of this height."""
        marks = [(0.0, "1"), (1.0, "0")]
        if self.decades:
            powers = range(1, self.decades + 1)
            marks = [(0.0, "1"), *((power / self.decades, f"1e-{power}") for power in powers)]
        room = _GAP + _BAR + 6 + max(small_width(text) for _, text in marks)
        bar = np.full((height, room, 3), WHITE, np.uint8)
        ramp = _colors(self.colors)[np.linspace(255, 0, height).round().astype(int)]
        bar[:, _GAP : _GAP + _BAR] = ramp[:, None]
        for place, text in marks:
            y = min(max(round(place * (height - 1)) + 5, 11), height - 2)
            write_small(bar, text, _GAP + _BAR + 6, y)
        return bar


def in_rows(panels: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Put panels side by side in rows; smaller ones are filled up with white."""
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    drawn = []
    for row in rows:
        tall = max(len(panel) for panel in row)
        drawn.append(np.hstack([_filled(panel, tall, panel.shape[1]) for panel in row]))
    wide = max(row.shape[1] for row in drawn)
    return np.vstack([_filled(row, len(row), wide) for row in drawn])


def _filled(panel: np.ndarray, height: int, width: int) -> np.ndarray:
    room = [(0, height - panel.shape[0]), (0, width - panel.shape[1]), (0, 0)]
    return np.pad(panel, room, constant_values=255)


def fitted(pixels_HWC: np.ndarray, to_HWC: np.ndarray) -> np.ndarray:
    """Return pixels in the size of a panel, without smoothing."""
    size = to_HWC.shape[1], to_HWC.shape[0]
    return cv2.resize(pixels_HWC, size, interpolation=cv2.INTER_NEAREST)


def marked(pixels_HWC: np.ndarray, top: int, left: int, side: int, of: int) -> np.ndarray:
    """Draw a red square around pixels of an image that was enlarged to ``pixels_HWC``.

    Args:
        pixels_HWC: the enlarged image.
        top: first row of the square, in pixels of the original image.
        left: first column of the square.
        side: side of the square.
        of: height of the original image.
    """
    factor = len(pixels_HWC) / of
    first = round(left * factor) - 1, round(top * factor) - 1
    last = round((left + side) * factor), round((top + side) * factor)
    return cv2.rectangle(pixels_HWC.copy(), first, last, (220, 30, 30), 2)


def curves(
    title: str,
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    x_title: str,
    width: int = 2 * PANEL,
    height: int = PANEL,
) -> np.ndarray:
    """Draw curves from 0 to 1 over distances, on a logarithmic axis, with a legend.

    Args:
        title: title above.
        lines: for each name, distances from 1 and values.
        x_title: name of the axis.
        width: width of the axes in pixels.
        height: height of the axes in pixels.
    """
    left, bottom = 48, 52
    room = 48 + max(map(small_width, lines), default=0) + MARGIN
    canvas = np.full((TITLE + height + bottom, left + width + room, 3), WHITE, np.uint8)
    write_text(canvas, title, left, TITLE - 16)
    last = max((float(x[-1]) for x, _ in lines.values() if len(x)), default=1.0)
    span = max(math.log10(last), 1e-9)

    def place(x: float, y: float) -> tuple[int, int]:
        right = left + round(width * math.log10(max(x, 1)) / span)
        return right, TITLE + round(height * (1 - y))

    for quarter in range(5):
        y = place(1, quarter / 4)[1]
        cv2.line(canvas, (left, y), (left + width, y), _GRID, 1)
        write_small(canvas, f"{quarter / 4:g}", 10, y + 5)
    for power in range(int(span) + 1):
        x = place(10**power, 0)[0]
        cv2.line(canvas, (x, TITLE), (x, TITLE + height), _GRID, 1)
        write_small(canvas, f"{10**power}", x - 8, TITLE + height + 20)
    write_small(canvas, x_title, left + width // 2 - small_width(x_title) // 2, len(canvas) - 8)
    for number, (name, (distances, values)) in enumerate(lines.items()):
        color = CURVES[number % len(CURVES)]
        corners = np.array(
            [place(*point) for point in zip(distances, values, strict=True)], np.int32
        )
        if len(corners):
            cv2.polylines(canvas, [corners], False, color, 2, cv2.LINE_AA)
        at = TITLE + 14 + 24 * number
        cv2.line(canvas, (left + width + 16, at), (left + width + 40, at), color, 3, cv2.LINE_AA)
        write_small(canvas, name, left + width + 48, at + 5)
    return canvas


def write_small(canvas: np.ndarray, text: str, x: int, y: int) -> None:
    """Write a line of small text whose lower left corner is at (x, y)."""
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, _SMALL, _INK, 1, cv2.LINE_AA)


def small_width(text: str) -> int:
    """Return the width of small text in pixels."""
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _SMALL, 1)[0][0]
