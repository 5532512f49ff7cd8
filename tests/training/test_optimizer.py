"""What weight decay moves: weights alone, or everything, as the authors' trainers do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from zoo.training import make_optimizer
from zoo.training.optimizer import is_weight
from zoo.training.settings import OptimizerSettings


def kept_and_moved(network, **settings):
    """Names of parameters that one step with gradients of zero leaves as they are, and the rest."""
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = make_optimizer(
        network, OptimizerSettings(type="adamw", lr=0.1, weight_decay=0.5, **settings)
    )
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kept = {name for name, value in network.named_parameters() if bool((value == 1).all())}
    return kept, before.keys() - kept


def leaf(name):
    return name.rpartition(".")[2]


@pytest.fixture(scope="module")
def network():
    return zoo.build("mambair_light_x2", dim=30, depths=[1])


def test_weight_decay_leaves_the_scan_norms_biases_and_skips_alone(network):
    kept, moved = kept_and_moved(network)
    assert {leaf(name) for name in kept} >= {
        *("A_log", "D", "dt_proj_bias", "skip_scale", "branch_scale", "bias"),
    }
    assert {leaf(name) for name in moved} == {"weight", "x_proj_weight", "dt_proj_weight"}
    norms = {name for name in kept if leaf(name) == "weight"}
    assert norms and all("norm" in name for name in norms)
    assert not any("norm" in name for name in moved)


def test_the_authors_decay_moves_all_parameters(network):
    kept, moved = kept_and_moved(network, decay="all")
    assert not kept and moved


@pytest.mark.parametrize("recipe", ["mambairv2_light_x2", "qmambabsr_tiny", "wavemamba_uhdll"])
def test_every_parameter_belongs_to_one_group(recipe):
    network = zoo.build(recipe)
    optimizer = make_optimizer(network, OptimizerSettings(weight_decay=0.1))
    groups = optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(map(id, network.parameters()))


def test_without_decay_there_is_one_group_as_in_older_checkpoints(network):
    for settings in ({}, {"weight_decay": 0.1, "decay": "all"}):
        assert len(make_optimizer(network, OptimizerSettings(**settings)).param_groups) == 1


def test_a_part_can_exempt_a_parameter_of_its_own():
    weight = nn.Parameter(torch.ones(3, 3))
    assert is_weight("layer.weight", weight)
    weight._no_weight_decay = True
    assert not is_weight("layer.weight", weight)
    for name, shape in [("A_log", (2, 3, 4)), ("x.bias_table", (9, 2)), ("t", (1, 1, 1)), ("s", 5)]:
        assert not is_weight(name, nn.Parameter(torch.ones(shape)))


@pytest.mark.parametrize("type", ["adam", "adamw"])
def test_the_optimiser_has_the_settings_of_the_recipe(type, network):
    optimizer = make_optimizer(
        network, OptimizerSettings(type=type, lr=3e-3, betas=(0.8, 0.95), weight_decay=0.01)
    )
    assert type == optimizer.__class__.__name__.lower()
    for group, decay in zip(optimizer.param_groups, (0.01, 0.0), strict=True):
        assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-3, (0.8, 0.95), decay)
