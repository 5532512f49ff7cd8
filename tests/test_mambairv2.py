"""MambaIRv2 and DVMSR as networks: routes first, then outputs; what must be noticed; files.

Outputs, gradients in evaluation, keys and counts are compared in tests/test_official.py.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.helpers.official_weights import CASES, OFFICIAL, state_dict
from zoo.blocks import Attentive, Block, Router, WindowAttention, window_attention
from zoo.checkpoints import save_official
from zoo.errors import CheckpointError
from zoo.networks import extension
from zoo.ops import padding
from zoo.registry import temporary_registrations
from zoo.scans import by_class

LIGHT = "irv2_light_x4_16x16"
NAMES = [name for name in CASES if name.startswith("irv2")]


def network_of(name, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"params": state_dict(name)}, path)
    return zoo.load(path)


def routers(network):
    return [module for module in network.modules() if isinstance(module, Router)]


def recorded(network):
    """A list that each run of the network fills with the classes of each router."""
    routes = []
    for router in routers(network):
        router.register_forward_hook(lambda _m, _i, found: routes.append(found.class_BL))
    return routes


def forced(network, routes):
    """Make the routers of a network choose these classes."""
    coming = iter(routes)
    for router in routers(network):
        router.register_forward_hook(lambda _m, _i, found: found._replace(class_BL=next(coming)))


def psnr(found, expected):
    return float(-10 * (found - expected).double().square().mean().log10())


# ------------------------------------------------------------------ routes and gradients


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_routes_are_the_authors(name, dtype, tmp_path):
    expected = load_file(OFFICIAL / f"{name}.safetensors")
    network = network_of(name, tmp_path).to(dtype)
    routes = recorded(network)
    with torch.no_grad():
        network(expected["input"].to(dtype))
    assert torch.equal(torch.stack(routes, 1), expected["routes"].long())


def test_training_with_the_authors_noise_has_their_routes_outputs_and_gradients(
    tmp_path, monkeypatch
):
    expected = load_file(OFFICIAL / f"{LIGHT}_sampled.safetensors")
    image = load_file(OFFICIAL / f"{LIGHT}.safetensors")["input"].double().requires_grad_()
    network = network_of(LIGHT, tmp_path).double().train()
    routes, noise = recorded(network), iter(expected["noise"].double().unbind(1))
    monkeypatch.setattr(Router, "noise", lambda _self, _like: next(noise))
    output = network(image)
    assert torch.equal(torch.stack(routes, 1), expected["routes"].long())
    assert (output - expected["output_fp64"]).abs().max() <= 1e-10
    (output * expected["cot"].double()).mean().backward()
    from zoo.checkpoints import OFFICIAL as FORMATS

    keys = next(f for f in FORMATS if f.name == "MambaIRv2").key_map(network.recipe.network)
    pairs = {"input": (image.grad, expected["grad_input"])}
    for name, parameter in network.named_parameters():
        theirs = expected[f"g.{keys.to_theirs(name)}"].reshape(parameter.shape)
        pairs[name] = (parameter.grad, theirs)
    for name, (ours, theirs) in pairs.items():
        assert theirs.norm() > 0, name
        assert (ours - theirs).norm() / theirs.norm() <= 1e-6, name  # stored as float32


# ------------------------------------------------------------------ wrong variants


def _padded_by(mode):
    return lambda image, margin, _: padding.pad(image, margin, mode)


def _last_first(class_BL, classes):
    """Sort by class; of equal ones, the last token comes first."""
    tokens = class_BL.shape[1]
    key = class_BL * tokens + torch.arange(tokens).flip(0)
    order_BL = key.argsort(1)
    return order_BL.to(torch.int32), order_BL.argsort(1)


def _each(kind, **attributes):
    def change(network, monkeypatch):
        for module in network.modules():
            if isinstance(module, kind):
                for name, value in attributes.items():
                    setattr(module, name, value)

    return change


def _patched(module, name, value):
    return lambda network, monkeypatch: monkeypatch.setattr(module, name, value)


def _no_mask(window, shift, device):
    return (torch.zeros(window**2, window**2, device=device),) * 3


WRONG = {
    "prompt": _each(Attentive, prompt="sorted"),
    "ties": _patched(by_class, "sort_by_class", _last_first),
    "epsilon": _each(torch.nn.LayerNorm, eps=1e-6),
    "padding": _patched(extension, "pad", _padded_by("reflect")),
    "replicated": _patched(extension, "pad", _padded_by("replicate")),
    "mask": _patched(window_attention, "edge_masks", _no_mask),
    "shift": _each(WindowAttention, shift=0),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_variant_is_noticed(wrong, tmp_path, monkeypatch):
    """Each of them is far beyond the tolerance of 1e-10 of the comparison in test_official."""
    name = "irv2_light_x2_17x23"
    expected = load_file(OFFICIAL / f"{name}.safetensors")
    network = network_of(name, tmp_path).double()
    WRONG[wrong](network, monkeypatch)
    with torch.no_grad():
        found = network(expected["input"].double())
    assert (found - expected["output_fp64"]).abs().max() > 1e-6


# ------------------------------------------------------------------ sizes and precisions


@pytest.mark.parametrize("size", [(1, 1), (7, 16), (5, 40), (16, 1), (33, 15)])
def test_any_size_works_and_the_image_is_mirrored_as_often_as_needed(size, tmp_path):
    network = network_of(LIGHT, tmp_path)
    image = torch.rand(1, 3, *size)
    height, width = (-(-side // 16) * 16 for side in size)
    grown = image
    while grown.shape[2] < height or grown.shape[3] < width:
        grown = torch.cat([grown, grown.flip(2)], 2)
        grown = torch.cat([grown, grown.flip(3)], 3)
    with torch.no_grad():
        found = network(image)
        expected = network(grown[..., :height, :width].contiguous())
    assert torch.equal(found, expected[..., : 4 * size[0], : 4 * size[1]])


def test_single_precision_differs_from_double_by_rounding_while_routes_are_equal(tmp_path):
    network, image = network_of(LIGHT, tmp_path), torch.rand(1, 3, 64, 64)
    routes = recorded(network)
    with torch.no_grad():
        found = network(image)
        expected = network.double()(image.double())
    assert torch.equal(torch.stack(routes[:4]), torch.stack(routes[4:]))
    assert (found - expected).abs().max() <= 5e-5


def test_a_flipped_route_changes_the_image_a_little_and_nothing_else_does(tmp_path):
    """Noise of 5e-5 flips routes; with the routes held, it passes through as small as it came."""
    network, image = network_of(LIGHT, tmp_path).double(), torch.rand(1, 3, 64, 64).double()
    noisy = image + 5e-5 * torch.randn_like(image)
    routes = recorded(network)
    with torch.no_grad():
        expected, found = network(image), network(noisy)
        flipped = torch.stack(routes[:4]) != torch.stack(routes[4:])
        forced(network, routes[:4])
        held = network(noisy)
    assert 0 < flipped.sum() < 0.03 * flipped.numel()
    assert (held - expected).abs().max() <= 5e-3
    assert psnr(held, expected) > 70
    assert psnr(found, expected) > 25


def test_bfloat16_autocast_keeps_most_routes(tmp_path):
    network, image = network_of(LIGHT, tmp_path), torch.rand(1, 3, 32, 32)
    routes = recorded(network)
    with torch.no_grad():
        expected = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(image)
    flipped = torch.stack(routes[:4]) != torch.stack(routes[4:])
    assert flipped.float().mean() < 0.1
    assert psnr(found.float(), expected) > 20


def test_sampled_evaluation_repeats_with_a_seed(tmp_path):
    network, image = network_of(LIGHT, tmp_path), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        fixed = network(image)
        for router in routers(network):
            router.routing = "sample"
        torch.manual_seed(5)
        first = network(image)
        torch.manual_seed(5)
        assert torch.equal(network(image), first)
        assert not torch.equal(network(image), first)
    assert not torch.equal(first, fixed)


# ------------------------------------------------------------------ files


def test_detection_reads_everything_that_the_tensors_show(tmp_path):
    network = network_of("irv2_base_x2_20x24", tmp_path).recipe.network
    assert network["block"] == {
        "type": "attentive_layer",
        "attention": {"type": "window_attention", "window": 16, "heads": 6},
        "mixer": {
            **{"type": "attentive", "d_state": 16, "expand": 2.0},
            **{"classes": 32, "prompt_rank": 16},
        },
        "branch": {"type": "conv_ffn", "ratio": 2.0, "kernel": 5},
    }
    assert network["depths"] == [2, 1] and (network["padding"], network["pad_to"]) == ("mirror", 16)
    assert network["head"] == {"type": "pixelshuffle", "hidden": 64}


ODD = {
    "dim": 21,
    "depths": [1, 2],
    "block.attention": {"window": 5, "heads": 3},
    "block.mixer": {"expand": 1.3, "classes": 9, "prompt_rank": 3, "d_state": 2, "dt_rank": 1},
    "block.branch": {"type": "conv_ffn", "ratio": 1.9, "kernel": 3},
    "pad_to": 5,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": "residual", "scale": 1, "channels": 1},
        {"head": "nearest_conv", "scale": 4},
        {"head": "pixelshuffle", "scale": 3, "conv": "3conv", "patch_norm": False},
    ],
)
def test_a_network_of_odd_numbers_is_written_and_recognised(changes, tmp_path):
    network = zoo.build("mambairv2_tiny_x2", **ODD, **changes).eval()
    save_official(network, tmp_path / "w.pth")
    again = zoo.load(tmp_path / "w.pth")
    image = torch.rand(1, network.channels, 7, 6)
    with torch.no_grad():
        assert torch.equal(again(image), network(image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block.mixer.prompt": "sorted"}, "prompt is 'sorted', but the authors' MambaIRv2 has"),
        (
            {"pad_to": 1, "padding": "replicate"},
            "padding is 'none', but the authors' MambaIRv2 has 'mirror to multiples of",
        ),
        ({"block.attention.shift": 0}, r"blocks\.1\.near\.mixer\.shift is 0, but the authors'"),
        (
            {"scans": [{"type": "by_class", "directions": ["class_reversed"]}]},
            r"scans ByClass\(directions=\('class_reversed',\)\), but",
        ),
        ({"block.attention": {"type": "ss2d"}, "scans": ["raster"]}, "does not have this network"),
        ({"block.branch": {"type": "cab_light", "squeeze": 9}}, "does not have this network"),
    ],
)
def test_what_the_authors_code_would_compute_otherwise_is_not_written_as_theirs(
    change, message, tmp_path
):
    network = zoo.build("mambairv2_tiny_x2", **change)
    with pytest.raises(CheckpointError, match=message):
        save_official(network, tmp_path / "w.pth")
    assert not list(tmp_path.iterdir())


def test_sampled_routes_are_written_as_theirs_with_a_word(tmp_path, caplog):
    """The authors' code always samples, so the file is right, but it cannot say so here."""
    save_official(zoo.build("mambairv2_tiny_x2"), tmp_path / "w.pth")
    assert "routing" not in caplog.text
    sampled = {"block.mixer.routing": "sample"}
    save_official(zoo.build("mambairv2_tiny_x2", **sampled), tmp_path / "w.pth")
    assert "does not hold routing 'sample'" in caplog.text
    assert "unless you give block.mixer.routing=sample" in caplog.text
    for overrides, routing in (({}, "argmax"), (sampled, "sample")):
        again = zoo.load(tmp_path / "w.pth", **overrides)
        assert again.groups[0].blocks[0].far.mixer.router.routing == routing


