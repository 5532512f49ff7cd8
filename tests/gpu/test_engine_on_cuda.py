"""Engines on an NVIDIA GPU: ``pytest -m gpu tests/gpu``, part of ``make gpu-check``."""

from __future__ import annotations

import pytest
import torch

import zoo
from export.trt import main
from trt_plugins.build import build
from zoo.integrations.tensorrt import EngineError, load_engine, open_tensorrt

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

MODEL = "mambair_tiny_x2"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    try:
        open_tensorrt()
    except EngineError as error:
        pytest.skip(str(error))
    path = tmp_path_factory.mktemp("engine") / "tiny.engine"
    # Its own comparison is part of the command: odd sizes, a batch of two.
    words = ["-n", MODEL, "-o", str(path), "--verify", "--min", "17x23", "--max", "96x128"]
    assert main([*words, "--batch", "1,2,4"]) == 0
    return path


def test_an_engine_is_the_network_at_sizes_that_change(engine):
    network, found = zoo.load(MODEL), load_engine(engine, plugin=build)
    for batch, height, width in [(1, 96, 128), (3, 17, 23), (1, 64, 31), (4, 96, 128), (5, 9, 8)]:
        image = torch.rand(batch, 3, height, width)
        if height < 17:  # smaller than the engine takes: padded, which the scan sees at the edge
            assert found(image).shape == (batch, 3, 2 * height, 2 * width)
            continue
        with torch.inference_mode():
            expected = network(image)
        # The same float32 sums in another sequence, through some dozen layers.
        torch.testing.assert_close(found(image), expected, atol=1e-4, rtol=1e-4)


def test_two_sessions_do_not_disturb_each_other(engine):
    first, second = load_engine(engine, plugin=build), load_engine(engine, plugin=build)
    images = torch.rand(2, 1, 3, 40, 50)
    alone = [first(images[0]), first(images[1])]
    turns = [first(images[0]), second(images[1])]
    assert all(torch.equal(a, b) for a, b in zip(alone, turns, strict=True))
