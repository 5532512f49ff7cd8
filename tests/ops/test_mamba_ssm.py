"""The adapter to mamba-ssm, with a stand-in of its function: the kernel itself needs a GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

import zoo
from tests.helpers.scan_cases import Case, make_inputs, relative
from zoo.ops.scan import mamba_ssm, reference
from zoo.ops.scan.contract import ScanInputs


class StandIn:
    """The package's autograd function, as its passes are called without autograd."""

    @staticmethod
    def forward(context, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        """u, delta (B, G, S), A (G, N), B, C (B, K, N, S), D, delta_bias (G)."""
        assert z is None and delta_softplus
        assert all(t.stride(-1) == 1 for t in (u, delta, A, B, C, D, delta_bias))
        context.save_for_backward(u, delta, A, B, C, D, delta_bias)
        context.has_z = False
        return scan(u, delta, A, B, C, D, delta_bias)

    @staticmethod
    def backward(context, grad_y):
        assert not context.has_z and grad_y.is_contiguous()
        # The operator has switched autograd off in this thread.
        with ThreadPoolExecutor(1) as thread:
            *found, gbias = thread.submit(StandIn._differentiate, context, grad_y).result()
        return (*found, None, gbias, None, None)

    @staticmethod
    def _differentiate(context, grad_y):
        leaves = [t.detach().requires_grad_() for t in context.saved_tensors]
        return torch.autograd.grad(scan(*leaves), leaves, grad_y)


def scan(u, delta, A, B, C, D, delta_bias):
    delta = F.softplus(delta + delta_bias[:, None])
    B, C = (t.repeat_interleave(u.shape[1] // t.shape[1], dim=1) for t in (B, C))
    h, y = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for s in range(u.shape[2]):
        step = delta[:, :, s, None]
        h = torch.exp(step * A) * h + step * B[..., s] * u[:, :, s, None]
        y.append((h * C[..., s]).sum(-1))
    return torch.stack(y, -1) + u * D[:, None]


@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(reduce=False, order="padded"),
        Case(low_rank=False, order="skipping"),
        Case(order="padded", per_image=True),
    ],
    ids=str,
)
def test_adapter_equals_the_reference(case, monkeypatch):
    monkeypatch.setattr(mamba_ssm, "kernel", lambda: StandIn)
    inputs = ScanInputs(*make_inputs(case, torch.float32))
    y = mamba_ssm.forward(inputs, case.reduce)
    expected = reference.forward(inputs, case.reduce)
    assert relative(y, expected) <= 1e-5
    grad_y = torch.randn_like(y)
    found = mamba_ssm.backward(inputs, grad_y, case.reduce)
    assert not any(tensor.requires_grad for tensor in inputs if tensor is not None)
    for ours, theirs in zip(found, reference.backward(inputs, grad_y, case.reduce), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert relative(ours, theirs) <= 1e-5


def test_gradients_work_where_an_operator_has_switched_autograd_off(monkeypatch):
    monkeypatch.setattr(mamba_ssm, "kernel", lambda: StandIn)
    monkeypatch.setattr(mamba_ssm, "unavailable", lambda: None)
    monkeypatch.setattr(mamba_ssm, "declines", lambda inputs: None)
    inputs = make_inputs(Case(), torch.float32)
    inputs[0].requires_grad_()

    def gradient(backend):
        y = zoo.selective_scan(*inputs, reduce=True, backend=backend)
        return torch.autograd.grad(y.square().sum(), inputs[0])[0]

    assert relative(gradient("mamba_ssm"), gradient("reference")) <= 1e-5


def test_an_output_of_the_adapter_is_no_part_of_a_gradient(monkeypatch):
    monkeypatch.setattr(mamba_ssm, "kernel", lambda: StandIn)
    inputs = ScanInputs(*make_inputs(Case(), torch.float32))
    inputs.u.requires_grad_()
    assert not mamba_ssm.forward(inputs, True).requires_grad


def test_where_it_is_missing_it_says_so():
    status = {s.name: s for s in zoo.backends()}["mamba_ssm"]
    assert status.available or "mamba-ssm" in status.note or "GPU" in status.note
