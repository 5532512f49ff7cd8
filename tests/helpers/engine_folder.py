"""The folder where the tests of ``export.trt`` build an engine: the command and the files."""

from __future__ import annotations

WORDS = ["--onnx", "graph.onnx", "--plugin", "plugin.so", "-o", "out.engine"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())
