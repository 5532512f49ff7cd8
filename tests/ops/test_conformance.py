"""Every backend against the definition, outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

import zoo
from tests.helpers.scan_cases import (
    BACKENDS,
    CASES,
    TINY,
    TOLERANCE,
    Case,
    make_inputs,
    relative,
    run,
)
from zoo.ops import selective_scan


def serves(backend, dtype):
    return dtype != torch.float64 or backend in ("reference", "chunked")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_match_the_reference(case, dtype, backend):
    if not serves(backend, dtype):
        with pytest.raises(zoo.ops.scan.BackendError, match="float64"):
            run(make_inputs(case, dtype), case, backend)
        return
    inputs = make_inputs(case, dtype)
    found = run(inputs, case, backend)
    exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
    expected = run(exact, case, "reference")
    assert found[0].dtype == dtype
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.shape == theirs.shape
        if ours.numel():
            assert relative(ours, theirs) <= TOLERANCE[dtype], index


@pytest.mark.parametrize(
    "backend", ["reference", *(b for b in BACKENDS if serves(b, torch.float64))]
)
@pytest.mark.parametrize("case", TINY, ids=str)
def test_gradcheck(case, backend):
    inputs = make_inputs(case, torch.float64)
    leaves = [t.clone().requires_grad_() for t in inputs[:-1] if t is not None]

    def function(*given):
        tensors = list(given)
        if not case.low_rank:
            tensors.insert(2, None)
        return selective_scan(*tensors, inputs[-1], reduce=case.reduce, backend=backend)

    assert gradcheck(function, leaves)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("bias", [-30.0, 0.0, 40.0, 1e4])
def test_extreme_steps_stay_finite(bias, backend):
    case = Case(L=50, N=3)
    inputs = make_inputs(case, torch.float32)
    inputs[3] = torch.full_like(inputs[3], bias)
    for tensor in run(inputs, case, backend):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_strong_decay_forgets_exactly(backend):
    """At delta * A = -1e4 the state holds its last input alone, so y follows from one step."""
    case = Case(B=1, L=9, K=1, E=3, N=2, low_rank=False)
    u, delta, weight, bias, A, B, C, D, order = make_inputs(case, torch.float32)
    delta, bias = torch.full_like(delta, 10.0), torch.zeros_like(bias)
    A = torch.full_like(A, -1e3)
    y = selective_scan(u, delta, weight, bias, A, B, C, D, order, reduce=True, backend=backend)
    expected = torch.nn.functional.softplus(torch.tensor(10.0)) * u * (B * C).sum(-1) + D * u
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unvisited_tokens_are_zero_and_get_no_gradient(backend):
    case = Case(order="skipping", K=1)
    inputs = make_inputs(case, torch.float32)
    y, grad_u, *_ = run(inputs, case, backend)
    visited = torch.zeros(case.L, dtype=torch.bool)
    visited[inputs[-1][inputs[-1] >= 0].long()] = True
    assert (y[:, ~visited] == 0).all() and (grad_u[:, ~visited] == 0).all()
    assert (y[:, visited] != 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_decays_the_state(backend):
    """A zero token between two real ones is no gap: the state shrinks by softplus(bias) there."""
    case = Case(B=1, L=2, K=1, E=3, N=2)
    inputs = make_inputs(case, torch.float32)
    inputs[-1] = torch.tensor([[0, 1]], dtype=torch.int32)
    without = run(inputs, case, backend)[0]
    inputs[-1] = torch.tensor([[0, -1, 1]], dtype=torch.int32)
    with_padding = run(inputs, case, backend)[0]
    torch.testing.assert_close(with_padding[:, 0], without[:, 0])
    assert (with_padding[:, 1] - without[:, 1]).abs().min() > 1e-6
