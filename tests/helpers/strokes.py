"""What is drawn with OpenCV, recorded in place of pixels."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np


def record(monkeypatch):
    """Record texts, lines, curves, boxes, triangles and discs, each with its place; draw nothing.

    A disc is its centre, its colour and its thickness, which is -1 where it is filled.
    """
    drawn = SimpleNamespace(texts=[], lines=[], curves=[], boxes=[], triangles=[], discs=[])

    def text(canvas, text, at, *more):
        drawn.texts.append((text, tuple(map(int, at))))

    def line(canvas, start, end, color, *more):
        drawn.lines.append((start, end, color))

    def polylines(canvas, points, closed, color, *more):
        drawn.curves.append((points[0].tolist(), color))

    def rectangle(canvas, first, last, *more):
        drawn.boxes.append((first, last))
        return canvas

    def triangle(canvas, points, color, kind, bits):
        drawn.triangles.append(np.asarray(points) / 2**bits)

    def circle(canvas, at, radius, color, thickness, *more):
        drawn.discs.append((at, color, thickness))

    for name, function in (
        *(("putText", text), ("line", line), ("polylines", polylines), ("rectangle", rectangle)),
        *(("fillConvexPoly", triangle), ("circle", circle)),
    ):
        monkeypatch.setattr(cv2, name, function)
    return drawn


DRAWING = ("putText", "line", "polylines", "rectangle", "fillConvexPoly", "circle")


def record_all(monkeypatch):
    """Record every stroke with all that OpenCV is told of it, in sequence; draw nothing."""
    drawn = []

    def plain(value):
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    def stroke(name):
        def call(canvas, *words):
            drawn.append([name, *plain(words)])
            return canvas

        return call

    for name in DRAWING:
        monkeypatch.setattr(cv2, name, stroke(name))
    return drawn
