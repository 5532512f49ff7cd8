"""Sizes of an engine: smallest, usual and largest stay apart, from the options to the engine."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from export.engine import EngineSettings
from export.engine_file import command_line
from export.profile import Profile, read_profile
from zoo.integrations.tensorrt import TensorRT

PROFILE = Profile((1, 16, 24), (3, 64, 96), (8, 128, 256))


def graph(*inputs):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs]
    return helper.make_model(helper.make_graph([], "g", values, []))


def test_dimensions_of_an_image_a_burst_and_its_flow():
    model = graph(("input", ["N", 8, 4, "H", "W"]), ("flow", ["N", 8, 2, "H", "W"]))
    assert PROFILE.of(model) == {
        "input": {"min": (1, 8, 4, 16, 24), "opt": (3, 8, 4, 64, 96), "max": (8, 8, 4, 128, 256)},
        "flow": {"min": (1, 8, 2, 16, 24), "opt": (3, 8, 2, 64, 96), "max": (8, 8, 2, 128, 256)},
    }
    assert PROFILE.of(graph(("input", ["N", 3, 40, "W"]))) == {
        "input": {"min": (1, 3, 40, 24), "opt": (3, 3, 40, 96), "max": (8, 3, 40, 256)}
    }


def test_sizes_that_do_not_vary_are_fixed_in_the_graph():
    assert PROFILE.shape == ("N", "H", "W")
    assert Profile((2, 16, 24), (2, 16, 32), (2, 16, 64)).shape == (2, 16, "W")


def test_options_are_heights_before_widths_and_batches_in_sequence():
    assert read_profile("16x24", "64x96", "128x256", "1,3,8", heavy=False) == PROFILE
    assert read_profile("16x24", "64x96", "128x256", "5", heavy=False).opt == (5, 64, 96)


@pytest.mark.parametrize(
    ("heavy", "sides"), [(False, (32, 256, 512)), (True, (16, 64, 128))], ids=["image", "heavy"]
)
def test_sizes_where_none_are_given(heavy, sides):
    found = read_profile(None, None, None, "1", heavy=heavy)
    assert (found.min, found.opt, found.max) == tuple((1, side, side) for side in sides)


def settings(name="tensorrt", version="10.16.1", **options):
    class Api:
        __version__ = version

    return EngineSettings(TensorRT(name, Api), PROFILE, **options)


def test_the_same_build_without_python():
    dimensions = PROFILE.of(graph(("input", ["N", 3, "H", "W"]), ("flow", ["N", 8, 2, "H", "W"])))
    plugin = {"plugin": "p.so"}
    line = command_line("a.onnx", "a.engine", dimensions, settings(**plugin))
    assert line.split() == [
        "trtexec",
        "--onnx=a.onnx",
        "--saveEngine=a.engine",
        "--minShapes=input:1x3x16x24,flow:1x8x2x16x24",
        "--optShapes=input:3x3x64x96,flow:3x8x2x64x96",
        "--maxShapes=input:8x3x128x256,flow:8x8x2x128x256",
        "--stronglyTyped",
        "--dynamicPlugins=p.so",
        "--noTF32",
    ]

    def words(**options):
        return command_line("a.onnx", "a.engine", {}, settings(**options)).split()

    assert words(**plugin, embed=True)[-2] == "--setPluginsToSerialize=p.so"
    assert "--noTF32" not in words(tf32=True) and "--stronglyTyped" not in words(version="11.0.0")
    assert "--timingCacheFile=t.cache" in words(timing_cache="t.cache")
    rtx = words(name="tensorrt-rtx", version="1.2.0")
    assert rtx[0] == "tensorrt_rtx" and "--stronglyTyped" not in rtx
