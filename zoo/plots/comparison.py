"""The picture of a comparison: each variant's scores, their mean and its confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from zoo.data.images import Photo, write_photo
from zoo.evaluation.comparison import Trained, differences, interval, ranked
from zoo.plots.scan_order import text_width, write_text

LINE, WIDTH = 40, 560
"""Height of a variant's line, and width of the axis, in pixels."""

EDGE, TOP, BOTTOM = 24, 64, 56
_INK, _GRID, _DOT = (40, 40, 40), (222, 222, 222), (130, 150, 190)
_BAR, _MARKED, _BASE = (31, 119, 180), (200, 60, 30), (90, 90, 90)


def plot_comparison(variants: Sequence[Trained], reference: str, path: Path) -> None:
    """Draw scores of variants by seed, the best variant first, and write them as an image.

    Args:
        variants: the variants; at least one, each with a score.
        reference: name of the variant that the others are compared with; its mean is a dashed line.
        path: image file to write.

    Raises:
        WriteError: if the file cannot be written.
    """
    write_photo(path, Photo(render_comparison(variants, reference).astype(np.float32) / 255))


def render_comparison(variants: Sequence[Trained], reference: str) -> np.ndarray:
    """Draw the picture and return it as RGB, (H, W, 3) uint8; see :func:`plot_comparison`."""
    lines = ranked(variants)
    left = EDGE + max(text_width(variant.name) for variant in lines) + 20
    right = EDGE + text_width("+0.000 +- 0.000 *") + 20
    height = TOP + LINE * len(lines) + BOTTOM
    canvas = np.full((height, left + WIDTH + right, 3), 255, np.uint8)
    low, high = _limits(lines)

    def place(value: float) -> int:
        return round(left + WIDTH * (min(max(value, low), high) - low) / (high - low))

    write_text(canvas, "PSNR in dB: runs, mean, 95 % interval of the mean", left, 28)
    for value in _ticks(low, high):
        cv2.line(canvas, (place(value), TOP - 12), (place(value), height - BOTTOM), _GRID, 1)
        write_text(canvas, f"{value:g}", place(value) - 22, height - BOTTOM + 28)
    base = next((variant for variant in lines if variant.name == reference), None)
    if base is not None:
        middle = place(statistics.fmean(base.psnr.values()))
        for y in range(TOP - 12, height - BOTTOM, 10):
            cv2.line(canvas, (middle, y), (middle, y + 5), _BASE, 1)
        write_text(canvas, f"over {reference}"[:18], left + WIDTH + 16, 28)
    for number, variant in enumerate(lines):
        y = TOP + LINE * number + LINE // 2
        write_text(canvas, variant.name, EDGE, y + 6)
        mean, half = interval(list(variant.psnr.values()))
        apart = None if base is None else differences(variant, base)
        marked = apart is not None and apart.excludes_zero
        color = _BASE if variant is base else _MARKED if marked else _BAR
        if not math.isnan(half):
            ends = (place(mean - half), y), (place(mean + half), y)
            cv2.line(canvas, *ends, color, 2, cv2.LINE_AA)
            for x, _ in ends:
                cv2.line(canvas, (x, y - 6), (x, y + 6), color, 2, cv2.LINE_AA)
        for value in variant.psnr.values():
            cv2.circle(canvas, (place(value), y), 4, _DOT, 1, cv2.LINE_AA)
        cv2.circle(canvas, (place(mean), y), 5, color, -1, cv2.LINE_AA)
        if apart is not None and variant is not base and not math.isnan(apart.mean):
            width = "" if math.isnan(apart.half) else f" +- {apart.half:.3f}"
            text = f"{apart.mean:+.3f}{width}{' *' * marked}"
            write_text(canvas, text, left + WIDTH + 16, y + 6)
    return canvas


def _limits(variants: Sequence[Trained]) -> tuple[float, float]:
    """Return the ends of the axis: all scores and intervals, and a little room."""
    values = [value for variant in variants for value in variant.psnr.values()]
    for variant in variants:
        mean, half = interval(list(variant.psnr.values()))
        if not math.isnan(half):
            values += [mean - half, mean + half]
    room = max(0.05 * (max(values) - min(values)), 0.005)
    return min(values) - room, max(values) + room


def _ticks(low: float, high: float) -> list[float]:
    """Return round values on the axis, four to ten of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    while (high - low) / step >= 10:
        step *= 2.5 if str(step).strip("0.").startswith("2") else 2
    first = math.ceil(low / step)
    return [round(index * step, 9) for index in range(first, math.floor(high / step) + 1)]
