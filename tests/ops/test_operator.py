"""The operator as compile, export, autocast and users see it."""

from __future__ import annotations

import dataclasses
import logging
from collections import OrderedDict

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import zoo
from tests.helpers.scan_cases import Case, make_inputs
from zoo.ops import selective_scan
from zoo.ops.scan import BackendError, transforms
from zoo.ops.scan.dispatch import ENVIRONMENT
from zoo.scans import base

CASE = Case(B=2, L=9, K=3, E=4, N=3, order="padded")


@pytest.fixture
def inputs():
    return make_inputs(CASE, torch.float32)


def changed(inputs, index, value):
    return [*inputs[:index], value, *inputs[index + 1 :]]


def test_library_checks_the_operator(inputs):
    tensors = [t if t.dtype == torch.int32 else t.requires_grad_() for t in inputs]
    torch.library.opcheck(
        torch.ops.zoo.selective_scan.default, (*tensors, True, "chunked"), rtol=1e-4, atol=1e-5
    )


def test_export_sees_one_node(inputs):
    class Model(torch.nn.Module):
        def forward(self, *tensors):
            return selective_scan(*tensors, reduce=True)

    program = torch.export.export(Model(), tuple(inputs))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names == ["zoo.selective_scan.default"]
    torch.testing.assert_close(program.module()(*inputs), Model()(*inputs))


def test_export_takes_an_order_that_depends_on_the_image(inputs):
    """Sizes that vary, and the order computed in the graph."""

    class Model(torch.nn.Module):
        def forward(self, u, *tensors):
            key = u.sum(-1)[:, None].expand(-1, 3, -1)
            return selective_scan(u, *tensors, key.argsort(-1).to(torch.int32), reduce=True)

    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    by_image = {0: batch, 1: tokens}
    sizes = (by_image, (by_image, None, None, None, by_image, by_image, None))
    program = torch.export.export(Model(), tuple(inputs[:-1]), dynamic_shapes=sizes)
    case = dataclasses.replace(CASE, B=3, L=20)
    others = make_inputs(case, torch.float32)[:-1]
    torch.testing.assert_close(program.module()(*others), Model()(*others))


@pytest.mark.parametrize("per_image", [False, True])
def test_compile_agrees_forward_and_backward(per_image):
    inputs = make_inputs(dataclasses.replace(CASE, per_image=per_image), torch.float32)

    def loss(*tensors):
        return (selective_scan(*tensors, inputs[-1]) ** 2).sum()

    leaves = [t.detach().requires_grad_() for t in inputs[:-1]]
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(*leaves), leaves)
    expected = torch.autograd.grad(loss(*leaves), leaves)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("low_rank", [True, False])
def test_flops_are_counted(low_rank):
    """Of every step and channel 7 a state, 2 a rank of the projection where there is one, and 5."""
    inputs = make_inputs(dataclasses.replace(CASE, low_rank=low_rank), torch.float32)
    with FlopCounterMode(display=False) as counter:
        selective_scan(*inputs)
    B, K, S, E, N, R = 2, 3, 14, 4, 3, 2 if low_rank else 0
    assert inputs[-1].shape == (K, S)
    assert counter.get_total_flops() == B * K * S * E * (7 * N + 2 * R + 5)


