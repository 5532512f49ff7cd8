"""Gradients of passes: every instruction set, odd sizes, second order, and what watches them."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.features import normal
from tests.helpers.native_kernel import BUILT, passes_that_run
from zoo.ops import passes

pytestmark = pytest.mark.skipif(not BUILT, reason="the C++ kernel was not built")


@pytest.fixture
def ran(monkeypatch):
    return passes_that_run(monkeypatch)


def strided(x):
    """The same values, with a gap between the rows and another sequence of the axes in memory."""
    turned = F.pad(x, (0, 3)).transpose(1, 2).contiguous().transpose(1, 2)
    return turned[..., : x.shape[-1]]


def convolution(dilation, activation):
    def ours(x, weight, bias=None):
        found = passes.depthwise(x, weight, bias, dilation=dilation, activation=activation)
        assert found is not None
        return found

    def theirs(x, weight, bias=None):
        padding = dilation * (weight.shape[-1] // 2)
        x = x.permute(0, 3, 1, 2)
        y = F.conv2d(x, weight, bias, 1, padding, dilation, groups=weight.shape[0])
        return {"none": lambda x: x, "silu": F.silu, "gelu": F.gelu}[activation](
            y.permute(0, 2, 3, 1)
        )

    return ours, theirs


def norm_of(x, weight=None, bias=None):
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-3)


def weights(weight=None, bias=None):
    return passes.NormWeights(weight, bias, 1e-3)


def sum_and_norm(x, scale, added, weight, bias):
    total = x * scale + added
    return total, norm_of(total, weight, bias)


# Ours, PyTorch's, and the shapes of the inputs: "x" is that of the features, "c" of the channels,
# "g" of the gain.
TOKENS = {
    "gated": (
        lambda x, w, b, g: passes.normalised(x, weights(w, b), g),
        lambda x, w, b, g: norm_of(x, w, b) * F.silu(g),
        "xccx",
    ),
    "gated by weight": (
        lambda x, w, g: passes.normalised(x, weights(w), g),
        lambda x, w, g: norm_of(x, w) * F.silu(g),
        "xcx",
    ),
    "gated alone": (
        lambda x, g: passes.normalised(x, weights(), g),
        lambda x, g: norm_of(x) * F.silu(g),
        "xx",
    ),
    "sum": (lambda x, y: passes.scaled_sum(x, None, y), lambda x, y: x + y, "xx"),
    "scaled sum": (passes.scaled_sum, lambda x, s, y: x * s + y, "xcx"),
    "gained sum": (passes.scaled_sum, lambda x, s, y, g: x * s + y * g, "xcxg"),
    "gain alone": (
        lambda x, y, g: passes.scaled_sum(x, None, y, g),
        lambda x, y, g: x + y * g,
        "xxg",
    ),
    "sum and norm": (
        lambda x, s, y, w, b: passes.scaled_sum_and_norm(x, s, y, weights(w, b)),
        sum_and_norm,
        "xcxcc",
    ),
}


def made(shape, letters):
    """Inputs with these shapes, all different."""
    shapes = {"x": shape, "c": shape[-1:], "g": (shape[0], 1, 1, shape[-1])}
    return [normal(*shapes[letter]) + 0.1 * place for place, letter in enumerate(letters)]


def gradients(function, inputs, grads=None, **settings):
    inputs = [x.detach().requires_grad_() for x in inputs]
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if grads is None:
        grads = [normal(*y.shape).to(y.dtype) - 0.3 for y in outputs]
    return torch.autograd.grad(outputs, inputs, grads, **settings)


def same(found, expected):
    """Equal up to rounding: sums over all tokens have a thousand terms."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        worst, scale = float((one - other).abs().max()), float(other.abs().max())
        assert worst <= 4e-6 * scale + 1e-6


def compare(ours, theirs, inputs):
    expected = gradients(theirs, [x.double() for x in inputs])
    same(gradients(ours, inputs), expected)
    same(gradients(ours, [strided(x) if x.dim() == 4 else x for x in inputs]), expected)


