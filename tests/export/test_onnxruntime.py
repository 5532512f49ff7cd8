"""ONNX Runtime's adapter on graphs of a few nodes: its settings, sizes, batches and errors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.helpers.graphs import two_scans
from zoo.integrations import onnxruntime as adapter
from zoo.integrations.onnxruntime import OnnxError, load_onnx, open_session
from zoo.ops.scan import native

FACTS = {"model": "m", "input": "image", "scale": "1", "channels": "3", "size_multiple": "4"}


def doubled(path, shape=("N", 3, "H", "W"), elements=TensorProto.FLOAT, inputs=("input",)):
    """A file whose output is twice its input."""
    values = [helper.make_tensor_value_info(n, elements, shape) for n in (*inputs, "output")]
    nodes = [helper.make_node("Add", ["input", "input"], ["output"])]
    model = helper.make_model(
        helper.make_graph(nodes, "doubled", values[:-1], values[-1:]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    helper.set_model_props(model, FACTS)
    onnx.save(model, path)
    return path


def test_threads_and_provider_are_those_asked_for(tmp_path):
    path = doubled(tmp_path / "n.onnx")
    assert open_session(path).get_session_options().intra_op_num_threads == 0
    session = open_session(path.read_bytes(), threads=3)
    assert session.get_session_options().intra_op_num_threads == 3
    assert session.get_session_options().log_severity_level == 3
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_any_size_of_image_comes_back_doubled(tmp_path):
    network = load_onnx(doubled(tmp_path / "n.onnx"))
    assert (network.scale, network.channels, network.largest_side) == (1, 3, None)
    assert network.capabilities.size_multiple == 4 and not network.training
    for shape in ((1, 3, 5, 7), (3, 3, 2, 1)):
        image = torch.rand(shape)
        assert torch.equal(network(image), 2 * image)


def test_fixed_sizes_are_padded_to_and_batches_are_parted(tmp_path):
    network = load_onnx(doubled(tmp_path / "n.onnx", (1, 3, 6, 9)))
    assert network.largest_side == 6
    image = torch.rand(3, 3, 4, 9)
    assert torch.equal(network(image), 2 * image)
    with pytest.raises(OnnxError, match="the largest side is 6 pixels"):
        network(torch.rand(1, 3, 7, 9))


def test_half_precision_at_the_border_is_float32_outside(tmp_path):
    network = load_onnx(doubled(tmp_path / "n.onnx", elements=TensorProto.FLOAT16))
    image = torch.rand(1, 3, 5, 7)
    found = network(image)
    assert found.dtype == torch.float32 and torch.equal(found, 2 * image.half().float())


def test_files_that_do_not_restore_photographs(tmp_path):
    for path, message in [
        (doubled(tmp_path / "a.onnx", inputs=("input", "flow")), "has 2 inputs of 4 dimensions"),
        (doubled(tmp_path / "b.onnx", (1, 8, 4, "H", "W")), "has 1 inputs of 5 dimensions"),
    ]:
        with pytest.raises(OnnxError, match=message):
            load_onnx(path)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("std::bad_alloc", MemoryError),
        ("Failed to allocate memory for requested buffer", MemoryError),
        ("the device is Out of Memory", MemoryError),
        ("an operator failed", OnnxError),
    ],
)
def test_what_went_wrong_in_a_run_is_told_apart(text, kind, tmp_path):
    """Memory that ran out makes tiles smaller, anything else is an error."""
    network = load_onnx(doubled(tmp_path / "n.onnx"))

    class Failing:
        def run(self, *_):
            raise RuntimeError(text)

    network.session = Failing()
    with pytest.raises(kind, match=r"n\.onnx: "):
        network(torch.rand(1, 3, 4, 4))


def test_our_operator_is_used_where_it_is_built_and_required_only_if_asked(tmp_path, monkeypatch):
    path = doubled(tmp_path / "n.onnx")
    monkeypatch.setattr(adapter.native, "unavailable", lambda: "it was not built")
    open_session(path)
    open_session(path, operator=False)
    with pytest.raises(OnnxError, match="our operator cannot run here: it was not built"):
        open_session(path, operator=True)


@pytest.mark.skipif(native.unavailable() is not None, reason="the native library is not built")
def test_an_operator_that_failed_its_check_is_used_only_where_it_is_asked_for(monkeypatch):
    content = two_scans().SerializeToString()
    monkeypatch.setattr(adapter, "serves_on_cpu", lambda *_: False)
    for operator, calls in ((None, 0), (False, 0), (True, 2)):
        before = native.ort_calls()
        session = open_session(content, operator=operator)
        session.run(None, {"input": np.zeros((1, 8, 12, 12), np.float32)})
        assert native.ort_calls() == before + calls


def test_content_that_is_no_model_has_no_name():
    with pytest.raises(OnnxError, match=r"^ONNX model: "):
        open_session(b"junk")
