"""Which backend serves, and that nothing around a call changes what it computes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import zoo
from tests.helpers.scan_cases import BACKENDS, Case, make_inputs
from zoo.ops import selective_scan
from zoo.ops.scan import BackendError, chunked, dispatch, native, reference
from zoo.ops.scan.dispatch import ENVIRONMENT

CASE = Case(L=9, E=6, order="padded")


@pytest.fixture
def inputs():
    return make_inputs(CASE, torch.float32)


@pytest.fixture
def served(monkeypatch):
    """All backends can run, on the code of one, and note that they served."""
    calls = []

    def noting(name, real):
        def forward(inputs, reduce):
            calls.append(("forward", name))
            return reference.forward(inputs, reduce)

        def backward(inputs, grad_y, reduce):
            calls.append(("backward", name))
            return reference.backward(inputs, grad_y, reduce)

        return SimpleNamespace(
            NAME=name,
            summary=real.summary,
            unavailable=lambda: None,
            declines=real.declines,
            forward=forward,
            backward=backward,
        )

    stand_ins = {name: noting(name, real) for name, real in dispatch.BACKENDS.items()}
    monkeypatch.setattr(dispatch, "BACKENDS", stand_ins)
    return calls


def test_the_sequence_in_which_backends_are_tried():
    assert ENVIRONMENT == "ZOO_SCAN_BACKEND"
    assert list(dispatch.BACKENDS) == ["native", "triton", "chunked", "mamba_ssm", "reference"]
    assert [status.name for status in zoo.backends()] == list(dispatch.BACKENDS)


def test_the_first_that_can_serves_and_what_it_declines_goes_on(inputs, served):
    selective_scan(*inputs)
    selective_scan(*make_inputs(CASE, torch.float64))
    dispatch.BACKENDS["native"].unavailable = lambda: "not today"
    selective_scan(*inputs)
    assert [name for _, name in served] == ["native", "chunked", "chunked"]


def test_an_argument_goes_before_the_context_and_that_before_the_environment(
    inputs, served, monkeypatch
):
    monkeypatch.setenv("ZOO_SCAN_BACKEND", "reference")
    selective_scan(*inputs)
    with zoo.use_backend("chunked"):
        selective_scan(*inputs)
        selective_scan(*inputs, backend="native")
        with zoo.use_backend("native"):
            selective_scan(*inputs)
        selective_scan(*inputs)
    selective_scan(*inputs)
    monkeypatch.delenv("ZOO_SCAN_BACKEND")
    selective_scan(*inputs)
    assert [name for _, name in served] == [
        *("reference", "chunked", "native", "native", "chunked", "reference", "native")
    ]


def test_the_backend_that_was_asked_for_computes_the_gradient_too(inputs, served):
    inputs[0].requires_grad_()
    with zoo.use_backend("chunked"):
        y = selective_scan(*inputs)
    y.sum().backward()
    selective_scan(*inputs, backend="reference").sum().backward()
    assert served == [
        *(("forward", "chunked"), ("backward", "chunked")),
        *(("forward", "reference"), ("backward", "reference")),
    ]


def test_one_that_was_asked_for_and_cannot_serve_is_an_error(monkeypatch):
    inputs = make_inputs(CASE, torch.float64)
    if native.unavailable() is None:
        with pytest.raises(BackendError, match="'native' was requested but cannot run: it comp"):
            selective_scan(*inputs, backend="native")
    monkeypatch.setattr(chunked, "unavailable", lambda: "not today")
    with (
        pytest.raises(BackendError, match="cannot run here: not today"),
        zoo.use_backend("chunked"),
    ):
        pass
    for backend in dispatch.BACKENDS.values():
        monkeypatch.setattr(backend, "unavailable", lambda: "not today")
    with pytest.raises(BackendError, match=r"no backend runs torch.float64 tokens on cpu"):
        selective_scan(*inputs)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_inside_of_every_backend_alone(backend, low, inputs):
    """Output and gradients; matrix products of PyTorch would follow autocast."""
    leaves = [t.detach().requires_grad_() for t in inputs[:-1]]

    def results():
        y = selective_scan(*leaves, inputs[-1], backend=backend)
        return [y, *torch.autograd.grad(y.square().sum(), leaves)]

    expected = results()
    with torch.autocast("cpu", low):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == low
        found = results()
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)
