"""Plots of training runs: loss and validation PSNR in one picture."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from zoo.command import run_command
from zoo.data.images import Photo, write_photo
from zoo.errors import ZooError
from zoo.plots.figure import CURVES
from zoo.training.metrics_log import METRICS, read_metrics

WIDTH, HEIGHT = 760, 440
"""Size of a panel in pixels."""

LEFT, RIGHT, TOP, BOTTOM = 84, 20, 48, 52
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _GRID = (40, 40, 40), (225, 225, 225)

PANELS = (
    ("loss", "loss"),
    ("discriminator", "loss of the discriminator"),
    ("psnr", "PSNR in validation, dB"),
)
"""Values of the log that are drawn, with their titles; those that no run has are left out."""

Points = list[tuple[float, float]]


def plot_runs(folders: Sequence[str | Path], path: str | Path) -> None:
    """Draw loss and PSNR of several runs and write them as an image, such as PNG.

    Args:
        folders: folders of runs, each with ``metrics.jsonl``.
        path: image file to write; the format follows from its extension.

    Raises:
        ZooError: if a folder has no run, or the file cannot be written.
    """
    write_photo(Path(path), Photo(render_runs(folders).astype(np.float32) / 255))


def render_runs(folders: Sequence[str | Path]) -> np.ndarray:
    """Draw the curves and return them as RGB, (H, W, 3) uint8; see :func:`plot_runs`."""
    runs = {}
    names = [folder.name for folder in map(Path, folders)]
    for folder in map(Path, folders):
        lines = read_metrics(folder)
        if not lines and (folder / METRICS).is_file() and not (folder / METRICS).stat().st_size:
            raise ZooError(f"{folder / METRICS} is empty; the run has not logged anything yet")
        if not lines:
            raise ZooError(
                f"{folder}: no run here; give a folder with {METRICS}, such as runs/NAME"
            )
        runs[folder.name if names.count(folder.name) == 1 else str(folder)] = lines
    panels = []
    for key, title in PANELS:
        curves: dict[str, Points] = {}
        for name, lines in runs.items():
            points = [(line["step"], line[key]) for line in lines if _is_drawn(line.get(key))]
            if points:
                curves[name] = points
        if curves:
            panels.append(_panel(title, curves, logarithmic=key == "loss"))
    if not panels:
        raise ZooError(f"{folders[0]}: the run has not logged anything yet")
    return np.hstack(panels)


def _is_drawn(value: object) -> bool:
    """Whether a value of the log is a number that is finite and not absurd."""
    return isinstance(value, (int, float)) and abs(value) < 1e100


def _panel(title: str, curves: dict[str, Points], *, logarithmic: bool) -> np.ndarray:
    canvas = np.full((HEIGHT + 22 * len(curves), WIDTH, 3), 255, np.uint8)
    points = [point for curve in curves.values() for point in curve]
    logarithmic = logarithmic and min(y for _, y in points) > 0
    last = max(x for x, _ in points)

    def height_of(value: float) -> float:
        return math.log10(value) if logarithmic else value

    heights = [height_of(y) for _, y in points]
    low, high = min(heights), max(heights)
    room = max((high - low) * 0.05, 1e-6 * max(1.0, abs(high)))
    low, high = low - room, high + room

    def place(x: float, y: float) -> tuple[int, int]:
        right = LEFT + (WIDTH - LEFT - RIGHT) * x / max(last, 1)
        down = TOP + (HEIGHT - TOP - BOTTOM) * (high - height_of(y)) / (high - low)
        return round(right), round(down)

    _write(canvas, title + (" (logarithmic)" if logarithmic else ""), LEFT, 28, 0.6)
    values = [low + (high - low) * fifth / 5 for fifth in range(6)]
    values = [10**value if logarithmic else value for value in values]
    for value, label in zip(values, _labels(values), strict=True):
        _, y = place(0, value)
        cv2.line(canvas, (LEFT, y), (WIDTH - RIGHT, y), _GRID, 1)
        _write(canvas, label, 8, y + 5, 0.45)
    for step in sorted({round(last * fifth / 5) for fifth in range(6)}):
        x, _ = place(step, values[0])
        _write(canvas, str(step), x - 14, HEIGHT - BOTTOM + 22, 0.45)
    _write(canvas, "step", WIDTH // 2, HEIGHT - 8, 0.45)
    for number, (name, curve) in enumerate(curves.items()):
        color = CURVES[number % len(CURVES)]
        corners = np.array([place(x, y) for x, y in curve], np.int32)
        cv2.polylines(canvas, [corners], False, color, 2, cv2.LINE_AA)
        for corner in corners if len(corners) < 40 else corners[-1:]:
            cv2.circle(canvas, tuple(map(int, corner)), 3, color, -1, cv2.LINE_AA)
        y = HEIGHT + 22 * number + 6
        cv2.line(canvas, (LEFT, y), (LEFT + 28, y), color, 3, cv2.LINE_AA)
        _write(canvas, f"{name}: {curve[-1][1]:.4g}", LEFT + 38, y + 5, 0.45)
    return canvas


def _labels(values: Sequence[float]) -> list[str]:
    """The values with four digits, or with as many as they need to differ, up to seven."""
    labels: list[str] = []
    for digits in range(4, 8):
        labels = [f"{value:.{digits}g}" for value in values]
        if len(set(labels)) == len(labels):
            break
    return labels


def _write(canvas: np.ndarray, text: str, x: int, y: int, scale: float) -> None:
    cv2.putText(canvas, text, (x, y), _FONT, scale, _INK, 1, cv2.LINE_AA)


def main(arguments: Sequence[str] | None = None, prog: str = "zoo runs plot") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Draw loss and PSNR of training runs as a PNG file.",
        epilog="example: %(prog)s runs/mambair_tiny_x2 runs/mine -o curves.png",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="RUN", help="folder of a run, such as runs/NAME"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG file to write")
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    plot_runs(options.folders, options.output)
    print(f"wrote {options.output}")  # noqa: T201