def test_groups_with_different_numbers_of_heads_are_refused(tmp_path):
    state = state_dict(LIGHT)
    key = "layers.1.residual_group.layers.0.win_mhsa.relative_position_bias_table"
    state[key] = state[key][:, :2]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"different numbers of heads \(\[2, 4\]\)"):
        zoo.load(tmp_path / "w.pth")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"params": {}, "params_ema": s}])
def test_both_files_of_dvmsr_are_read(wrap, tmp_path):
    torch.save(wrap(state_dict("dvmsr_x4_13x18")), tmp_path / "w.pth")
    network = zoo.load(tmp_path / "w.pth")
    assert sum(p.numel() for p in network.parameters()) == 424_428
    assert network.recipe.network["block"]["mixer"] == {
        **{"type": "mamba1d", "expand": 2.0, "d_state": 16, "dt_rank": 4, "d_conv": 4}
    }


def test_a_file_with_a_missing_tensor_says_which(tmp_path):
    state = state_dict(LIGHT)
    del state["layers.0.residual_group.layers.0.assm.embeddingB.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"looks like MambaIRv2, but the key .*embeddingB"):
        zoo.load(tmp_path / "w.pth")


# ------------------------------------------------------------------ operations


def test_operations_of_light_x4_are_those_of_a_count_by_hand():
    """Multiply-adds for 1280x720 pixels of output, of the padded input of 192 x 320.

    The published 75.6 G count a scan as 9 and the zoo as 3.5 for each state, each norm as 5 for
    each value, and the choice of a prompt as a product with the one-hot classes.
    """
    tokens, C, N, T, P = 192 * 320, 48, 8, 64, 256
    attention = 4 * C * C + 2 * P * C
    feed_forward = C * C + 25 * C // 2 + C * C // 2
    router = C * (C // 3) + C // 3 * T
    mixer = C * C + 9 * C + C * (3 + 2 * N) + C * C
    scan = C * (7 * N + 2 * 3 + 5) / 2
    layer = attention + 2 * feed_forward + router + mixer + scan
    convolutions = 3 * C * 9 + 5 * C * C * 9 + C * 48 * 9
    by_hand = tokens * (20 * layer + convolutions)
    found = zoo.describe("mambairv2_light_x4", height=180, width=320).gigaflops / 2
    assert found == pytest.approx(by_hand / 1e9, rel=0.001)
    authors_scan, norms, prompts = 9 * C * N + 3 * C, 5 * (5 * C + 2 * C // 2), T * N
    theirs = by_hand + tokens * 20 * (authors_scan - scan + norms + prompts)
    assert theirs / 1e9 == pytest.approx(75.6, rel=0.001)


# ------------------------------------------------------------------ blocks of a user's own


@pytest.fixture
def own_block():
    """A block of a user's own, with its names in the authors' code, until the test ends."""

    class Own(Block):
        def __init__(self, dim, *, scan=None, drop_path=0.0):
            super().__init__()
            self.mix = torch.nn.Linear(dim, dim)

        def forward(self, x_BHWC):
            return x_BHWC + self.mix(x_BHWC)

    with temporary_registrations():
        zoo.register("block", "own")(Own)
        yield [
            (
                "layers.{i}.residual_group.blocks.{j}.my_mix.{rest}",
                "groups.{i}.blocks.{j}.mix.{rest}",
            )
        ]


def test_a_block_of_ones_own_is_read_and_written_by_key_rules(own_block, tmp_path):
    recipe = {"network": {"type": "single_image", "dim": 8, "depths": [1, 2], "block": "own"}}
    network = zoo.build(recipe, head="pixelshuffle_direct", scale=2).eval()
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    save_official(network, theirs, keys=own_block)
    state = torch.load(theirs, weights_only=True)["params"]
    assert "layers.1.residual_group.blocks.1.my_mix.weight" in state
    assert {"conv_first.weight", "conv_after_body.bias", "upsample.0.weight"} <= set(state)
    again = zoo.load(theirs, recipe=network.recipe, keys=own_block)
    image = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        assert torch.equal(again(image), network(image))
    zoo.convert(theirs, ours, recipe=network.recipe, keys=own_block)
    zoo.convert(ours, tmp_path / "back.pth", keys=own_block)
    back = torch.load(tmp_path / "back.pth", weights_only=True)["params"]
    assert all(torch.equal(back[key], state[key]) for key in state) and len(back) == len(state)
    with pytest.raises(CheckpointError):
        zoo.load(theirs, recipe=network.recipe)
    with pytest.raises(CheckpointError, match="does not have this network"):
        save_official(network, theirs)
