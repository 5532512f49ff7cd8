"""8-bit files: what is quantised, that the loss is measured, and that too much is refused."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import zoo
from export import int8
from export.int8 import Loss, check_int8, quantised
from export.model import facts_in, facts_of
from export.onnx import main
from export.shape import input_shape
from tests.helpers.graphs import FACTS, two_scans
from zoo.data import Bicubic, Photo, write_photo
from zoo.errors import ZooError
from zoo.evaluation import Score
from zoo.networks import Network
from zoo.recipe import Recipe


class Small(Network):
    """Stands for the graph of ``small_graph``."""

    scale, channels, recipe = 2, 3, None


def small_graph(network):
    """Seven convolutions, one after the other, and a pixel shuffle: a doubling of the image."""
    generator = np.random.default_rng(0)
    channels = [3, 16, 16, 15, 16, 16, 16, 12]
    nodes, constants = [], []
    for i, (before, after) in enumerate(itertools.pairwise(channels)):
        weight = generator.normal(0, 0.2, (after, before, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(
            helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], f"conv{i}", pads=[1] * 4)
        )
    nodes[0].input[0] = "input"
    nodes.append(helper.make_node("DepthToSpace", ["x7"], ["output"], "shuffle", blocksize=2))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, None, None])
        for name in ("input", "output")
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "small", values[:1], values[1:], constants),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    helper.set_model_props(model, facts_of(network, "random"))
    return model


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).random((25, 33, 3)).astype(np.float32)
        write_photo(folder / f"{i}.png", Photo(pixels))
    return folder


def test_wide_convolutions_in_the_middle_are_quantised_and_the_loss_is_in_the_file(photos, caplog):
    caplog.set_level("INFO")
    model = quantised(Small(), small_graph(Small()), photos=photos, max_loss=100)
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {
        node.name: makers[node.input[1]].op_type if node.input[1] in makers else "float"
        for node in model.graph.node
        if node.op_type == "Conv"
    }
    # The fourth sums 15 * 9 products.
    expected = ["float", "DequantizeLinear", "DequantizeLinear", *["float"] * 4]
    assert list(weights.values()) == expected
    facts = facts_in(model)
    assert facts.items() >= facts_of(Small(), "random").items()
    assert facts["int8_loss"].endswith(" dB") and abs(float(facts["int8_loss"][:-3])) < 3
    assert "int8 loses" in caplog.text and "on 1 photos" in caplog.text
    onnx.checker.check_model(model, full_check=True)


def test_a_network_whose_layers_are_all_narrow_is_refused(photos, monkeypatch):
    monkeypatch.setattr(int8, "SUMMED", 16 * 9 + 1)
    with pytest.raises(ZooError, match="no layer of this network sums 145 products"):
        quantised(Small(), small_graph(Small()), photos=photos)


@pytest.mark.parametrize(
    ("kind", "weight", "attributes", "summed"),
    [
        ("Conv", (48, 16, 3, 3), {}, 144),
        ("Conv", (48, 1, 3, 3), {"group": 48}, 9),
        ("MatMul", (180, 360), {}, 180),
        ("Gemm", (180, 360), {}, 180),
        ("Gemm", (360, 180), {"transB": 1}, 180),
        ("MatMul", None, {}, 0),
    ],
)
def test_the_products_that_an_output_sums(kind, weight, attributes, summed):
    layer = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    assert int8._summed(layer, weight) == summed


def test_photos_that_calibrate_do_not_measure(photos, monkeypatch):
    calibrated, measured = int8._photos(photos, 3)
    assert (len(calibrated), len(measured)) == (2, 1)
    assert not any((x == y).all() for x in calibrated for y in measured)
    sides = [tuple(x.shape) for x in int8._squares(calibrated, 20, 3)]
    assert sides == [(3, 18, 18)] * 2
    gray, _ = int8._photos(photos, 1)
    assert gray[0].shape == (1, 25, 33)


def test_too_much_loss_is_refused(photos, monkeypatch):
    monkeypatch.setattr(int8, "_loss", lambda *_: Loss(1, 34.0, 33.8))
    with pytest.raises(ZooError, match=r"int8 loses 0.200 dB .*--max-loss allows 0.15 dB"):
        quantised(Small(), small_graph(Small()), photos=photos)
    monkeypatch.setattr(int8, "_loss", lambda *_: Loss(1, 34.0, float("nan")))
    with pytest.raises(ZooError, match="int8 loses inf dB"):
        quantised(Small(), small_graph(Small()), photos=photos)


def test_a_network_is_measured_with_the_degradation_of_its_training():
    assert isinstance(int8._degradation(zoo.build("mambair_dn25")), zoo.data.GaussianNoise)
    assert int8._degradation(zoo.build("mambair_tiny_x2")) == Bicubic(scale=2)
    assert int8._degradation(Small()) == Bicubic(scale=2)
    untrained = Small()
    untrained.recipe = Recipe(name="a", network={"type": "toy"})
    assert int8._degradation(untrained) == Bicubic(scale=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "qmambabsr_tiny"], "networks of bursts cannot be quantised"),
        (["-n", "mambair_tiny_x2", "--half-io"], "--half-io does not go with"),
        (["-n", "mambair_tiny_x2", "--shape", "1x3x8xW"], "as in 1x3xHxW"),
        (["-n", "mambair_tiny_x2", "--shape", "2x3xHxW"], "as in 1x3xHxW"),
        (["-n", "mambair_tiny_x2", "--max-loss", "0"], "number of decibels above 0"),
        (["-n", "mambair_tiny_x2", "--max-loss", "nan"], "number of decibels above 0"),
        (["-n", "mambair_tiny_x2", "--verify"], "--verify does not go with"),
        (["-n", "mambair_tiny_x2", "--photos", "none"], "does not exist"),
        (["-n", "mambair_tiny_x2", "--photos", "one"], "needs two photos or more"),
    ],
)
def test_mistakes_are_found_before_the_tracing(words, message, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise AssertionError("too early")

    monkeypatch.setattr("export.graph.traced_graph", fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    write_photo(tmp_path / "one/a.png", Photo(np.zeros((4, 4, 3), np.float32)))
    assert main([*words, "--precision", "int8", "-o", "n.onnx"]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "n.onnx").exists()


def test_a_network_without_degradation_cannot_be_measured():
    network = Small()
    network.scale = 1
    with pytest.raises(ZooError, match=r"no train\.data\.degradation"):
        check_int8(network, input_shape(network), half_border=False, photos=None, max_loss=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mambair_tiny_x2", "mambacsr_tiny_x2"])
def test_the_shipped_models_lose_little(name, tmp_path, caplog):
    """0.15 dB is what the option allows by default, on the held-out photos."""
    path = tmp_path / "n.onnx"
    assert main(["-n", name, "--precision", "int8", "-o", str(path)]) == 0
    model = onnx.load(path)
    assert float(facts_in(model)["int8_loss"][:-3]) <= 0.15
    assert model.ir_version == 9 and len(model.functions) == 1


def test_what_the_quantiser_is_asked_for(tmp_path, monkeypatch, capsys):
    from onnxruntime import quantization

    seen = []

    def quantise(source, target, images, **options):
        taken = [image["input"] for image in iter(images.get_next, None)]
        seen.append((source, target, taken, options, logging.root.level))
        print("a message")  # noqa: T201 - as the real one does

    monkeypatch.setattr(quantization, "quantize_static", quantise)
    onnx.save(small_graph(Small()), tmp_path / "a.onnx")
    images, level = [torch.rand(3, 4, 5), torch.rand(3, 6, 7)], logging.root.level
    int8._quantise(tmp_path / "a.onnx", tmp_path / "b.onnx", images)
    [(source, target, taken, options, within)] = seen
    assert (source, target) == (str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"))
    assert [x.shape for x in taken] == [(1, 3, 4, 5), (1, 3, 6, 7)]
    assert all(np.array_equal(x[0], image) for x, image in zip(taken, images, strict=True))
    assert options == {
        "quant_format": quantization.QuantFormat.QDQ,
        "op_types_to_quantize": ["Conv", "Gemm", "MatMul"],
        # The ends carry the image, and the fourth of seven sums too little.
        "nodes_to_exclude": ["conv0", "conv4", "conv5", "conv6", "conv0", "conv3"],
        "per_channel": True,
        "activation_type": quantization.QuantType.QUInt8,
        "weight_type": quantization.QuantType.QInt8,
        "calibrate_method": quantization.CalibrationMethod.Percentile,
        "extra_options": {"MatMulConstBOnly": True},
    }
    assert within == logging.ERROR and logging.root.level == level
    assert capsys.readouterr().out == ""


def test_both_files_are_measured_on_the_same_degraded_photos(monkeypatch):
    class File(Small):
        def __init__(self, path, name):
            super().__init__()
            self.path, self.name = path, name

    asked = []

    def restored(network, photo, degradation, seed):
        assert not network.training
        asked.append((network.path, network.name, photo, degradation, seed))
        return network.path

    monkeypatch.setattr(int8, "open_session", lambda path: path)
    monkeypatch.setattr(int8, "OnnxNetwork", File)
    monkeypatch.setattr(int8, "restore_clean", restored)
    values = {Path("x/a"): [30.0, 32.0], Path("x/b"): [29.0, 32.5]}
    scored = []

    def score(name, images, scale):
        scored.append((name, scale))
        return Score(name, values[images][int(name)], 0.5, 20.0, 0.5)

    monkeypatch.setattr(int8, "score", score)
    found = int8._loss([*values], ["p", "q"], "degradation")
    assert found == Loss(2, 31.0, 30.75) and found.decibels == 0.25
    assert str(found) == (
        "int8 loses 0.250 dB on 2 photos: 31.000 dB in float32, 30.750 dB in int8"
    )
    assert asked == [
        (path, path.name, photo, "degradation", seed)
        for path in values
        for seed, photo in enumerate("pq")
    ]
    assert scored == [("0", 2), ("1", 2)] * 2


def test_squares_are_the_middle_of_a_photo():
    photo = torch.arange(3 * 25 * 33).reshape(3, 25, 33)
    [found] = int8._squares([photo], 12, 3)
    assert torch.equal(found, photo[:, 6:18, 10:22])
    [found] = int8._squares([photo], 512, 4)
    assert torch.equal(found, photo[:, :24, :32])


def test_photos_of_the_package_calibrate_or_measure_as_they_train_or_are_held_out(monkeypatch):
    def sample(name):
        return Photo(np.full((2, 2, 3), int(name) / 10, np.float32))

    monkeypatch.setattr(int8, "load_sample", sample)
    monkeypatch.setattr(int8, "sample_names", lambda held_out: ["9"] if held_out else ["1", "2"])
    calibrate, measure = int8._photos(None, 3)
    assert [round(float(x[0, 0, 0]), 1) for x in (*calibrate, *measure)] == [0.1, 0.2, 0.9]
    assert len(measure) == 1


def test_one_photo_in_four_measures(tmp_path):
    for number in range(9):
        write_photo(tmp_path / f"{number}.png", Photo(np.full((2, 2, 3), number / 10, np.float32)))
    calibrate, measure = int8._photos(tmp_path, 1)
    assert [round(float(x[0, 0, 0]), 1) for x in measure] == [0.0, 0.4, 0.8]
    assert len(calibrate) == 6


@pytest.mark.parametrize("functions", [True, False])
def test_scans_of_a_quantised_file_have_their_functions_and_the_loss_is_told(
    functions, tmp_path, monkeypatch, caplog
):
    """The quantiser may drop functions and metadata."""

    class Eight(Network):
        scale, channels, recipe = 2, 8, None

    def quantise(source, target, images):
        model = onnx.load(source)
        assert len(model.functions) == 1 and len(images) == 1
        assert images[0].shape == (8, 6, 6)  # of 12 x 12 pixels, degraded
        del model.functions[:], model.metadata_props[:]
        onnx.save(model, target)

    def loss(paths, squares, degradation):
        files = [onnx.load(path) for path in paths]
        assert [len(model.functions) for model in files] == [1, 1]
        assert degradation == Bicubic(scale=2) and len(squares) == 1
        return Loss(1, 30.0, 29.9)

    monkeypatch.setattr(int8, "_quantise", quantise)
    monkeypatch.setattr(int8, "_loss", loss)
    monkeypatch.setattr(
        int8, "_photos", lambda *_: ([torch.rand(8, 12, 12)], [torch.rand(8, 9, 9)])
    )
    with caplog.at_level("INFO"):
        model = quantised(Eight(), two_scans(functions=functions))
    assert len(model.functions) == 1 and facts_in(model) == {**FACTS, "int8_loss": "0.1000 dB"}
    assert caplog.messages == [str(Loss(1, 30.0, 29.9))]
    monkeypatch.setattr(int8, "_loss", lambda *_: Loss(1, 30.0, 29.75))
    assert quantised(Eight(), two_scans(), max_loss=0.25)  # no more than what is allowed
