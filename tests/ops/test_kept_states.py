"""What the C++ kernel's forward pass keeps for the backward pass: the state of each 32nd step."""

from __future__ import annotations

import ctypes

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.native_kernel import BUILT
from tests.helpers.scan_cases import TOLERANCE, Case, make_inputs, relative
from zoo.ops import selective_scan
from zoo.ops.scan import native, transforms
from zoo.ops.scan.contract import ScanInputs

pytestmark = pytest.mark.skipif(not BUILT, reason="the C++ kernel was not built")

CASES = [
    Case(B=2, L=100, K=4, E=37, R=3, N=5, order="padded"),
    Case(B=1, L=65, K=2, E=16, N=17, low_rank=False, reduce=False),
    Case(B=3, L=64, K=1, E=90, R=9, N=2),
    Case(B=1, L=33, K=3, E=6, R=1, N=1),
    Case(B=2, L=32, K=2, E=6, R=1, N=3),  # a single chunk: there is nothing to keep
]


def given(case: Case, dtype: torch.dtype = torch.float32) -> tuple[ScanInputs, torch.Tensor]:
    inputs = ScanInputs(*make_inputs(case, dtype))
    shape = inputs.u.shape if case.reduce else (*inputs.u.shape[:2], *inputs.D.shape)
    return inputs, torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def states_by_steps(inputs: ScanInputs) -> torch.Tensor:
    """The states (B, K, S, N, E) before each step, by the equation, in float64."""
    u, delta, weight, bias, A, B, _, _, order = (
        None if t is None else t if t.dtype == torch.int32 else t.double() for t in inputs
    )
    found = torch.zeros(u.shape[0], A.shape[0], order.shape[-1], A.shape[2], u.shape[2])
    for image in range(u.shape[0]):
        for k in range(A.shape[0]):
            h = torch.zeros(A.shape[2], u.shape[2], dtype=torch.float64)
            path = order[k] if order.dim() == 2 else order[image, k]
            for s, token in enumerate(path.tolist()):
                found[image, k, s] = h
                raw, x = bias[k].clone(), torch.zeros(u.shape[2], dtype=torch.float64)
                b = torch.zeros(A.shape[2], dtype=torch.float64)
                if token >= 0:
                    low = delta[image, token, k]
                    raw += low if weight is None else weight[k] @ low
                    x, b = u[image, token], B[image, token, k]
                step = functional.softplus(raw)
                h = torch.exp(step * A[k].T) * h + step * x * b[:, None]
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_state_before_every_32nd_step(case, level):
    inputs, _ = given(case)
    y, kept = native.forward_keeping(inputs, case.reduce)
    assert torch.equal(y, native.forward(inputs, case.reduce))
    expected = states_by_steps(inputs)[:, :, 32::32]
    assert kept.shape == expected.shape and kept.is_contiguous()
    if kept.numel():
        assert relative(kept, expected) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_from_it_are_those_without_it(case, dtype, level):
    inputs, grad_y = given(case, dtype)
    _, kept = native.forward_keeping(inputs, case.reduce)
    expected = native.backward(inputs, grad_y, case.reduce)
    found = native.backward_kept(inputs, kept, grad_y, case.reduce)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)


def test_gradients_are_computed_from_it():
    """Other states give other gradients; this is what saves the backward pass a scan."""
    inputs, grad_y = given(CASES[0])
    _, kept = native.forward_keeping(inputs, True)
    right = native.backward_kept(inputs, kept, grad_y, True)
    assert not torch.equal(native.backward_kept(inputs, kept + 1, grad_y, True).A, right.A)
    apart = torch.stack([kept, kept], -1)[..., 0]
    assert torch.equal(native.backward_kept(inputs, apart, grad_y, True).A, right.A)


