"""What chaiNNer and vs-mlrt ask of an ONNX file; they themselves have not been run."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import zoo
from zoo.cli import main


@pytest.mark.slow  # make test-integrations runs it
def test_the_file_is_what_tools_for_images_and_video_take(tmp_path):
    path = tmp_path / "x2.onnx"
    words = ["--shape", "1x3xHxW", "--inline", "-o", str(path)]
    assert main(["export", "onnx", "-n", "mambair_tiny_x2", *words]) == 0
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"} and not model.functions
    sides = []
    for [value], name in ((model.graph.input, "input"), (model.graph.output, "output")):
        kind = value.type.tensor_type
        assert value.name == name and kind.elem_type == onnx.TensorProto.FLOAT
        batch, channels, *size = kind.shape.dim
        assert (batch.dim_value, channels.dim_value) == (1, 3)
        sides.append([bool(side.dim_value) for side in size])
    assert sides[0] == [False, False]  # any height and width
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    network = zoo.load("mambair_tiny_x2")
    for frame in np.random.default_rng(0).random((10, 1, 3, 18, 22), np.float32):  # a clip
        (output,) = session.run(None, {"input": frame})
        with torch.inference_mode():
            expected = network(torch.from_numpy(frame)).numpy()
        assert output.shape == (1, 3, 36, 44)  # whole multiples of the input
        assert np.abs(output - expected).max() < 1e-4
