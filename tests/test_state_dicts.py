"""State dicts in memory and of wrapped networks: loaded, saved, detected, named as ours."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import zoo
from tests.helpers.small_weights import below, holds, small_network, their_names
from zoo.checkpoints import save_official, state_for
from zoo.checkpoints.files import read_state, write_safetensors
from zoo.errors import CheckpointError, RecipeError, ZooError
from zoo.networks import NETWORKS, Network
from zoo.registry import temporary_registrations


@pytest.fixture(scope="module")
def plain():
    """The authors' state dict."""
    return their_names(small_network())


@pytest.fixture(scope="module")
def average(plain):
    """Its moving average, which differs everywhere."""
    return {key: tensor + 1 for key, tensor in plain.items()}


# ------------------------------------------------------------- wrapped networks of our own


def part_compiled(network):
    network.groups[0].blocks[0] = torch.compile(network.groups[0].blocks[0])
    return network


WRAPPED = {
    "compiled": torch.compile,
    "a compiled part": part_compiled,
    "several GPUs": nn.DataParallel,
    "both": lambda network: torch.compile(nn.DataParallel(network)),
    "averaged": AveragedModel,
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_wrapped_network_is_saved_as_the_network_in_it(tmp_path, wrap):
    network = small_network()
    expected = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    theirs = their_names(network)
    wrapped = WRAPPED[wrap](network)
    zoo.save(wrapped, tmp_path / "w.safetensors")
    assert read_state(tmp_path / "w.safetensors")[0].keys() == expected.keys()
    found = zoo.load(tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    save_official(wrapped, tmp_path / "w.pth")
    assert torch.load(tmp_path / "w.pth", weights_only=True)["params"].keys() == theirs.keys()


def test_a_file_of_a_compiled_network_from_before_is_read(tmp_path):
    network = small_network()
    state = below("_orig_mod.", network.state_dict())
    zoo.save(network, tmp_path / "w.safetensors")
    facts = read_state(tmp_path / "w.safetensors")[1]
    write_safetensors(tmp_path / "w.safetensors", state, facts)
    assert holds(zoo.load(tmp_path / "w.safetensors"), their_names(network))


def test_what_is_no_network_of_ours_is_not_saved(tmp_path):
    for other in (nn.Linear(1, 1), nn.DataParallel(nn.Linear(1, 1))):
        with pytest.raises(CheckpointError, match="is no network of this package"):
            zoo.save(other, tmp_path / "w.safetensors")


def test_a_network_whose_modules_have_usual_names_is_not_cut(tmp_path):
    """Its own names, which are known from the recipe, count more than those of trainers."""

    class Named(Network):
        def __init__(self, *, channels: int = 3):
            super().__init__()
            self._set_sizes(scale=1, channels=channels, out_channels=None)
            self.model = nn.ModuleDict({"ema": nn.Linear(1, 1), "module": nn.Linear(1, 1)})

    with temporary_registrations():
        NETWORKS.register("named")(Named)
        network = zoo.build({"network": {"type": "named"}})
        zoo.save(network, tmp_path / "w.safetensors")
        torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
        for name in ("w.safetensors", "w.pth"):
            found = zoo.load(tmp_path / name, recipe={"network": {"type": "named"}}).state_dict()
            assert all(torch.equal(found[k], t) for k, t in network.state_dict().items())


# ------------------------------------------------------------------- in memory, device, dtype


def test_a_state_dict_is_loaded_in_place_of_a_file(plain):
    network = small_network()
    ours = network.state_dict()
    assert holds(zoo.load(ours, recipe=network.recipe), their_names(network))
    assert zoo.load(plain).recipe.name == "custom"
    parameters = dict(network.named_parameters())
    assert holds(zoo.load(parameters, recipe=network.recipe), their_names(network))
    with pytest.raises(CheckpointError, match=r"the names are ours, but do not say .*recipe="):
        zoo.load(ours)
    with pytest.raises(CheckpointError, match="the state dict: 'a' is a sparse tensor"):
        zoo.load({"a": torch.eye(2).to_sparse()})
    for wrong, message in [
        (network, "a path or a state dict, not SingleImage"),
        ({}, "the state dict: is empty; it holds no tensor of a network"),
        ({"a": np.zeros(1)}, "'a' is a NumPy array; make tensors of the arrays with torch.from_n"),
        ({"params": {"a": np.zeros(1)}}, "'params.a' is a NumPy array"),
        ({"epoch": 3}, "entry 'epoch' is not a tensor with a name"),
        ({3: torch.zeros(1)}, "entry with a key of int is not a tensor with a name"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            zoo.load(wrong)


def test_device_and_dtype_are_those_that_were_asked_for(plain):
    parameter = next(zoo.load(plain).parameters())
    assert (parameter.dtype, parameter.device.type) == (torch.float32, "cpu")
    for device, dtype in [
        ("cpu", torch.bfloat16),
        (torch.device("cpu"), "bfloat16"),
        ("cpu:0", "torch.bfloat16"),
    ]:
        network = zoo.load(plain, device=device, dtype=dtype)
        assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    double = zoo.load(plain, dtype=torch.float64)
    assert torch.equal(double.shallow.weight, plain["conv_first.weight"].double())
    for device, message in [
        ("gpu", "device gpu: unknown device; known"),
        ("cuda:9999", "device cu"),
    ]:
        with pytest.raises(ZooError, match=message):
            zoo.load(plain, device=device)
    for dtype in (torch.int8, "bf16", 16):
        with pytest.raises(ZooError, match=rf"dtype is .*{dtype}'?; this network works in float"):
            zoo.load(plain, dtype=dtype)


def test_a_dtype_that_a_network_does_not_take_is_refused():
    with pytest.raises(ZooError, match=r"this network works in float32, bfloat16$"):
        zoo.load("qmambabsr_tiny", dtype=torch.float16)


# ---------------------------------------------------------------------------------- detection


def test_a_recipe_is_detected_without_building_its_network(tmp_path, plain):
    recipe = zoo.detect({"params": plain})
    assert recipe.name == "custom" and recipe.network["scale"] == 2
    assert zoo.build(recipe).state_dict().keys() == small_network().state_dict().keys()
    torch.save(below("module.", plain), tmp_path / "mine.pth")
    assert zoo.detect(tmp_path / "mine.pth").name == "mine"
    assert zoo.detect("mambair_tiny_x2").name == "mambair_tiny_x2"


def test_facts_that_tensors_do_not_show_are_asked_for():
    network = zoo.build("mair_light_t_x2", dim=8, depths=[1])
    theirs = their_names(network)
    with pytest.raises(CheckpointError, match="pass scan_len=8"):
        zoo.detect(theirs)
    assert zoo.detect(theirs, scan_len=4).network["scans"][0]["width"] == 4
    with pytest.raises(RecipeError, match="unknown fact 'scan_lem'; did you mean 'scan_len'"):
        zoo.detect(theirs, scan_lem=4)
    with pytest.raises(CheckpointError, match="not recognised"):
        zoo.detect({"a": torch.zeros(1)})
    for key, told in (
        ("a", "known are our own files and MambaIR, "),
        ("head.a", "the names are o"),
    ):
        with pytest.raises(CheckpointError) as caught:
            zoo.detect({key: torch.zeros(1)})
        assert told in str(caught.value) and "as_published" not in str(caught.value)


def test_tensors_of_another_network_are_given_by_our_names(plain, average, caplog):
    with caplog.at_level(logging.INFO):
        state_for(small_network(), {"params": plain, "params_ema": average})
    assert "used the moving average of the weights below 'params_ema'" in caplog.text
    found = state_for(small_network(), {"net_g": plain})
    assert found.keys() == small_network().state_dict().keys()
    assert state_for(nn.Linear(2, 2), {"module.weight": plain["conv_first.weight"]}).keys() == {
        "weight"
    }