@pytest.mark.parametrize("activation", ["none", "silu", "gelu"])
@pytest.mark.parametrize("kernel, dilation", [(3, 1), (3, 2), (1, 1), (5, 2)])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 2, 7), (1, 17, 9, 16), (2, 4, 21, 40)], ids=str
)
def test_gradients_of_a_convolution_are_pytorchs(shape, kernel, dilation, activation, level):
    inputs = [normal(*shape), normal(shape[-1], 1, kernel, kernel), normal(shape[-1])]
    pair = convolution(dilation, activation)
    compare(*pair, inputs)
    same(gradients(pair[0], inputs[:2]), gradients(pair[1], [x.double() for x in inputs[:2]]))


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_a_gradient_may_lie_in_memory_in_any_way(activation):
    shape = (2, 4, 5, 20)
    inputs = [normal(*shape), normal(shape[-1], 1, 3, 3), normal(shape[-1])]
    ours, theirs = convolution(1, activation)
    channels_first = normal(2, 20, 4, 5).permute(0, 2, 3, 1)
    for grad in (torch.ones(()).expand(shape), channels_first):
        expected = gradients(theirs, [x.double() for x in inputs], [grad.double()])
        same(gradients(ours, inputs, [grad]), expected)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_slopes_are_accurate_everywhere(activation, level):
    x = torch.cat([torch.linspace(-100, 100, 2001), torch.linspace(-8, 8, 2001)])
    x = torch.cat([x, torch.tensor([0.0, -0.0, 1e-30, 3e37, -3e37])]).reshape(1, 1, -1, 1)
    one = torch.ones(1, 1, 1, 1)
    grads = [torch.ones_like(x)]
    ours, theirs = convolution(1, activation)
    found = gradients(lambda x: ours(x, one), [x], grads)[0]
    expected = gradients(lambda x: theirs(x, one.double()), [x.double()], [grads[0].double()])[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=6e-7)
    wrong = gradients(lambda x: ours(x, one), [x * float("nan")], grads)[0]
    assert wrong.isnan().all()


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 3), (3, 5, 7, 17), (2, 9, 4, 16), (20, 2, 3, 37)], ids=str
)
def test_gradients_of_tokens_are_pytorchs(name, shape, level):
    ours, theirs, letters = TOKENS[name]
    compare(ours, theirs, made(shape, letters))


@pytest.mark.parametrize("value", [1.23, -17.3, 100.7])
def test_gradients_of_tokens_with_equal_channels_are_pytorchs(value, level):
    ours, theirs, letters = TOKENS["gated"]
    inputs = made((2, 3, 5, 57), letters)
    inputs[0] = torch.full_like(inputs[0], value)
    compare(ours, theirs, inputs)


@pytest.mark.parametrize("which", [0, 1])
def test_one_result_alone_passes_a_gradient(which):
    ours, theirs, letters = TOKENS["sum and norm"]
    inputs = made((2, 3, 4, 18), letters)
    found = gradients(lambda *x: ours(*x)[which], inputs, allow_unused=True)
    expected = gradients(
        lambda *x: theirs(*x)[which], [x.double() for x in inputs], allow_unused=True
    )
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            same([one], [other])


def test_gradients_that_nobody_wants_are_not_computed(ran):
    x, weight, bias = normal(1, 4, 5, 6), normal(6, 1, 3, 3), normal(6)
    ours, _ = convolution(1, "none")
    for wanted, expected in (
        ((True, False, False), ["zoo_depthwise", "zoo_depthwise"]),
        ((False, True, False), ["zoo_depthwise", "zoo_depthwise_weights"]),
        ((False, False, True), ["zoo_depthwise", "zoo_depthwise_weights"]),
    ):
        ran.clear()
        inputs = [
            t.clone().requires_grad_(want)
            for t, want in zip((x, weight, bias), wanted, strict=True)
        ]
        ours(*inputs).sum().backward()
        assert [t.grad is not None for t in inputs] == list(wanted)
        assert ran == expected


def test_nothing_is_recorded_without_need():
    x, norm = normal(1, 2, 3, 4), weights(normal(4))
    assert not passes.normalised(x, norm, x).requires_grad
    recorded = x.clone().requires_grad_()
    assert passes.normalised(recorded, norm, x).requires_grad
    with torch.no_grad():
        assert not passes.normalised(recorded, norm, x).requires_grad


def test_a_norm_alone_is_left_to_pytorch_if_its_gradient_is_recorded():
    x, norm = normal(1, 2, 3, 4).requires_grad_(), weights(normal(4))
    assert passes.normalised(x, norm) is None
    with torch.no_grad():
        assert passes.normalised(x, norm) is not None


