"""Real engines, built by TensorRT-RTX without a GPU: ``make test-tensorrt``."""

from __future__ import annotations

import onnx
import pytest
import torch

import zoo
from export.trt import main
from tests.helpers.graphs import two_scans
from trt_plugins.build import build
from zoo.integrations.engine_code import holds_library
from zoo.integrations.tensorrt import read_sidecar

pytestmark = pytest.mark.slow

FULL = (
    "qmambabsr",
    "wavemamba_uhdll",
    "mambacsr_final",
    "mambair_classic_x4",
    "mambair_light_x4",
    "mambairv2_light_x4",
)


FIELD = ("eamamba_realdn", "mair_light_t_x2", "vmambair_derain")


def scans_of(network):
    """How often a network calls the operator, by what PyTorch dispatches."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            Count.calls += function is torch.ops.zoo.selective_scan.default
            return function(*args, **(kwargs or {}))

    with torch.inference_mode(), Count():
        network(network.example(16, 16))
    return Count.calls


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_tiny_engine_with_a_verified_graph(precision, rtx, tmp_path, capsys):
    path = tmp_path / "tiny.engine"
    words = ["-n", "mambair_tiny_x2", "--runtime", "tensorrt-rtx", "-o", str(path), "--verify"]
    assert main([*words, "--precision", precision, "--max", "128x128"]) == 0
    out = capsys.readouterr().out
    assert "verified: worst" in out
    assert torch.cuda.is_available() or "that needs a GPU" in out
    said = read_sidecar(path)
    assert said["plugin"]["layers"] == scans_of(zoo.load("mambair_tiny_x2")) > 0
    assert said["plugin"]["named_in_engine"] == 2 * said["plugin"]["layers"]
    assert said["outputs"] == {"output": [1, 3, -1, -1]} and said["precision"] == precision


def test_a_library_in_an_engine_is_found(rtx, tmp_path):
    path = tmp_path / "scans.engine"
    onnx.save(two_scans(), tmp_path / "scans.onnx")
    words = ["--onnx", str(tmp_path / "scans.onnx"), "--runtime", "tensorrt-rtx", "-o", str(path)]
    for options in ([], ["--embed-plugin"]):
        assert main([*words, *options]) == 0
        content = path.read_bytes()
        assert holds_library(content) == bool(options) == (build().read_bytes() in content)


def test_a_tiny_engine_without_the_plugin(rtx, tmp_path, capsys):
    path = tmp_path / "tiny.engine"
    words = ["-n", "mambair_tiny_x2", "-o", str(path), "--plugin-free", "--verify"]
    assert main([*words, "--max", "128x128"]) == 0
    assert "verified: worst" in capsys.readouterr().out
    assert read_sidecar(path)["plugin"] is None


@pytest.mark.parametrize("name", FIELD)
def test_full_models_of_the_field_build_with_the_plugin(name, rtx, tmp_path):
    path = tmp_path / "field.engine"
    words = ["-n", name, "--runtime", "tensorrt-rtx", "-o", str(path), "--max", "256x256"]
    assert main(words) == 0
    said = read_sidecar(path)
    assert said["plugin"]["layers"] == scans_of(zoo.build(name).eval()) > 0
    assert said["plugin"]["named_in_engine"] == 2 * said["plugin"]["layers"]


@pytest.mark.parametrize("name", FULL)
def test_full_models_build(name, rtx, tmp_path):
    path = tmp_path / "full.engine"
    words = ["--runtime", "tensorrt-rtx", "-o", str(path)]
    assert main(["-n", name, *words, "--keep-onnx"]) == 0
    said = read_sidecar(path)
    assert said["plugin"]["layers"] == scans_of(zoo.build(name).eval()) > 0
    assert said["plugin"]["named_in_engine"] == 2 * said["plugin"]["layers"]
    sizes = said["profile"]["input"]
    assert all(low < high for low, high in zip(sizes["min"][-2:], sizes["max"][-2:], strict=True))

    # The same graph without the plugin.
    assert main(["--onnx", str(path.with_suffix(".onnx")), *words, "--plugin-free"]) == 0
    free = read_sidecar(path)
    assert free["plugin"] is None and free["scans"] == 0
    assert free["profile"]["input"]["max"][-2:] == [128, 128]
