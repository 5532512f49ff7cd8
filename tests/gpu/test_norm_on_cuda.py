"""The norm in Triton on an NVIDIA GPU: ``pytest -m gpu tests/gpu``; ``--rehearse`` for a CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.scan_cases import TOLERANCE, relative
from zoo.ops import passes
from zoo.ops.passes import on_gpu
from zoo.ops.precision import autocast

pytestmark = pytest.mark.gpu

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def device(request, monkeypatch):
    monkeypatch.setattr(on_gpu, "_is_trusted", lambda device: True)
    if request.config.getoption("--rehearse"):
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    return "cuda"


def made(shape, dtype, device):
    generator = torch.Generator().manual_seed(0)
    x, gate, grad = (torch.randn(*shape, generator=generator).to(dtype) for _ in range(3))
    weight, bias = (torch.randn(shape[-1], generator=generator).to(dtype) for _ in range(2))
    return [t.to(device) for t in (1 + 3 * x, weight, bias, gate, grad)]


def gradients(function, tensors, grad):
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = function(*leaves)
    return [y, *torch.autograd.grad(y, leaves, grad.to(y.dtype))]


def by_pytorch(x, weight, bias, gate=None):
    y = F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)
    return y if gate is None else y * F.silu(gate)


def ours(x, weight, bias, gate=None):
    y = passes.normalised(x, passes.NormWeights(weight, bias, 1e-5), gate)
    return by_pytorch(x, weight, bias, gate) if y is None else y


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("shape", [(2, 5, 7, 60), (1, 64, 64, 72), (3, 33), (1, 1, 360), (9, 1000)])
def test_it_agrees_with_pytorch_in_float64(shape, gated, dtype, device, monkeypatch):
    *tensors, gate, grad = made(shape, dtype, device)
    tensors += [gate] if gated else []
    served = []
    kernels = on_gpu._kernels
    monkeypatch.setattr(on_gpu, "_kernels", lambda: served.append(1) or kernels())
    found = gradients(ours, tensors, grad)
    assert bool(served) == (device == "cuda")
    right = gradients(by_pytorch, [t.double().cpu() for t in tensors], grad.double().cpu())
    # In rehearsal, PyTorch rounds its sums to half precision.
    most = TOLERANCE[dtype] * (1 if device == "cuda" or dtype == torch.float32 else 8)
    for a, b in zip(found, right, strict=True):
        assert a.dtype == dtype and relative(a.cpu(), b) <= most


def test_under_autocast_it_returns_float32_as_pytorch_does(device):
    x, weight, bias, gate, _ = made((2, 9, 60), torch.float32, device)
    with autocast(device, "bf16"):
        found = ours(x.bfloat16(), weight, bias, gate.bfloat16())
        wanted = by_pytorch(x.bfloat16(), weight, bias, gate.bfloat16())
    assert device == "cpu" or found.dtype == wanted.dtype == torch.float32
    assert relative(found, wanted) <= TOLERANCE[torch.bfloat16]


def test_views_and_half_weights_are_right(device):
    x, weight, bias, _, grad = made((2, 60, 5, 7), torch.float32, device)
    weight, bias = weight.new_ones(60), bias.new_zeros(60)
    view = x.permute(0, 2, 3, 1)
    grad = grad.permute(0, 2, 3, 1)
    found = gradients(ours, (view, weight, bias), grad)
    right = gradients(by_pytorch, (view, weight, bias), grad)
    assert all(
        relative(a, b) <= TOLERANCE[torch.float32] for a, b in zip(found, right, strict=True)
    )


def test_equal_runs_are_equal(device):
    *tensors, grad = made((4, 50, 50, 60), torch.float32, device)
    first, second = (gradients(ours, tensors, grad) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_gradient_of_the_gradient_is_that_of_pytorch(device):
    *tensors, grad = made((3, 20), torch.float64 if device == "cpu" else torch.float32, device)
    leaves = [t.requires_grad_() for t in tensors]

    def second(function):
        (first,) = torch.autograd.grad(function(*leaves), leaves[0], grad, create_graph=True)
        return torch.autograd.grad(first.square().sum(), leaves[0])[0]

    assert relative(second(ours), second(by_pytorch)) <= 1e-4
