"""Drop path in blocks and networks: what is dropped, at which rates, and never in evaluation."""

from __future__ import annotations

import pytest
import torch

import zoo
from tests.helpers.plain import cab, norm, randomised, weights_of
from zoo.blocks import BLOCKS, CAB, DropPath
from zoo.blocks.window_attention import WindowAttention
from zoo.description import measured
from zoo.networks import SingleImage

SURELY = 1 - 1e-12


def rates(module):
    return [m.rate for m in module.modules() if isinstance(m, DropPath)]


def without_mixer_rssb(w, x):
    return x * w["skip_scale"] * w["branch_scale"] + cab(
        w.under("branch"), norm(w.under("branch_norm"), x * w["skip_scale"])
    )


def without_mixer_and_mlp_rlmb(w, x):
    local = cab(w.under("branch"), norm(w.under("norm"), x))
    return (x * w["skip_scale"] + 0.01 * local) * w["mlp_scale"]


def without_both_halves_attentive_layer(w, x):
    for half in ("near", "far"):
        x = x + x * w.under(half)["skip_scale"]
    return x


LEFT = {
    "attentive_layer": without_both_halves_attentive_layer,
    "rssb": without_mixer_rssb,
    "rlmb": without_mixer_and_mlp_rlmb,
    "channel_transformer": lambda w, x: x,
    "msfm": lambda w, x: x,
    "res": lambda w, x: x,
}
"""What each block computes where its drop path drops: the authors' local branch stays."""


def narrow(name, **options):
    if name == "attentive_layer":  # in training, its own mixer draws routes
        options["mixer"] = WindowAttention
    small = {"branch": lambda dim: CAB(dim, compress=2, squeeze=2)} if name[0] == "r" else {}
    return BLOCKS.get(name).target(8, **options, **(small if name != "res" else {}))


@pytest.mark.parametrize("name", LEFT)
def test_a_block_drops_its_mixer_alone_and_nothing_in_evaluation(name):
    block = randomised(narrow(name, drop_path=SURELY))
    x = torch.randn(3, 2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block.train()(x), LEFT[name](weights_of(block), x))
        whole = block.eval()(x)
        never = narrow(name).double().train()
        assert set(rates(never)) == {0.0}
        never.load_state_dict(block.state_dict())
        assert torch.equal(whole, never(x))
        assert (whole - LEFT[name](weights_of(block), x)).abs().max() > 0.1


def test_every_block_of_the_package_is_tested():
    own = {e.name for e in BLOCKS.entries() if e.target.__module__.startswith("zoo.")}
    assert own == {*LEFT, "bare"}


def test_a_bare_block_drops_its_input_in_training_alone():
    block = randomised(narrow("bare", drop_path=SURELY))
    x = torch.randn(3, 2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        of_nothing = block.eval()(torch.zeros_like(x))
        assert (block(x) - of_nothing).abs().max() > 0.1
        torch.testing.assert_close(block.train()(x), of_nothing)


def test_images_of_a_batch_are_dropped_one_by_one_and_the_rest_keeps_the_mean():
    layer = DropPath(0.2).train()
    ones = torch.ones(4000, 1, 2, 3)
    factors = layer(ones).flatten(1)
    assert factors.unique().tolist() == pytest.approx([0, 1.25])
    assert torch.equal(factors, factors[:, :1].expand(-1, 6))
    dropped = float((factors[:, 0] == 0).double().mean())
    assert abs(dropped - 0.2) <= 5 * (0.2 * 0.8 / 4000) ** 0.5  # five standard errors
    assert torch.equal(layer.eval()(ones), ones)
    assert layer.train()(ones.bfloat16()).dtype == torch.bfloat16


SMALL = {"dim": 32, "depths": [2, 3], "scale": 2}


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("mambair_classic_x2", SMALL),
        ("mambacsr_final", {**SMALL, "coarse.depths": [2]}),
        ("mambair_realdn", {"dim": 30, "depths": [1, 1, 1, 1], "refinement": 1}),
    ],
)
def test_networks_restore_as_without_drop_path(model, changes):
    """A high rate, which any forgotten ``eval()`` or mode would show."""
    dropping = zoo.build(model, **changes, drop_path=0.9)
    still = zoo.build(model, **changes, drop_path=0.0)
    still.load_state_dict(dropping.state_dict())
    image = torch.rand(2, 3, 7, 9)
    assert sum(rate > 0 for rate in rates(dropping)) >= 4 and not any(rates(still))
    with torch.no_grad():
        expected = still.eval()(image)
        assert torch.equal(dropping.eval()(image), expected)
        assert not torch.equal(dropping.train()(image), expected)


def test_loaded_networks_are_in_evaluation(tmp_path):
    network = zoo.build("mambair_light_x2", dim=32, depths=[1]).train()
    zoo.save(network, tmp_path / "w.safetensors")
    zoo.checkpoints.save_official(network, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        assert not any(m.training for m in zoo.load(tmp_path / name).modules())


def test_operations_are_counted_in_evaluation():
    network = measured("mambair_tiny_x2", 8, 8).network
    assert not any(m.training for m in network.modules())


def test_rates_rise_linearly_over_all_groups_and_coarse_groups_take_those_beside_them():
    with torch.device("meta"):
        default = zoo.build("mambacsr_final", dim=24, depths=[2, 3], **{"coarse.depths": [3]})
        single = zoo.build("mambair_light_x2", dim=32, depths=[1])
        unet = zoo.build("mambair_realdn", dim=30, drop_path=0.3)
    assert rates(default.groups) == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])
    # Deeper than the fine group beside it: the last rate again.
    assert rates(default.coarse.groups) == pytest.approx([0, 0.025, 0.025])
    assert not rates(default.coarse.fusions)
    assert rates(single) == [0.0]
    assert rates(unet) == [0.3] * (4 + 6 + 6 + 8 + 6 + 6 + 4 + 4)
    assert set(rates(zoo.build("mambair_realdn", dim=30, depths=[1] * 4))) == {0.0}


def test_drop_path_rates_rise_linearly():
    network = SingleImage(dim=32, depths=(2, 1), drop_path=0.2)
    rates = [block.drop_path.rate for group in network.groups for block in group.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])
