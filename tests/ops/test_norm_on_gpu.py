"""Where the norm in Triton runs, and what it gives there: a CPU and PyTorch stand for a GPU."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import zoo
from tests.helpers.scan_cases import relative
from zoo.blocks import LayerNorm
from zoo.ops import passes
from zoo.ops.passes import on_gpu
from zoo.ops.scan.self_check import comparison, norms
from zoo.ops.scan.self_check.norms import NormCheck

EPS = 1e-5

Normed = namedtuple("Normed", ("out", "mean_T", "scale_T"))
NormGradients = namedtuple("NormGradients", ("x", "weight", "bias", "gate"))
"""The results of the kernels, whose file cannot be imported without Triton."""


def by_pytorch(x, weight, bias, gate=None, eps=EPS):
    y = F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return y if gate is None else y * F.silu(gate)


class Kernels:
    """What zoo/ops/scan/triton/norm.py computes, by PyTorch in float64; counts its calls."""

    def __init__(self, wrong=None):
        self.calls, self.wrong = [], wrong

    def forward(self, x, weight, bias, gate, eps, out_dtype, *, keep):
        self.calls.append("forward")
        self.eps = eps
        given = [None if t is None else t.double() for t in (x, weight, bias, gate)]
        out = by_pytorch(*given, eps).to(out_dtype)
        kept = (x.float().mean(-1).flatten(), torch.ones(1)) if keep else (None, None)
        if self.wrong == ("the norm" if keep else "inference"):
            out = out * 1.1
        if self.wrong == "run" and keep and self.calls.count("forward") > 2:
            out = out.nextafter(out + 1) if out.dtype == torch.float32 else out * (1 + 2**-8)
        return Normed(out, *kept)

    def backward(self, x, weight, bias, gate, mean, scale, g_out):
        assert mean is not None and scale is not None
        self.calls.append("backward")
        given = [x, weight, bias, gate]
        with torch.enable_grad():
            leaves = [None if t is None else t.detach().double().requires_grad_() for t in given]
            y = by_pytorch(*leaves, self.eps)
            wanted = [t for t in leaves if t is not None]
            found = iter(torch.autograd.grad(y, wanted, g_out.double()))
        named = {}
        for name, t in zip(("x", "weight", "bias", "gate"), given, strict=True):
            named[name] = None if t is None else next(found).to(t.dtype)
            if name == self.wrong:
                named[name] = named[name] * 1.1
        if self.wrong == "no gate":
            named["gate"] = None
        if self.wrong == "dtype":
            named["bias"] = named["bias"].double()
        return NormGradients(**named)


@pytest.fixture
def gpu(monkeypatch):
    """A CPU in place of a GPU that trusts Triton, with kernels that count their calls."""
    kernels = Kernels()
    monkeypatch.setattr(on_gpu, "GPU", "cpu")
    monkeypatch.setattr(on_gpu, "_kernels", lambda: kernels)
    monkeypatch.setattr(on_gpu, "_is_trusted", lambda device: True)
    return kernels


def made(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x, gate, grad = (torch.randn(*shape, generator=generator).to(dtype) for _ in range(3))
    weight, bias = torch.randn(2, shape[-1], generator=generator).to(dtype)
    return 1 + 3 * x, weight, bias, gate, grad


def ours(x, weight, bias, gate=None):
    return passes.normalised(x, passes.NormWeights(weight, bias, EPS), gate)


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_it_and_its_gradients_are_those_of_pytorch(gated, gpu):
    *tensors, gate, grad = made(2, 3, 5, 7)
    tensors = [t.requires_grad_() for t in (*tensors, *([gate] if gated else []))]
    found, right = (f(*tensors) for f in (ours, by_pytorch))
    assert relative(found, right) <= 1e-6
    pairs = [torch.autograd.grad(y, tensors, grad) for y in (found, right)]
    assert all(relative(a, b) <= 1e-6 for a, b in zip(*pairs, strict=True))
    assert gpu.calls == ["forward", "backward"]
    with torch.no_grad():
        assert relative(ours(*tensors), right) <= 1e-6


def test_views_are_made_contiguous_and_frozen_weights_have_no_gradient(gpu):
    x, weight, bias, gate, grad = made(2, 5, 7, 6)
    view = x.permute(0, 2, 3, 1).requires_grad_()
    weight, bias = torch.ones(5), torch.zeros(5)
    gate = gate.permute(0, 2, 3, 1)
    found, right = (f(view, weight, bias, gate) for f in (ours, by_pytorch))
    first, second = (
        torch.autograd.grad(y, view, grad.permute(0, 2, 3, 1))[0] for y in (found, right)
    )
    assert relative(found, right) <= 1e-6 and relative(first, second) <= 1e-6


def test_the_dtype_is_that_of_pytorch(gpu):
    x, weight, bias, gate, _ = made(3, 8)
    halves = x16, weight16, bias16, gate16 = [t.bfloat16() for t in (x, weight, bias, gate)]
    assert ours(*halves).dtype == torch.bfloat16
    # PyTorch promotes, or says what is wrong.
    for other in (
        (x16, weight, bias, gate16),
        (x16, weight16, bias16, gate),
        (x, weight16, bias16, gate),
        (x, weight, bias16, gate),
        (x16, weight16, bias16, gate.half()),
    ):
        assert ours(*other) is None
    with torch.autocast("cpu", torch.bfloat16):
        for tensors in (halves, (x16, weight, bias, gate), (x, weight, bias, gate16)):
            assert ours(*tensors).dtype == torch.float32
        assert ours(x, weight, bias16, gate) is None


def test_a_gradient_of_the_gradient_is_that_of_pytorch(gpu):
    *tensors, grad = (t.requires_grad_() for t in made(3, 20))

    def second(function):
        (first,) = torch.autograd.grad(function(*tensors), tensors[0], grad, create_graph=True)
        return torch.autograd.grad(first.square().sum(), tensors[0])[0]

    assert relative(second(ours), second(by_pytorch)) <= 1e-5
    assert gpu.calls == ["forward"]


def test_a_gradient_of_the_gradient_after_autocast_is_in_its_dtype(gpu):
    x, *tensors, grad = (t.requires_grad_() for t in made(3, 20))
    half = x.bfloat16()

    def second(function):
        with torch.autocast("cpu", torch.bfloat16):
            y = function(half, *tensors).float()
        (first,) = torch.autograd.grad(y, tensors[0], grad, create_graph=True)
        return torch.autograd.grad(first.square().sum(), tensors[1:], allow_unused=True)

    def in_float(x, *others):
        return by_pytorch(x.float(), *others)

    for a, b in zip(second(ours), second(in_float), strict=True):
        assert (a is None) == (b is None) and (a is None or relative(a, b) <= 1e-5)


def test_what_watches_the_gradient_sees_that_of_pytorch(gpu):
    *tensors, grad = (t.requires_grad_() for t in made(3, 8))
    y = ours(*tensors)
    gpu.calls.clear()
    many = torch.randn(5, 3, 8)

    def first(v):
        return torch.autograd.grad(y, tensors, v, retain_graph=True)

    found, right = torch.vmap(first)(many), [first(v) for v in many]
    for n, together in enumerate(found):
        assert relative(together, torch.stack([each[n] for each in right])) <= 1e-5
    assert gpu.calls == ["backward"] * 5
    gpu.calls.clear()
    x, weight, bias = tensors[:3]
    y = ours(x, weight, bias)  # PyTorch has no forward-mode gradient of the gate's gradient
    (wanted,) = torch.autograd.grad(y, x, many[0], retain_graph=True)
    gpu.calls.clear()
    with forward_ad.dual_level():
        (found,) = torch.autograd.grad(y, x, forward_ad.make_dual(grad, many[0]))
        assert relative(forward_ad.unpack_dual(found).tangent, wanted) <= 1e-5
    assert not gpu.calls


def test_parts_that_are_computed_again_outside_the_block_choose_as_before(gpu, monkeypatch):
    monkeypatch.undo()
    kernels = Kernels()
    monkeypatch.setattr(on_gpu, "GPU", "cpu")
    monkeypatch.setattr(on_gpu, "_kernels", lambda: kernels)
    monkeypatch.setattr(on_gpu.triton, "unavailable", lambda: None)
    monkeypatch.setattr(on_gpu, "serves_on_gpu", lambda backend, device: True)
    layers = torch.nn.Sequential(torch.nn.Linear(6, 6), LayerNorm(6))
    x = torch.randn(4, 6, requires_grad=True)
    with zoo.use_backend("chunked"):
        y = checkpoint(layers, x, use_reentrant=False)
    y.sum().backward()
    assert kernels.calls == ["forward", "forward", "backward"]


@pytest.mark.parametrize(
    ("change", "served"),
    [
        ({}, True),
        ({"x": torch.randn(1024, 1024), "weight": torch.ones(1024), "bias": torch.ones(1024),
          "gate": None}, True),
        ({"x": torch.randn(2, 1025), "weight": torch.ones(1025), "bias": torch.ones(1025),
          "gate": None}, False),
        ({"x": torch.randn(8), "gate": None}, False),
        ({"weight": None}, False),
        ({"bias": None}, False),
        ({"weight": torch.ones(7)}, False),
        ({"gate": torch.ones(8)}, False),
        ({"x": torch.randn(3, 8).double()}, False),
        ({"x": torch.randn(0, 8), "gate": None}, False),
        ({"bias": torch.ones(8, device="meta")}, False),
    ],
)  # fmt: skip
def test_it_runs_on_ordinary_tensors(change, served, gpu):
    x, weight, bias, gate, _ = made(3, 8)
    given = {"x": x, "weight": weight, "bias": bias, "gate": gate, **change}
    assert (ours(**given) is not None) == served
    assert bool(gpu.calls) == served


def test_nothing_that_must_see_pytorch_is_left_out(gpu, monkeypatch):
    x, weight, bias, *_ = made(3, 8)
    seen = torch.func.vmap(lambda x: by_pytorch(x, weight, bias))(x[None])
    assert relative(seen[0], by_pytorch(x, weight, bias)) <= 1e-6

    def transformed(x):
        assert ours(x, weight, bias) is None
        return x

    torch.func.vmap(transformed)(x[None])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert ours(x, weight, bias) is None and not gpu.calls


@pytest.mark.parametrize(
    ("asked", "passed", "served"),
    [("triton", False, True), ("chunked", True, False), ("", True, True), ("", False, False)],
)
def test_it_runs_where_scans_do(asked, passed, served, monkeypatch):
    kernels = Kernels()
    monkeypatch.setattr(on_gpu, "GPU", "cpu")
    monkeypatch.setattr(on_gpu, "_kernels", lambda: kernels)
    monkeypatch.setattr(on_gpu.triton, "unavailable", lambda: None)
    monkeypatch.setattr(on_gpu, "serves_on_gpu", lambda backend, device: passed)
    monkeypatch.setenv("ZOO_SCAN_BACKEND", asked)
    x, weight, bias, gate, _ = made(3, 8)
    assert (ours(x, weight, bias, gate) is not None) == served
    monkeypatch.setattr(on_gpu.triton, "unavailable", lambda: "it is missing")
    monkeypatch.delenv("ZOO_SCAN_BACKEND")
    assert ours(x, weight, bias, gate) is None


def test_a_network_uses_it_for_its_norms(gpu, monkeypatch):
    monkeypatch.setenv(passes.ENVIRONMENT, "0")  # a GPU has no others
    network = zoo.build("mambair_light_x2", dim=36, depths=[2]).eval()
    image = torch.rand(1, 3, 6, 9)
    ours = network(image)
    # Two norms in a block, one in its mixer, each of two blocks.
    assert gpu.calls.count("forward") == 6
    gpu.calls.clear()
    monkeypatch.setattr(on_gpu, "GPU", "cuda")
    theirs = network(image)
    assert not gpu.calls
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


FAULTS = {
    "the norm deviates": "the norm",
    "the norm in inference deviates": "inference",
    "the gradient of x deviates": "x",
    "the gradient of weight deviates": "weight",
    "the gradient of bias deviates": "bias",
    "the gradient of gate deviates": "gate",
    "the gradient of gate is missing": "no gate",
    "the gradient of bias has dtype torch.float64, not torch.float32": "dtype",
    "the norm differs from that of an equal run": "run",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("says", "wrong"), [("", None), *FAULTS.items()])
def test_the_self_check_finds_what_is_wrong(says, wrong, dtype, monkeypatch):
    from zoo.ops.scan.triton import norm as kernels

    stand_in = Kernels(wrong)
    monkeypatch.setattr(norms.triton, "unavailable", lambda: None)
    monkeypatch.setattr(kernels, "forward", stand_in.forward)
    monkeypatch.setattr(kernels, "backward", stand_in.backward)
    found = comparison.fault(None, NormCheck(9, 8, True, dtype), torch.device("cpu"))
    if wrong is None:
        forms = 1 if dtype == torch.float32 else 2
        assert found is None and len(stand_in.calls) == 3 * forms * comparison.RUNS
    else:
        assert found.startswith(
            says if dtype == torch.float32 else says.replace("float32", "bfloat16")
        )


def test_kernels_that_cannot_run_are_not_judged(monkeypatch):
    monkeypatch.setattr(norms.triton, "unavailable", lambda: "there is no GPU")
    assert NormCheck(9, 8, True, torch.float32).fault(torch.device("cpu"), 1) is None
