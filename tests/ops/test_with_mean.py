"""The mean of tokens beside the tokens, in training: values and gradients of any order."""

from __future__ import annotations

import functools

import pytest
import torch

from tests.helpers.features import normal
from tests.helpers.native_kernel import BUILT
from zoo.blocks.channel_attention import ChannelAttentionBranch
from zoo.ops import passes

pytestmark = pytest.mark.skipif(not BUILT, reason="the C++ kernel was not built")

SHAPES = [(1, 1, 1), (3, 5, 17), (2, 3, 4, 18), (1, 2, 1, 3, 5)]


def plain(x):
    return x, x.mean(tuple(range(1, x.dim() - 1)), keepdim=True)


def loss(function, x):
    """Of both results, neither linear in its own."""
    features, mean = function(x)
    return (features**3).sum() + (mean**2 * features[:1]).sum() + mean.sin().sum()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("second", [False, True])
def test_values_and_gradients_are_pytorchs(shape, second):
    x = normal(*shape)
    found = passes.with_mean(x.clone().requires_grad_())
    assert found is not None and torch.equal(found[0], x)
    torch.testing.assert_close(found[1], plain(x)[1])

    def gradient(function, x):
        x = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(loss(function, x), x, create_graph=second)
        return torch.autograd.grad((first**2).sum(), x)[0] if second else first

    expected = gradient(plain, x.double())
    # Sums over some hundred values in float32.
    torch.testing.assert_close(
        gradient(passes.with_mean, x).double(), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("which", [0, 1])
def test_one_result_may_be_unused(which):
    x = normal(2, 3, 4, 5)
    grads = []
    for function in (passes.with_mean, plain):
        leaf = x.clone().requires_grad_()
        (function(leaf)[which] ** 2).sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("turned", [False, True])
def test_gradients_may_lie_in_memory_in_any_way(turned):
    x = normal(2, 5, 4, 6).permute(0, 3, 2, 1) if turned else normal(2, 6, 4, 5)
    for grad in (torch.ones(()).expand(x.shape), normal(2, 5, 4, 6).permute(0, 3, 2, 1)):
        grads = []
        for function in (passes.with_mean, plain):
            leaf = x.clone().requires_grad_()
            features, mean = function(leaf)
            torch.autograd.backward((features, mean), (grad, torch.ones_like(mean)))
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads)


def test_many_gradients_at_once_are_pytorchs():
    x = normal(1, 2, 3, 2)
    jacobian = functools.partial(torch.autograd.functional.jacobian, vectorize=True)
    for one, other in zip(jacobian(passes.with_mean, x), jacobian(plain, x), strict=True):
        torch.testing.assert_close(one, other)


def test_it_is_for_training_alone(monkeypatch):
    x = normal(2, 3, 4, 5)
    assert passes.with_mean(x) is None  # the gate has a pass of its own
    x.requires_grad_()
    with torch.no_grad():
        assert passes.with_mean(x) is None
    assert passes.with_mean(x.double()) is None
    assert passes.with_mean(x[0, 0]) is None  # no tokens
    monkeypatch.setenv(passes.ENVIRONMENT, "0")
    assert passes.with_mean(x) is None


def test_the_features_of_a_channel_attention_have_one_gradient(monkeypatch):
    """PyTorch's form divides the mean's gradient, and adds it to that of the features."""
    attention = ChannelAttentionBranch(6, squeeze=2)
    x = normal(2, 3, 4, 6)
    found = {}
    for switch in ("1", "0"):
        monkeypatch.setenv(passes.ENVIRONMENT, switch)
        leaf = x.clone().requires_grad_()
        attention.zero_grad()
        y = attention(leaf)
        assert ("WithMean" in str(graph_of(y))) == (switch == "1")
        (y**2).sum().backward()
        found[switch] = [y, leaf.grad, *(p.grad for p in attention.parameters())]
    for one, other in zip(found["1"], found["0"], strict=True):
        torch.testing.assert_close(one, other)


def graph_of(y):
    """The names of all steps back from a tensor."""
    names, rest = [], [y.grad_fn]
    while rest:
        node = rest.pop()
        if node is not None:
            names.append(node.name())
            rest += [following for following, _ in node.next_functions]
    return names
