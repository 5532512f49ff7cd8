"""Names of the tensors of a user's own parts in other code, registered beside the parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from zoo.blocks import SS2D, Block, Branch, Conv2d, MixerFactory
from zoo.checkpoints import Rule, flat, kernel, save_official
from zoo.errors import CheckpointError, RecipeError
from zoo.heads import Head
from zoo.registry import temporary_registrations


class Own(Block):
    """A block with a layer of its own before a mixer."""

    def __init__(self, dim, *, scan=None, drop_path=0.0, mixer: MixerFactory = SS2D):
        super().__init__()
        self.mix = nn.Linear(dim, dim)
        self.mixer = mixer(dim, scan=scan)

    def forward(self, x_BHWC):
        return x_BHWC + self.mixer(self.mix(x_BHWC))


class OwnMixer(SS2D):
    """A mixer whose scan has other names there, and other shapes."""


class OwnBranch(Branch):
    def __init__(self, dim):
        super().__init__()
        self.layer = nn.Linear(dim, dim)

    def forward(self, x_BHWC):
        return self.layer(x_BHWC)


class OwnHead(Head):
    def __init__(self, dim, *, scale: int, channels: int):
        super().__init__()
        self.out = Conv2d(dim, channels, 3, padding=1)

    def forward(self, features_BHWC, image_BHWI):
        return self.out(features_BHWC)


@pytest.fixture
def own_parts():
    """The parts above, with their names in the code that they come from, until the test ends."""
    with temporary_registrations():
        zoo.register("block", "own", keys=[("my_mix.{rest}", "mix.{rest}")])(Own)
        mixer_keys = [
            Rule("mamba.A", "A_log", flat),
            ("mamba.{rest}", "{rest}"),
        ]
        zoo.register("mixer", "own", keys=mixer_keys)(OwnMixer)
        zoo.register("branch", "own", keys=[("ffn.0.weight", "layer.weight", kernel),
                                            ("ffn.0.bias", "layer.bias")])(OwnBranch)  # fmt: skip
        zoo.register("head", "own", keys=[("to_image.{rest}", "out.{rest}")])(OwnHead)
        yield


ROW = "layers.1.residual_group.blocks.0."
RSSB = {"type": "rssb", "branch": {"compress": 2, "squeeze": 4}}
BASE = {"type": "single_image", "dim": 8, "depths": [1, 1], "block": RSSB}
NETWORKS = {
    "block": (
        {**BASE, "block": "own", "head": "residual", "scale": 1},
        {f"{ROW}my_mix.weight", f"{ROW}self_attention.A_logs", "conv_first.weight"},
    ),
    "blocks in turn": (
        {**BASE, "depths": [2, 2], "block": ["own", RSSB], "head": "residual", "scale": 1},
        {f"{ROW}my_mix.weight", "layers.1.residual_group.blocks.1.ln_1.weight"},
    ),
    "mixer": (
        {**BASE, "block": {**RSSB, "mixer": "own"}, "head": "residual", "scale": 1},
        {f"{ROW}mamba.A", f"{ROW}mamba.in_proj.weight", f"{ROW}conv_blk.cab.0.weight"},
    ),
    "both": (
        {**BASE, "block": {"type": "own", "mixer": "own"}, "head": "residual", "scale": 1},
        {f"{ROW}mamba.A", f"{ROW}my_mix.weight"},
    ),
    "branch": (
        {**BASE, "block": {**RSSB, "branch": "own"}, "head": "residual", "scale": 1},
        {f"{ROW}ffn.0.weight", f"{ROW}self_attention.A_logs"},
    ),
    "head": ({**BASE, "head": "own", "scale": 1}, {"to_image.weight", f"{ROW}ln_1.bias"}),
    "U-Net": (
        {"type": "unet", "dim": 8, "depths": [1, 1, 1, 1], "refinement": 1, "block": "own"},
        {"encoder_level2.0.my_mix.weight", "latent.0.my_mix.bias", "output.weight"},
    ),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_part_brings_its_names_in_other_code(own_parts, tmp_path, kind):
    described, names = NETWORKS[kind]
    network = zoo.build({"network": described}).eval()
    save_official(network, tmp_path / "theirs.pth")
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)["params"]
    assert names <= theirs.keys()
    if f"{ROW}mamba.A" in theirs:
        assert theirs[f"{ROW}mamba.A"].dim() == 2  # directions and channels in one axis
    if f"{ROW}ffn.0.weight" in theirs:
        assert theirs[f"{ROW}ffn.0.weight"].shape == (8, 8, 1, 1)
    torch.save({"state_dict": {f"net.{k}": t for k, t in theirs.items()}}, tmp_path / "w.ckpt")
    for name in ("theirs.pth", "w.ckpt"):
        found = zoo.load(tmp_path / name, recipe=network.recipe)  # without any keys=
        assert all(torch.equal(t, found.state_dict()[k]) for k, t in network.state_dict().items())


def test_rules_of_a_call_come_before_those_of_the_part(own_parts, tmp_path):
    network = zoo.build({"network": NETWORKS["head"][0]})
    keys = [("last.weight", "head.out.weight")]
    save_official(network, tmp_path / "w.pth", keys=keys)
    state = torch.load(tmp_path / "w.pth", weights_only=True)["params"]
    assert "last.weight" in state and "to_image.bias" in state
    assert zoo.load(tmp_path / "w.pth", recipe=network.recipe, keys=keys)


def test_a_part_that_derives_from_another_has_its_rules(own_parts):
    zoo.register("block", "derived")(type("Derived", (Own,), {}))
    entry = zoo.registry.nearest_entry(type("Later", (Own,), {}))
    assert [rule.theirs for rule in entry.keys] == ["my_mix.{rest}"]
    assert zoo.registry.nearest_entry(nn.Linear) is None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("a.{rest}", "b"), "must have the same fields"),
        (("a.{i}.{i}", "b.{i}.{i}"), "each of them once"),
        (("a.{0}", "b.{0}"), "must have the same fields, such as"),
        (("a{", "b{"), "must have the same fields, such as"),
        (("a",), "is not a pair of names"),
        ("ab", "is not a pair of names"),
        (("a", 5), "is not a pair of names"),
        (("", "b"), "is not a pair of names"),
        (("a", "b", 5), "must be a function of a tensor"),
        (("a", "b", "flat"), "must be a function of a tensor"),
    ],
)
def test_a_wrong_rule_is_named_when_the_part_is_registered(rule, message):
    with temporary_registrations():
        with pytest.raises(RecipeError, match=f"^block 'mine': .*key rule.*{message}"):
            zoo.register("block", "mine", keys=[rule])(Own)
        zoo.register("block", "mine")(Own)  # the name is still free
    with pytest.raises(RecipeError, match=f"^keys: .*{message}"):
        zoo.load("mambair_tiny_x2", keys=[rule])


def test_a_rule_of_a_call_that_renames_nothing_is_said(own_parts, tmp_path, caplog):
    network = zoo.build({"network": NETWORKS["head"][0]})
    save_official(network, tmp_path / "w.pth")
    keys = [("to_image.{rest}", "head.out.{rest}"), ("to_imag.{rest}", "head.out.{rest}")]
    zoo.load(tmp_path / "w.pth", recipe=network.recipe, keys=keys)
    assert "the key rule ('to_imag.{rest}', 'head.out.{rest}') has no effect" in caplog.text
    assert caplog.text.count("has no effect") == 1
    zoo.save(network, tmp_path / "w.safetensors")
    zoo.load(tmp_path / "w.safetensors", keys=keys[:1])  # our format has our names
    assert caplog.text.count("has no effect") == 2


@pytest.mark.parametrize("keys", [None, 5])
def test_keys_that_are_no_list_are_said(keys):
    message = f"keys is {keys}; give a list of pairs of names"
    with temporary_registrations(), pytest.raises(RecipeError, match=f"^block 'mine': {message}"):
        zoo.register("block", "mine", keys=keys)(Own)
    with pytest.raises(RecipeError, match=f"^keys: {message}"):
        zoo.load("mambair_tiny_x2", keys=keys)


@pytest.mark.parametrize(
    "keys",
    [
        [("x.weight", "head.out.weight"), ("x.weight", "head.out.bias")],
        [("conv_first.weight", "head.out.weight")],  # a name that the release has
    ],
)
def test_rules_that_give_two_tensors_one_name_write_nothing(own_parts, tmp_path, keys):
    network = zoo.build({"network": NETWORKS["head"][0]})
    with pytest.raises(CheckpointError, match=r"w\.pth: the key rules give .* the name .*already;"):
        save_official(network, tmp_path / "w.pth", keys=keys)
    assert not (tmp_path / "w.pth").exists()


def test_names_without_rules_are_still_an_error(tmp_path):
    recipe = {"network": NETWORKS["block"][0]}
    with temporary_registrations():
        zoo.register("block", "own", keys=[("my_mix.{rest}", "mix.{rest}")])(Own)
        save_official(zoo.build(recipe), tmp_path / "w.pth")
    with temporary_registrations():
        zoo.register("block", "own")(Own)
        with pytest.raises(CheckpointError, match=r"missing 4: .*mix.*my_mix"):
            zoo.load(tmp_path / "w.pth", recipe=recipe)
        with pytest.raises(CheckpointError, match="does not have this network"):
            save_official(zoo.build(recipe), tmp_path / "b.pth")
