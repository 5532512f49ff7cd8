"""What chaiNNer and vs-mlrt ask of an ONNX file, and a clip through vs-mlrt itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import zoo
from zoo.cli import main

CLIP = Path(__file__).parents[1] / "helpers" / "vapoursynth_clip.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "x2 für Videos.onnx"
    words = ["--shape", "1x3xHxW", "--inline", "-o", str(path)]
    assert main(["export", "onnx", "-n", "mambair_tiny_x2", *words]) == 0
    return path


@pytest.fixture(scope="module")
def clip():
    """Ten frames, and each restored by the network."""
    frames = np.random.default_rng(0).random((10, 3, 18, 22), np.float32)
    network = zoo.load("mambair_tiny_x2")
    with torch.inference_mode():
        restored = [network(torch.from_numpy(frame)[None])[0].numpy() for frame in frames]
    return frames, np.stack(restored)


@pytest.mark.slow  # make test-integrations runs it
def test_the_file_is_what_tools_for_images_and_video_take(exported, clip):
    model = onnx.load(exported)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"} and not model.functions
    sides = []
    for [value], name in ((model.graph.input, "input"), (model.graph.output, "output")):
        kind = value.type.tensor_type
        assert value.name == name and kind.elem_type == onnx.TensorProto.FLOAT
        batch, channels, *size = kind.shape.dim
        assert (batch.dim_value, channels.dim_value) == (1, 3)
        sides.append([bool(side.dim_value) for side in size])
    assert sides[0] == [False, False]  # any height and width
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    for frame, expected in zip(*clip, strict=True):
        (output,) = session.run(None, {"input": frame[None]})
        assert output.shape == (1, 3, 36, 44)  # whole multiples of the input
        assert np.abs(output[0] - expected).max() < 1e-4


@pytest.fixture
def vapoursynth():
    """The Python that has VapourSynth and vs-mlrt, which need 3.12."""
    python = Path(sys.prefix) / "vapoursynth" / "bin" / "python"
    if not python.exists():
        pytest.skip("make test-integrations runs it, given a Python 3.12: VAPOURSYNTH_PYTHON=...")
    return python


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "error"),
    [([], 1e-5), (["fp16=1"], 2e-2)],
    ids=["fp32", "fp16"],
)
def test_vs_mlrt_restores_a_clip_as_the_network_does(
    vapoursynth, exported, clip, options, error, tmp_path
):
    frames, expected = clip
    np.save(tmp_path / "clip.npy", frames)
    words = [vapoursynth, CLIP, exported, tmp_path / "clip.npy", tmp_path / "out.npy", *options]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    output = np.load(tmp_path / "out.npy")
    assert output.shape == expected.shape == (10, 3, 36, 44)
    for frame in range(10):  # each in its place
        assert np.abs(output[frame] - expected[frame]).max() < error, frame
