"""An ONNX file of MambaIRv2: routes are compared first, then outputs with these routes."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import zoo
from export.graph import _may_fold
from export.onnx import export
from export.routes import flipped, forced_routes, recorded_routes, route_outputs, routers
from export.scan_function import scan_nodes
from export.verify import SIZES, verify

pytestmark = pytest.mark.long


def small():
    """The same network at each call."""
    torch.manual_seed(0)
    network = zoo.build(
        "mambairv2_tiny_x2",
        dim=12,
        depths=[2],
        # Equal blocks are traced once, so all have shifted windows.
        **{"block.mixer.classes": 6, "block.attention": {"heads": 3, "shift": 3}},
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return export(small(), tmp_path_factory.mktemp("v2") / "v2.onnx")


def test_a_file_equals_its_network_at_any_size(exported):
    report = verify(small(), exported, sizes=(*SIZES, (1, 1, 1)))
    assert report.passed and len(report.comparisons) >= 4, str(report)
    assert all(found.flipped <= 1e-3 for found in report.comparisons)
    model = onnx.load(exported)
    # Every scan has an order of its own, one for each image.
    assert len({node.input[8] for node in scan_nodes(model)}) == len(scan_nodes(model)) == 2
    assert not {"TopK", "Sort", "Identity"} & {node.op_type for node in model.graph.node}


def test_a_table_of_positions_stays_a_table_and_its_index_is_stored_once(exported):
    model = onnx.load(exported)
    shapes = [tuple(tensor.dims) for tensor in model.graph.initializer]
    assert shapes.count((8**4,)) == 1  # window 8: pairs of its 64 tokens
    assert not any(8**4 in shape and len(shape) > 1 for shape in shapes)
    assert exported.stat().st_size < 2.5 * sum(4 * p.numel() for p in small().parameters()) + 2**17


def test_another_router_fails_by_its_routes_alone(exported):
    """With the routes of the file, the outputs still agree: nothing else is wrong."""
    other = small()
    with torch.no_grad():
        for router in routers(other):
            router.classify.weight.copy_(router.classify.weight.flip(0))
    report = verify(other, exported)
    assert not report.passed
    assert min(found.flipped for found in report.comparisons) > 0.1
    assert report.worst <= report.tolerance
    assert "of its routes" in str(report) and "VERIFICATION FAILED" in str(report)


def test_another_weight_fails_by_the_outputs(exported):
    other = small()
    with torch.no_grad():
        other.head.conv.bias += 0.1
    report = verify(other, exported)
    assert not report.passed and report.worst > report.tolerance
    assert max(found.flipped for found in report.comparisons) <= 1e-3


def test_routes_can_be_recorded_and_forced():
    network, image = small(), torch.rand(2, 3, 9, 10)
    with torch.no_grad():
        with recorded_routes(network) as ours:
            expected = network(image)
        others = [(classes + 1) % 6 for classes in ours]
        with forced_routes(network, others), recorded_routes(network) as forced:
            found = network(image)
        with forced_routes(network, ours):
            assert torch.equal(network(image), expected)
        assert torch.equal(network(image), expected)
    assert flipped(others, forced) == 0 and flipped(ours, others) == 1
    assert flipped([torch.tensor([[0, 1, 2, 3]])], [torch.tensor([[0, 1, 2, 0]])]) == 0.25
    assert not torch.equal(found, expected)


def test_a_model_without_its_routes_is_left_as_it_is(exported):
    model = onnx.load(exported)
    assert len(route_outputs(model, small())[1]) == 2
    cut = copy.deepcopy(model)
    del cut.graph.node[next(i for i, n in enumerate(cut.graph.node) if n.op_type == "ArgMax")]
    assert route_outputs(cut, small()) == (cut, [])
    assert route_outputs(model, zoo.build("mambair_tiny_x2"))[1] == []
    assert len(model.graph.output) == 1


def test_only_large_lookups_of_constants_are_kept(tmp_path):
    import onnx_ir

    def gather(rows, picked, axis=0):
        shape = [rows, 4] if axis == 0 else [4, rows]
        table = onnx.numpy_helper.from_array(np.zeros(shape, np.float32), "table")
        index = onnx.numpy_helper.from_array(np.zeros(picked, np.int64), "index")
        node = helper.make_node("Gather", ["table", "index"], ["y"], axis=axis)
        output = helper.make_tensor_value_info("y", 1, None)
        graph = helper.make_graph([node], "g", [], [output], [table, index])
        model = onnx_ir.from_proto(helper.make_model(graph))
        return _may_fold(next(iter(model.graph)))

    assert gather(100, 5000) is False and gather(100, 5000, axis=1) is False
    assert gather(5000, 5000) is None  # the result is as large as the table
    assert gather(3, 100) is None  # few