def test_parameters_of_other_dtypes_are_cast(inputs):
    half = [t.bfloat16() if t.is_floating_point() else t for t in inputs]
    mixed = [*half[:2], *(t.float() for t in half[2:5]), *half[5:7], half[7].float(), half[8]]
    assert torch.equal(selective_scan(*half), selective_scan(*mixed))


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, torch.zeros(2, 9), "u must be"),
        (1, torch.zeros(2, 9, 3, 7), r"delta has shape \(2, 9, 3, 7\)"),
        (3, torch.zeros(4, 3), "delta_bias has shape"),
        (5, torch.zeros(2, 9, 3, 3, dtype=torch.bfloat16), "share one dtype"),
        (8, torch.full((3, 14), 9, dtype=torch.int32), r"order\[0, 0\] is 9, outside -1..8"),
        (8, torch.full((3, 14), -2, dtype=torch.int32), r"order\[0, 0\] is -2"),
        (8, torch.zeros((3, 2), dtype=torch.int32), r"order\[0\] visits token 0 twice"),
        (
            8,
            torch.tensor([[0, 1], [3, 2], [4, 4]], dtype=torch.int32),
            r"order\[2\] visits token 4",
        ),
        (8, torch.tensor([[0, 1], [3, 2], [4, 9]], dtype=torch.int32), r"order\[2, 1\] is 9"),
        (8, torch.zeros((3, 1)), "int32"),
        (8, torch.zeros((3, 1), dtype=torch.int64), "int32"),
        (0, torch.zeros(2, 9, 4, dtype=torch.int32), "u must be float32"),
    ],
)
def test_wrong_inputs_are_named(inputs, index, value, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(*changed(inputs, index, value))


def test_an_order_may_leave_tokens_out_and_wait_more_than_once(inputs):
    order = torch.tensor([[8, -1, -1], [-1, 0, 8], [-1, -1, -1]], dtype=torch.int32)
    y = selective_scan(*inputs[:-1], order)
    assert y[:, 8, :2].all() and y[:, 0, 1].all() and not y[:, 1:8].any() and not y[:, :, 2].any()


def test_an_order_changed_in_place_is_checked_again(inputs):
    selective_scan(*inputs)
    inputs[-1][0, 0] = 100
    with pytest.raises(ValueError, match="is 100"):
        selective_scan(*inputs)


@pytest.mark.parametrize("model", ["mambair_tiny_x2", "mambacsr_tiny_x2", "qmambabsr_tiny"])
def test_networks_check_their_orders_when_they_are_built(model, monkeypatch):
    """On a GPU this means waiting for it, so it happens once for each size."""
    seen = []
    monkeypatch.setattr(base, "check_order", lambda *given: seen.append(given))
    monkeypatch.setattr(base, "_cache", OrderedDict())
    network = zoo.build(model).eval()
    burst = (3, network.channels) if model.startswith("qmambabsr") else (network.channels,)
    image = torch.rand(1, *burst, 16, 24)
    with torch.inference_mode():
        network(image)
        first = len(seen)
        network(image)
        assert first > 0 and len(seen) == first
    network.train()(image).sum().backward()
    assert len(seen) == first


def test_backends_say_what_they_are():
    assert all(status.note for status in zoo.backends())


def test_names_that_are_no_backends_are_said_with_where_they_came_from(inputs, monkeypatch):
    with pytest.raises(BackendError, match="did you mean 'chunked'"):
        selective_scan(*inputs, backend="chunkd")
    with pytest.raises(BackendError, match=r"^use_backend: unknown"), zoo.use_backend("nothing"):
        pass
    monkeypatch.setenv(ENVIRONMENT, "nothing")
    with pytest.raises(BackendError, match=ENVIRONMENT):
        selective_scan(*inputs)


def test_an_automatic_choice_is_logged_once(inputs, caplog, monkeypatch):
    from zoo.ops.scan import dispatch

    monkeypatch.setattr(dispatch, "_logged", set())
    with caplog.at_level(logging.INFO):
        selective_scan(*inputs)
        selective_scan(*inputs)
    assert len([r for r in caplog.records if "runs on backend" in r.message]) == 1


def test_nothing_is_recorded_without_need(inputs, monkeypatch):
    recorded = []
    monkeypatch.setattr(transforms.Scan, "apply", lambda *given: recorded.append(1) or inputs[0])
    selective_scan(*inputs)
    inputs[0].requires_grad_()
    with torch.no_grad():
        selective_scan(*inputs)
    assert not recorded
    selective_scan(*inputs)
    assert recorded == [1]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("reduce", [False, True])
def test_gradients_are_contiguous_and_an_empty_one_stands_for_none(inputs, reduce, device):
    """Tensors without values, as while tracing, give what those with values give."""
    tensors = make_inputs(dataclasses.replace(CASE, low_rank=False), torch.float32)
    tensors[0] = tensors[0].transpose(0, 1).contiguous().transpose(0, 1)
    tensors = [None if t is None else t.to(device) for t in tensors]
    backward = torch.ops.zoo.selective_scan_backward
    grad_y = torch.ones(2, 9, 4) if reduce else torch.ones(2, 9, 3, 4)
    found = backward(grad_y.to(device), *tensors, reduce, "")
    shapes = [(0,) if t is None else t.shape for t in tensors[:-1]]
    assert [t.shape for t in found] == shapes and all(t.is_contiguous() for t in found)
    with pytest.raises(ValueError, match=r"grad_y is \(2, 9\)"):
        backward(torch.ones(2, 9, device=device), *tensors, reduce, "")


def test_the_compiler_is_told_that_the_operators_keep_its_rules():
    for operator in (torch.ops.zoo.selective_scan, torch.ops.zoo.selective_scan_backward):
        assert torch.Tag.pt2_compliant_tag in operator.default.tags


def test_training_saves_inputs_and_a_state_of_every_32nd_step(inputs):
    """Nothing of the size of all states is saved for the backward pass."""
    saved = []
    leaves = [t.detach().requires_grad_() for t in inputs[:-1]]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        selective_scan(*leaves, inputs[-1])
    *saved_inputs, kept = saved
    assert len(saved_inputs) == 9
    assert max(t.numel() for t in saved_inputs) == max(t.numel() for t in inputs)
    steps, (directions, channels, states) = inputs[-1].shape[-1], inputs[4].shape
    sizes = (directions, (steps - 1) // 32, states, channels)
    assert kept.shape == (inputs[0].shape[0], *sizes)
