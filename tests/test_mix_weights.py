"""examples/mix_weights.py: a weighted mean of weights."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import zoo
from tests.helpers.small_weights import small_network
from zoo.checkpoints import save

SCRIPT = Path(__file__).parents[1] / "examples" / "mix_weights.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("mix_weights", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two files of one network, with other weights, in the current folder."""
    monkeypatch.chdir(tmp_path)
    networks = []
    for name in ("a=b", "c"):
        network = small_network()
        with torch.no_grad():
            for tensor in network.parameters():
                tensor.normal_()
        save(network, tmp_path / f"{name}.safetensors")
        networks.append(network)
    return networks


def test_weights_are_mixed_by_their_shares(script, files):
    words = ["a=b.safetensors=0.6", "c.safetensors=0.4", "-o", "mixed.safetensors"]
    assert script.main(words) == 0
    found = zoo.load("mixed.safetensors")
    assert found.recipe.network == files[0].recipe.network
    first, second = (network.state_dict() for network in files)
    for name, tensor in found.state_dict().items():
        expected = (0.6 * first[name].double() + 0.4 * second[name].double()).float()
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a=b.safetensors=0.6", "c.safetensors=0.5"], r"the shares are \[0.6, 0.5\]; their sum"),
        (["c.safetensors"], "c.safetensors: write a file or a model, '=' and its share"),
        (["c.safetensors=nan"], "their sum must be 1"),
        (["c.safetensors=0.5", "mambair_tiny_x2=0.5"], "weights 2 are of another network"),
        (["none.safetensors=1"], "none.safetensors"),
    ],
)
def test_what_cannot_be_mixed_is_told(script, files, capsys, words, message):
    assert script.main([*words, "-o", "mixed.safetensors"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("mix_weights: error: ") and told.count("\n") == 1
    assert re.search(message, told), told
    assert not Path("mixed.safetensors").exists()