@pytest.mark.parametrize("case", ["convolution", *TOKENS])
def test_gradients_of_second_order_are_pytorchs(case):
    """Inputs depend on each other, as they do in a network."""
    if case == "convolution":
        ours, theirs = convolution(2, "silu")
        inputs = [normal(1, 4, 5, 6), normal(6, 1, 5, 5), normal(6)]
    else:
        ours, theirs, letters = TOKENS[case]
        inputs = made((2, 3, 2, 5), letters)

    def penalty(function, inputs):
        first, *others = (x.detach().requires_grad_() for x in inputs)
        rest = [x * first.mean() for x in others]
        outputs = function(first, *rest)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = sum((y**3).sum() for y in outputs)
        grads = torch.autograd.grad(loss, [first, *others], create_graph=True)
        return torch.autograd.grad(sum((g**2).sum() for g in grads), [first, *others])

    expected = penalty(theirs, [x.double() for x in inputs])
    for one, other in zip(penalty(ours, inputs), expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5 * other.abs().max())


def test_batches_of_gradients_are_pytorchs():
    """As ``torch.autograd.functional.jacobian`` computes them, with a vectorised backward."""
    ours, theirs, letters = TOKENS["gated"]
    inputs = made((1, 2, 2, 3), letters)
    jacobian = functools.partial(torch.autograd.functional.jacobian, vectorize=True)
    same(jacobian(ours, tuple(inputs)), jacobian(theirs, tuple(x.double() for x in inputs)))
    conv, reference = convolution(1, "gelu")
    inputs = (normal(1, 2, 3, 2), normal(2, 1, 3, 3), normal(2))
    same(jacobian(conv, inputs), jacobian(reference, tuple(x.double() for x in inputs)))


def test_a_gradient_may_be_taken_inside_a_transform():
    """As PyTorch's documentation does for Jacobians: vmap over torch.autograd.grad."""
    x, gate, weight, bias = normal(3, 8), normal(3, 8), normal(8), normal(8)
    tensors = [t.requires_grad_() for t in (x, weight, bias, gate)]
    many = normal(5, 3, 8)
    ours = passes.normalised(x, weights(weight, bias), gate)
    theirs = norm_of(x, weight, bias) * F.silu(gate)
    assert ours is not None

    def first(y, v):
        return torch.autograd.grad(y, tensors, v, retain_graph=True)

    found = torch.vmap(functools.partial(first, ours))(many)
    right = torch.vmap(functools.partial(first, theirs))(many)
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TOKENS)
def test_a_gradient_of_tokens_may_lie_in_memory_in_any_way(name):
    ours, theirs, letters = TOKENS[name]
    inputs = made((2, 4, 5, 20), letters)
    count = 1 + (name == "sum and norm")
    for grad in (torch.ones(()).expand(2, 4, 5, 20), normal(2, 20, 4, 5).permute(0, 2, 3, 1)):
        expected = gradients(theirs, [x.double() for x in inputs], [grad.double()] * count)
        same(gradients(ours, inputs, [grad] * count), expected)


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("recorded", [False, True])
def test_each_input_may_be_the_only_one_with_a_gradient(name, recorded):
    """A layer that is not trained; recorded, the gradient is that of PyTorch's operators."""
    ours, theirs, letters = TOKENS[name]
    outputs = [0, 1, None] if name == "sum and norm" else [None]
    for place, which in ((p, w) for p in range(len(letters)) for w in outputs):

        def gradient(function, inputs, place=place, which=which):
            inputs = [x.clone() for x in inputs]
            inputs[place].requires_grad_()
            found = function(*inputs)
            found = found if isinstance(found, tuple) else (found,)
            found = found if which is None else found[which : which + 1]
            if not any(y.requires_grad for y in found):
                return None
            loss = sum((y**3).sum() for y in found)
            options = {"create_graph": recorded, "allow_unused": True}
            grad = torch.autograd.grad(loss, inputs[place], **options)[0]
            return None if grad is None else grad.detach()

        inputs = made((2, 3, 4, 6), letters)
        found = gradient(ours, inputs)
        expected = gradient(theirs, [x.double() for x in inputs])
        assert (found is None) == (expected is None) or not found.any()
        if expected is not None:
            same([found], [expected])


