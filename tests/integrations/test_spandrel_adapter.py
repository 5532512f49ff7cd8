"""The adapter for spandrel, with a stand-in that keeps what it is given.

The real one, which needs another build of PyTorch, is in test_spandrel.py.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch

import zoo
from tests.helpers.official_weights import CASES, state_dict
from tests.helpers.small_weights import small_network
from zoo.checkpoints import OFFICIAL
from zoo.checkpoints.embedded import KEY, embedded
from zoo.errors import ZooError
from zoo.integrations.spandrel import OWN, install, is_ours
from zoo.registry import Capabilities


class Architecture:
    def __init__(self, *, id, detect, name=None):
        self.id, self.detect, self.name = id, detect, name or id


class Registry:
    """Architectures in the sequence in which they are added; each is kept once."""

    def __init__(self, *ids):
        self.kept = [supported(Architecture(id=name, detect=lambda state: True)) for name in ids]

    def architectures(self):
        return iter(self.kept)

    def __contains__(self, name):
        return name in [support.architecture.id for support in self.kept]

    def add(self, *supports):
        assert not any(support.architecture.id in self for support in supports)
        self.kept += supports
        return list(supports)


def supported(architecture, before=()):
    return SimpleNamespace(architecture=architecture, before=before)


def described(network, state, **facts):
    return SimpleNamespace(model=network, state=state, **facts)


@pytest.fixture
def spandrel(monkeypatch):
    module = SimpleNamespace(
        MAIN_REGISTRY=Registry("ESRGAN"),
        Architecture=Architecture,
        ArchSupport=SimpleNamespace(from_architecture=supported),
        ImageModelDescriptor=described,
        SizeRequirements=lambda **given: given,
        ModelTiling=SimpleNamespace(SUPPORTED="supported", DISCOURAGED="discouraged"),
    )
    monkeypatch.setitem(sys.modules, "spandrel", module)
    return module


def ids(registry):
    return [support.architecture.id for support in registry.kept]


def test_ours_come_before_the_others_and_once(spandrel):
    names = [*(release.name for release in OFFICIAL), OWN]
    own = Registry("SPAN", "SwinIR", names[1])
    assert install(own) == [name for name in names if name != names[1]]
    assert ids(own)[:3] == ["SPAN", "SwinIR", names[1]] and install(own) == []
    assert {support.before for support in own.kept[3:]} == {("SPAN", "SwinIR", names[1])}
    assert ids(spandrel.MAIN_REGISTRY) == ["ESRGAN"]
    assert install() == names and ids(spandrel.MAIN_REGISTRY) == ["ESRGAN", *names]
    assert spandrel.MAIN_REGISTRY.kept[-1].architecture.name == "Mamba Restoration Zoo"


def test_a_library_that_does_not_load_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ZooError, match=r"^spandrel cannot be imported .*\[spandrel\]\), with"):
        install()


@pytest.fixture
def load(spandrel):
    """What spandrel does: the first architecture of ours that knows the tensors loads them."""
    registry = Registry()
    install(registry)

    def loaded(state):
        found = [s.architecture for s in registry.kept if s.architecture.detect(state)]
        model = found[0].load(state)
        assert model.architecture is found[0]
        return model

    return loaded


def test_a_file_with_our_names_is_known_with_all_that_tools_ask_for(load):
    network = zoo.load("mambair_tiny_x2")
    model = load(network.state_dict())
    assert model.architecture.id == OWN
    image = torch.rand(1, 3, 7, 9)
    with torch.inference_mode():
        assert torch.equal(model.model(image), network(image))
    assert model.state.keys() == network.state_dict().keys()
    assert (model.purpose, model.scale, model.tiling) == ("SR", 2, "supported")
    assert (model.input_channels, model.output_channels) == (3, 3)
    assert model.supports_half and model.supports_bfloat16 and model.size_requirements == {}
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert model.tags == ["48dim", "2x2blocks", f"{millions:.1f}M"]


def test_the_authors_files_are_known_by_their_release(load):
    for case, name, purpose, tiling in (
        ("ir_light_x3_17x23", "MambaIR", "SR", "supported"),
        ("ir_realdn_unet_16x24", "MambaIRUNet", "Restoration", "discouraged"),
    ):
        assert case in CASES
        model = load(state_dict(case))
        assert (model.architecture.id, model.purpose, model.tiling) == (name, purpose, tiling)


def test_a_precision_that_a_network_does_not_have_is_not_promised(load, monkeypatch):
    network = small_network(channels=1)
    state = {**network.state_dict(), **embedded(json.dumps(network.recipe.data()))}
    for able in ("float16", "bfloat16"):
        network.capabilities = Capabilities(dtypes=("float32", able))
        monkeypatch.setattr("zoo.integrations.spandrel.load", lambda *_, **__: network)
        model = load(state)
        assert model.supports_half == (able == "float16") != model.supports_bfloat16
    assert (model.input_channels, model.output_channels) == (1, 1)
    assert model.tags[:2] == ["8dim", "1blocks"]


def test_tensors_that_do_not_show_their_network_are_not_ours():
    network = small_network()
    state = network.state_dict()
    assert is_ours(state) and is_ours({KEY: torch.zeros(3)}) and not is_ours({})
    assert not is_ours({key: state[key] for key in state if key != "shallow.weight"})
    assert not is_ours({key: state[key] for key in state if not key.endswith(".A_log")})
    assert not is_ours({"shallow.weight": torch.zeros(3), "a.A_log": torch.zeros(3)})
    assert not is_ours(zoo.build("qmambabsr_tiny").state_dict())  # it takes more than an image
    assert not is_ours(small_network(**{"block.branch": "mlp"}).state_dict())  # never published


def test_networks_that_take_more_than_an_image_are_refused(load):
    burst = zoo.build("qmambabsr_tiny")
    guided = small_network(guides={"pan": {"channels": 1, "scale": 2}, "map": {"channels": 3}})
    for network, more in ((burst, "a burst of frames"), (guided, r"guides \(pan, map\)")):
        state = {**network.state_dict(), **embedded(json.dumps(network.recipe.data()))}
        with pytest.raises(ZooError, match=f"takes {more}, and models of spandrel take one image"):
            load(state)