@pytest.mark.parametrize("wrong", ["shape", "dtype"])
def test_what_is_kept_for_other_inputs_is_not_read(wrong):
    inputs, grad_y = given(CASES[0])
    _, kept = native.forward_keeping(inputs, True)
    other = (kept + 1).double() if wrong == "dtype" else kept[:1] + 1
    right = native.backward(inputs, grad_y, True)
    assert torch.equal(native.backward_kept(inputs, other, grad_y, True).A, right.A)


def test_the_library_takes_a_place_of_the_right_size_only():
    inputs, _ = given(CASES[0])
    y, kept = native.forward_keeping(inputs, True)
    scan = native.describe(inputs, True, kept)
    call = native.library().zoo_scan_forward
    for floats, offset, status in ((-1, 0, 4), (1, 0, 4), (-kept.numel(), 0, 4), (0, 1, 7)):
        scan.kept_floats = kept.numel() + floats
        scan.kept = kept.data_ptr() + offset
        assert call(ctypes.byref(scan), y.data_ptr(), None, 1, None) == status
    scan.kept, scan.kept_floats = kept.data_ptr(), kept.numel()
    assert call(ctypes.byref(scan), y.data_ptr(), None, 1, None) == 0
    scan.batch = scan.channels = 2**62  # their product is no int64_t
    assert call(ctypes.byref(scan), y.data_ptr(), None, 1, None) == 4


@pytest.fixture
def calls(monkeypatch):
    """How often the backward pass started from what was kept, and how often it did not."""
    found = {"backward": 0, "backward_kept": 0}

    def counted(name):
        function = getattr(native, name)

        def run(*arguments):
            found[name] += 1
            return function(*arguments)

        return run

    for name in found:
        monkeypatch.setattr(native, name, counted(name))
    return found


def leaves(case: Case) -> list[torch.Tensor]:
    inputs, _ = given(case)
    return [t if t.dtype == torch.int32 else t.requires_grad_() for t in inputs]


def test_training_keeps_it(calls):
    tensors = leaves(CASES[0])
    selective_scan(*tensors, reduce=True, backend="native").sum().backward()
    assert calls == {"backward": 0, "backward_kept": 1}
    checkpoint(
        lambda *t: selective_scan(*t, reduce=True).sum(), *tensors, use_reentrant=False
    ).backward()
    assert calls == {"backward": 0, "backward_kept": 2}


def test_whoever_looks_at_a_call_sees_the_operator(calls):
    tensors = leaves(CASES[0])

    def scan(u):
        return selective_scan(u, *tensors[1:], reduce=True, backend="native").sum()

    with FlopCounterMode(display=False) as counted:
        y = scan(tensors[0])
    assert counted.get_total_flops() > 0
    y.backward()
    torch.func.grad(scan)(tensors[0].detach())
    assert calls == {"backward": 2, "backward_kept": 0}
    y = scan(tensors[0])
    with FlopCounterMode(display=False):
        y.backward()
    assert calls == {"backward": 3, "backward_kept": 0}
    (u,) = torch.autograd.grad(scan(tensors[0]), tensors[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="second order"):
        u.sum().backward()


def test_tensors_of_other_classes_and_devices_are_not_alone():
    class Other(torch.Tensor):
        pass

    plain = torch.zeros(1)
    assert transforms._alone([plain, None, torch.nn.Parameter(plain)])
    assert not transforms._alone([plain, plain.as_subclass(Other)])
    assert not transforms._alone([plain, plain.to("meta")])


def test_gradients_of_many_outputs_at_once():
    inputs, grad = given(CASES[0])
    u = inputs.u.detach().requires_grad_()
    y = selective_scan(*inputs._replace(u=u), reduce=True, backend="native")
    grads = torch.stack([grad, 2 * grad])
    (many,) = torch.autograd.grad(y, u, grads, retain_graph=True, is_grads_batched=True)
    for each, expected in zip(many, grads, strict=True):
        (found,) = torch.autograd.grad(y, u, expected, retain_graph=True)
        assert relative(each, found) <= TOLERANCE[torch.float32]