def test_a_plain_sum_hands_one_gradient_to_both():
    x, added = (normal(1, 2, 3, 4).requires_grad_() for _ in range(2))
    grad = normal(1, 2, 3, 4)
    both = torch.autograd.grad(passes.scaled_sum(x, None, added), [x, added], grad)
    assert torch.equal(both[0], grad) and both[0].data_ptr() == both[1].data_ptr()
    for alone in (x, added):
        total = passes.scaled_sum(x, None, added)
        assert torch.equal(torch.autograd.grad(total, alone, grad)[0], grad)


class Nothing(torch.autograd.Function):
    """Passes no gradient on."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return None


def test_without_a_gradient_there_is_none():
    x, added = (normal(1, 2, 3, 4).requires_grad_() for _ in range(2))
    Nothing.apply(passes.scaled_sum(x, None, added)).sum().backward()
    assert x.grad is None and added.grad is None


def test_a_watched_gradient_keeps_what_inputs_have_from_each_other_apart():
    ours, theirs = convolution(1, "silu")

    def total(function, x, weight):
        return function(x, weight, x.mean() + weight.sum((1, 2, 3))).sum()

    inputs = [normal(1, 4, 5, 6), normal(6, 1, 3, 3)]
    leaves = [x.clone().requires_grad_() for x in inputs]
    loss = total(ours, *leaves)
    with FlopCounterMode(display=False):
        found = torch.autograd.grad(loss, leaves)
    exact = [x.double().requires_grad_() for x in inputs]
    same(found, torch.autograd.grad(total(theirs, *exact), exact))


def test_a_watched_gradient_is_that_of_pytorchs_operators(ran):
    ours, theirs = convolution(1, "silu")
    inputs = [normal(1, 4, 5, 6), normal(6, 1, 3, 3), normal(6)]
    recorded = [x.requires_grad_() for x in inputs]
    y = ours(*recorded)
    ran.clear()
    counter = FlopCounterMode(display=False)
    with counter:
        found = torch.autograd.grad(y.sum(), recorded)
    assert not ran and counter.get_total_flops() > 0
    same(found, gradients(theirs, [x.double() for x in inputs], [torch.ones(y.shape).double()]))


def test_checkpoints_give_the_same():
    ours, _, letters = TOKENS["sum and norm"]
    inputs = made((2, 3, 4, 18), letters)
    expected = gradients(ours, inputs)
    found = gradients(lambda *x: checkpoint(ours, *x, use_reentrant=False), inputs)
    assert all(map(torch.equal, found, expected))


def test_a_changed_input_is_an_error():
    x, weight = normal(1, 4, 5, 6), normal(6, 1, 3, 3).requires_grad_()
    y = passes.depthwise(x, weight, None, dilation=1, activation="none")
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_gradients_do_not_depend_on_threads(level):
    before = torch.get_num_threads()
    conv = [normal(2, 40, 30, 50), normal(50, 1, 3, 3), normal(50)]
    ours, _, letters = TOKENS["gated"]
    found = []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            found.append(
                [
                    *gradients(convolution(1, "silu")[0], conv),
                    *gradients(ours, made((3, 40, 30, 50), letters)),
                ]
            )
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, other, found[0]))


def test_what_no_gradient_depends_on_is_not_kept():
    """Memory of training: a sum needs no token again, and a norm needs its input only."""
    x, added = normal(1, 5, 7, 16).requires_grad_(), normal(1, 5, 7, 16).requires_grad_()
    scale, gate = normal(16).requires_grad_(), normal(1, 5, 7, 16)
    norm = weights(normal(16), normal(16))

    def kept(function):
        found = []
        with torch.autograd.graph.saved_tensors_hooks(found.append, lambda tensor: tensor):
            assert function() is not None
        return sum(tensor.numel() == x.numel() for tensor in found)

    assert kept(lambda: passes.scaled_sum(x, None, added)) == 0
    assert kept(lambda: passes.scaled_sum(x, scale, added)) == 1
    assert kept(lambda: passes.normalised(x, norm, gate)) == 2
    assert kept(lambda: passes.scaled_sum_and_norm(x, scale, added, norm)) == 2
