"""Prepared blocks with other weights, layers, hooks, classes or methods: each change counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.native_kernel import BUILT
from tests.helpers.prepared_blocks import DIM, built, comparison, counted_runs, features
from zoo.blocks import SS2D
from zoo.blocks import norm as module_of_norm
from zoo.blocks.channel_attention import CAB, ChannelAttention, LightCAB
from zoo.blocks.direction_merge import GatedMerge
from zoo.scans import Raster

pytestmark = pytest.mark.skipif(not BUILT, reason="the kernel was not built")


@pytest.fixture
def same(monkeypatch):
    return comparison(monkeypatch, counted_runs(monkeypatch))


def test_values_of_parameters_may_change(same):
    block, x = built(), features(1, 6, 9)
    assert same(block, x)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.mul_(1.1)
    assert same(block, x)
    for parameter in block.parameters():
        parameter.data.add_(0.01)  # tells no one
    assert same(block, x)


def replace_parameter(block):
    block.skip_scale = nn.Parameter(2 * block.skip_scale.detach())


def replace_data(block):
    block.mixer.in_proj.weight.data = 2 * block.mixer.in_proj.weight.data


def replace_layer(block):
    block.mixer.out_proj = nn.Linear(block.mixer.out_proj.in_features, DIM)


def other_eps(block):
    block.norm.eps = 0.5


def other_scan(block):
    block.mixer.scan = Raster(directions=("column", "row", "row_reversed", "column_reversed"))


def no_bias(block):
    block.branch_norm.bias = None


@pytest.mark.parametrize(
    "change", [replace_parameter, replace_data, replace_layer, other_eps, other_scan, no_bias]
)
def test_other_layers_are_prepared_anew(change, same):
    block, x = built(), features(1, 6, 9)
    assert same(block, x)
    change(block)
    assert same(block, x)


def hook(block):
    block.mixer.conv.register_forward_hook(lambda _module, _inputs, y: y + 1)


def hook_inside(block):
    block.branch.layers[-1].reduce.register_forward_hook(lambda _module, _inputs, y: y + 1)


def other_forward(block):
    own = block.mixer.out_norm.forward
    block.mixer.out_norm.forward = lambda x: own(x) + 1


def other_class(block):
    own = type(block.norm)
    block.norm.__class__ = type(
        "Other", (own,), {"forward": lambda self, x: own.forward(self, x) + 1}
    )


def other_merge(block):
    block.mixer.merge = GatedMerge(block.mixer.out_norm.normalized_shape[0])


def other_mixer(block):
    class Twice(SS2D):
        def forward(self, x_BHWC):
            return 2 * super().forward(x_BHWC)

    block.mixer = Twice(DIM).eval()


def not_contiguous(block):
    weight = block.mixer.in_proj.weight
    weight.data = weight.data.t().contiguous().t()


def double(block):
    block.mixer.A_log.data = block.mixer.A_log.data.double()


@pytest.mark.parametrize(
    "change", [hook, other_forward, other_class, other_merge, other_mixer, not_contiguous, double]
)
def test_what_cannot_be_prepared_runs_its_layers(change, same):
    block, x = built(), features(1, 6, 9)
    assert same(block, x)
    change(block)
    assert not same(block, x)


def test_a_hook_inside_the_gain_runs(same):
    block, x = built(), features(1, 6, 9)
    assert same(block, x)
    hook_inside(block)
    assert same(block, x)  # the rest is still prepared


@pytest.mark.parametrize(
    "changed",
    [lambda w: w.transpose(1, 2).contiguous().transpose(1, 2), lambda w: w[:1].expand(w.shape)],
)
def test_a_projection_that_is_read_from_a_copy_is_not_prepared(changed, same):
    block, x = built(), features(1, 6, 9)
    block.mixer.x_proj_weight.data = changed(block.mixer.x_proj_weight.data)
    assert not same(block, x)
    with torch.no_grad():
        block.mixer.x_proj_weight.data = changed(1.5 * block.mixer.x_proj_weight.data)
    assert not same(block, x)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_parameters_run_the_layers(same):
    block, x = built().requires_grad_(False), features(1, 6, 9)
    assert same(block, x)
    weight = block.mixer.out_proj.weight
    block.mixer.out_proj.weight = nn.Parameter(weight.to_sparse_csr(), requires_grad=False)
    assert not same(block, x)
    block.mixer.out_proj.weight = weight
    assert same(block, x)


def test_parameters_without_a_shape_yet_run_the_layers():
    block, x = built(), features(1, 6, 9)
    block.mixer.out_proj = nn.LazyLinear(DIM, bias=False)
    with torch.no_grad():
        torch.testing.assert_close(block(x), block(x))


class Exponential(nn.Module):
    def forward(self, x):
        return x.exp()


WEIGHTS = {
    "skip_scale": lambda block: (block, "skip_scale"),
    "branch_scale": lambda block: (block, "branch_scale"),
    "norm": lambda block: (block.norm, "weight"),
    "projection": lambda block: (block.mixer.in_proj, "weight"),
    "A_log": lambda block: (block.mixer, "A_log"),
    "D": lambda block: (block.mixer, "D"),
    "steps": lambda block: (block.mixer, "dt_proj_bias"),
    "after the scan": lambda block: (block.mixer.out_norm, "bias"),
    "branch norm": lambda block: (block.branch_norm, "bias"),
    "gain": lambda block: (block.branch.layers[-1].expand, "bias"),
}


@pytest.mark.parametrize("which", WEIGHTS)
def test_buffers_in_place_of_parameters_are_not_prepared(which, same):
    """Nobody watches the memory of a buffer."""
    block, x = built(), features(1, 9, 11)
    owner, name = WEIGHTS[which](block)
    value = getattr(owner, name).detach().clone()
    delattr(owner, name)
    owner.register_buffer(name, value)
    assert not same(block, x)
    getattr(owner, name).data = value * 1.5
    junk = [torch.full_like(value, 1e30) for _ in range(20)]  # where the former value was
    assert not same(block, x) and junk


@pytest.mark.parametrize("which", ["skip_scale", "branch_scale"])
def test_computed_parameters_are_not_prepared(which, same):
    block, x = built(), features(1, 9, 11)
    nn.utils.parametrize.register_parametrization(block, which, Exponential())
    assert not same(block, x)
    with torch.no_grad():
        getattr(block.parametrizations, which).original.add_(0.3)
    assert not same(block, x)


@pytest.mark.parametrize("value", [1.5, torch.tensor(1.5)], ids=["number", "no axis"])
def test_a_scale_may_be_one_number(value, same):
    block = built()
    del block.skip_scale
    block.skip_scale = value
    assert not same(block, features(1, 9, 11))


@pytest.mark.parametrize("which", ["skip_scale", "A_log"])
def test_gradients_of_computed_weights_are_recorded(which):
    block = built().requires_grad_(False)
    owner, name = WEIGHTS[which](block)
    value = getattr(owner, name).detach()
    delattr(owner, name)
    source = torch.ones((), requires_grad=True)
    setattr(owner, name, value * source)
    block(features(1, 9, 11)).sum().backward()
    assert source.grad is not None and float(source.grad.abs()) > 0


class Doubled(LightCAB):
    def factors(self, x_BHWC):
        features_BHWC, gain_B11C = super().factors(x_BHWC)
        return features_BHWC * 2, gain_B11C


class Longer(LightCAB):
    def before_gain(self):
        return [*super().before_gain(), nn.GELU()]


@pytest.mark.parametrize("branch", [Doubled, Longer])
def test_a_branch_of_another_class_computes_its_own(branch, same):
    block, x = built(branch), features(1, 9, 11)
    same(block, x)
    with torch.no_grad():
        assert not torch.allclose(block(x), built()(x))


@pytest.mark.parametrize("kind", [nn.Linear, nn.GELU, module_of_norm.LayerNorm])
def test_a_forward_that_is_replaced_in_a_class_runs(kind, monkeypatch, same):
    block, x = built(), features(1, 9, 11)
    assert same(block, x)
    with torch.no_grad():
        before = block(x)
    plain = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, v: plain(self, v) + 1)
    same(block, x)
    with torch.no_grad():
        changed = block(x)
    assert not torch.allclose(changed, before)
    monkeypatch.undo()
    with torch.no_grad():
        assert torch.allclose(block(x), before)


class Twice(ChannelAttention):
    def forward(self, x_BHWC):
        return 2 * super().forward(x_BHWC)


class Open(ChannelAttention):
    def gain(self, x_BHWC):
        return torch.ones_like(x_BHWC[:, :1, :1])


@pytest.mark.parametrize("kind", [Twice, Open])
@pytest.mark.parametrize("branch", [CAB, LightCAB])
def test_a_channel_attention_of_another_class_computes_its_own(kind, branch, same):
    block, x = built(branch), features(1, 9, 11)
    other = kind(DIM)
    other.load_state_dict(block.branch.layers[-1].state_dict())
    with torch.no_grad():
        before = block(x)
    block.branch.layers[-1] = other
    same(block, x)
    with torch.no_grad():
        found = block(x)
    assert not torch.allclose(found, before)
    torch.testing.assert_close(block(x).detach(), found)  # with gradients


METHODS = ["mixer.begin", "mixer.leave", "mixer.scanned", "mixer.decays", "branch.layers.5.gain"]


@pytest.mark.parametrize("everywhere", [False, True], ids=["one", "class"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_replaced_runs(name, everywhere, same, monkeypatch):
    block, x = built(), features(1, 9, 11)
    assert same(block, x)
    owner, _, method = name.rpartition(".")
    owner = block.get_submodule(owner)
    place = type(owner) if everywhere else owner
    plain, calls = getattr(place, method), []

    def watched(*arguments):
        calls.append(method)
        return plain(*arguments)

    monkeypatch.setattr(place, method, watched)
    same(block, x)
    assert calls


@pytest.mark.parametrize("everywhere", [False, True], ids=["each", "all modules"])
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_backward_hooks_see_every_module(everywhere):
    block, x = built(), features(1, 9, 11).requires_grad_()
    called, handles = set(), []
    names = {module: name for name, module in block.named_modules()}

    def hook(module, *_):
        called.add(names.get(module))

    if everywhere:
        handles.append(nn.modules.module.register_module_full_backward_hook(hook))
    else:
        handles += [module.register_full_backward_hook(hook) for module in block.modules()]
    block(x).sum().backward()
    for handle in handles:
        handle.remove()
    # The list of layers is not called, and a merge is given a tuple of tensors.
    silent = {"branch.layers", "mixer.merge"}
    assert set(names.values()) - silent <= called
