"""The parts of MambaIRv2: attention in windows, router, prompts, feed-forwards, the two blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

import zoo
from tests.helpers import plain_attentive
from tests.helpers.plain import norm, randomised, weights_of
from zoo.blocks import (
    RSSB,
    Attentive,
    AttentiveLayer,
    BareBlock,
    ConvFFN,
    GatedMLP,
    ResidualGroup,
    Router,
    WindowAttention,
)
from zoo.blocks import window_attention as module
from zoo.ops.padding import Margin, margin_to_grid, pad
from zoo.scans import ByClass, Raster, Window

SIZES = [(1, 1), (1, 9), (4, 4), (3, 5), (8, 12), (13, 6)]


def features(*shape):
    return torch.randn(shape, dtype=torch.float64)


def assert_same(found, expected, tolerance=1e-9):
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


# ------------------------------------------------------------------ attention in windows


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 4), (9, 11)])
@pytest.mark.parametrize(("window", "shift"), [(4, 0), (4, 2), (3, 1)])
def test_window_attention_equals_its_equations(size, window, shift):
    part = randomised(WindowAttention(6, window=window, heads=3, shift=shift))
    x = features(2, *size, 6)
    expected = plain_attentive.window_attention(
        weights_of(part), x, window=window, heads=3, shift=shift
    )
    with torch.no_grad():
        assert_same(part(x), expected)


@pytest.mark.parametrize("shift", [0, 3])
def test_the_traced_and_the_grouped_computation_are_the_same(shift, monkeypatch):
    part = randomised(WindowAttention(8, window=4, heads=2, shift=shift))
    for size in SIZES:
        x = features(3, *size, 8)
        eager = part(x)
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            assert_same(part(x), eager)


def test_gradients_of_both_computations_are_the_same(monkeypatch):
    part = randomised(WindowAttention(8, window=4, heads=2, shift=2))
    x, cot = features(2, 6, 9, 8), features(2, 6, 9, 8)
    found = []
    for traced in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda traced=traced: traced)
        loss = (part(x) * cot).sum()
        found.append(torch.autograd.grad(loss, list(part.parameters())))
    for eager, traced in zip(*found, strict=True):
        assert_same(eager, traced)


def test_windows_of_equal_masks_are_grouped_and_put_back():
    for height, width in SIZES:
        layout, counts = module.grouped_layout(height, width, 4, 2, torch.device("cpu"))
        rows, columns = -(-height // 4), -(-width // 4)
        assert counts == ((rows - 1) * (columns - 1), rows - 1, columns - 1, 1)
        assert torch.equal(layout.window_VP.flatten()[layout.place_L], torch.arange(height * width))


def test_a_layout_that_inference_cached_serves_training():
    part = WindowAttention(8, window=4, heads=2, shift=1)
    x = torch.randn(1, 7, 6, 8)
    for cached in (
        module.grouped_layout,
        module.edge_masks,
        module.cached_relative_positions,
    ):
        cached.cache_clear()
    with torch.inference_mode():
        part(x)
    part(x).sum().backward()
    assert all(p.grad is not None for p in part.parameters())
    for cached, given in (
        (module.grouped_layout, (7, 6, 4, 1)),
        (module.edge_masks, (4, 1)),
        (module.cached_relative_positions, (4,)),
    ):
        assert cached.cache_info().currsize == 1  # what inference has made
        for tensor in tree_leaves(cached(*given, torch.device("cpu"))):
            assert not isinstance(tensor, torch.Tensor) or not tensor.is_inference()


def test_windows_of_a_size_that_is_a_symbol_are_traced_in_every_kind_of_trace():
    """``is_compiling`` is false in this one, and no such size can be a key of the cache."""
    part = WindowAttention(8, window=4, heads=2, shift=1)
    with torch.no_grad():
        graph = make_fx(lambda x: part(x), tracing_mode="symbolic", _allow_non_fake_inputs=True)(
            torch.rand(1, 7, 6, 8)
        )
        x = torch.rand(1, 5, 9, 8)
        torch.testing.assert_close(graph(x), part(x))


@pytest.mark.parametrize("window", [1, 64])
def test_a_window_may_have_one_token_and_a_side_of_64(window):
    assert WindowAttention(8, window=window, shift=window - 1).shift == window - 1


def test_half_precision_is_near_to_single():
    part = WindowAttention(8, window=4, heads=2, shift=2)
    x = torch.randn(2, 6, 9, 8)
    with torch.no_grad():
        expected = part(x)
        for dtype in (torch.bfloat16, torch.float16):
            assert (part.to(dtype)(x.to(dtype)).float() - expected).abs().max() < 0.02


def test_every_second_block_of_a_group_shifts_its_windows():
    def shifts(**options):
        group = ResidualGroup(
            8,
            block=lambda dim, **given: RSSB(
                dim,
                mixer=lambda d, scan: WindowAttention(d, heads=2, **options),
                branch=None,
                **given,
            ),
            scans=[Raster()],
            drop_paths=[0.0] * 5,
        )
        return [block.mixer.shift for block in group.blocks]

    assert shifts(window=8) == [0, 4, 0, 4, 0]
    assert shifts(window=7) == [0, 3, 0, 3, 0]
    assert shifts(window=8, shift=3) == [3] * 5
    assert WindowAttention(8).shift == 0  # alone


def test_windows_alternate_among_the_blocks_of_their_kind_where_kinds_take_turns():
    def shifts(*block):
        network = zoo.build(
            {"network": {"type": "single_image", "dim": 8, "depths": [6], "block": list(block)}}
        )
        mixers = (block.mixer for block in network.groups[0].blocks)
        return [mixer.shift if isinstance(mixer, WindowAttention) else None for mixer in mixers]

    plain = {"type": "rssb", "branch": None}

    def attend(window):
        return {**plain, "mixer": {"type": "window_attention", "window": window}}

    assert shifts(plain, attend(4)) == [None, 0, None, 2, None, 0]
    assert shifts(attend(4), plain) == [0, None, 2, None, 0, None]
    assert shifts(attend(4), attend(6)) == [0, 0, 2, 3, 0, 0]
    assert shifts(attend(4), plain, attend(4), plain) == [0, None, 2, None, 0, None]
    assert shifts(attend(4)) == shifts(attend(4), attend(4)) == [0, 2, 0, 2, 0, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads is 3, which does not divide dim 8"),
        ({"heads": 0}, "heads is 0"),
        ({"window": 0}, "window is 0; it must be from 1 to 64"),
        ({"window": 65}, "window is 65"),
        ({"window": 4, "shift": 4}, "shift is 4; it must be from 0 to 3"),
        ({"window": 4, "shift": -1}, "shift is -1"),
    ],
)
def test_wrong_windows_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WindowAttention(8, **options)


# ------------------------------------------------------------------ padding


def test_a_mirrored_image_repeats_its_border_and_turns_round_again():
    image = torch.arange(3.0).reshape(1, 1, 1, 3)
    padded = pad(image, Margin(2, 8), "mirror")
    assert padded[0, 0].tolist() == [[0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1]] * 3
    large = torch.rand(2, 3, 17, 23)
    symmetric = pad(large, margin_to_grid(large, 16), "mirror")
    assert symmetric.shape == (2, 3, 32, 32)
    assert torch.equal(symmetric[..., 17:, :], symmetric[..., 2:17, :].flip(2))
    assert torch.equal(symmetric[..., :, 23:], symmetric[..., :, 14:23].flip(3))


# ------------------------------------------------------------------ router and prompts


def test_the_lowest_of_equal_classes_is_chosen():
    router = Router(6, classes=5, routing="argmax").eval()
    for parameter in router.parameters():
        torch.nn.init.zeros_(parameter)
    assert (router(torch.randn(2, 7, 6)).class_BL == 0).all()


def test_a_router_is_float32_whatever_the_tokens_are():
    router = Router(12, classes=64, routing="argmax").eval()
    x = torch.randn(1, 4096, 12)
    exact = router(x).class_BL
    with torch.autocast("cpu", torch.bfloat16):
        assert router.logits(x).dtype == torch.float32
        assert torch.equal(router(x).class_BL, exact)
    for dtype in (torch.bfloat16, torch.float16):
        rounded = router.logits(x.to(dtype))
        assert rounded.dtype == torch.float32
        assert torch.equal(rounded, router.logits(x.to(dtype).float()))


def test_sampling_in_evaluation_repeats_with_a_seed_and_is_the_authors_noise():
    router = Router(6, classes=5, routing="sample").eval()
    x = torch.randn(2, 50, 6)
    with torch.no_grad():
        logits = router.logits(x).log_softmax(-1)
    torch.manual_seed(3)
    found = router(x)
    assert found.one_hot_BLT is None
    torch.manual_seed(3)
    authors = F.gumbel_softmax(logits, tau=1, hard=True)
    assert torch.equal(found.class_BL, authors.argmax(-1))
    assert not torch.equal(router(x).class_BL, found.class_BL)


def test_training_samples_with_a_straight_through_gradient():
    router = Router(6, classes=5, routing="argmax").train().double()
    x, weights = features(2, 9, 6), features(5)
    torch.manual_seed(1)
    class_BL, one_hot_BLT = router(x)
    found = torch.autograd.grad((one_hot_BLT @ weights).sum(), list(router.parameters()))
    torch.manual_seed(1)
    authors = F.gumbel_softmax(router.logits(x).log_softmax(-1), tau=1, hard=True)
    expected = torch.autograd.grad((authors @ weights).sum(), list(router.parameters()))
    assert_same(one_hot_BLT, authors)
    assert torch.equal(class_BL, authors.argmax(-1))
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)
        assert theirs.norm() > 0


SMALL = {"expand": 1.3, "d_state": 3, "classes": 4, "prompt_rank": 2}


@pytest.mark.parametrize("prompt", ["raster", "sorted"])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_mixer_scans_by_class_with_the_prompt_that_is_asked_for(prompt, reverse):
    order = ByClass(directions=("class_reversed" if reverse else "class",))
    part = randomised(Attentive(6, scan=order, prompt=prompt, **SMALL)).eval()
    x = features(2, 3, 5, 6)
    expected = plain_attentive.attentive(weights_of(part), x, prompt=prompt, reverse=reverse)
    other = plain_attentive.attentive(weights_of(part), x, reverse=not reverse)
    with torch.no_grad():
        assert_same(part(x), expected)
        assert (part(x) - other).abs().max() > 1e-3


def test_two_directions_are_the_sum_of_each():
    """Each direction has its own weights; the norm of the sum is the same for both."""
    both = Attentive(6, scan=ByClass(directions=("class", "class_reversed")), **SMALL)
    both = randomised(both).eval()
    found = []
    both.out_norm = both.out_proj = torch.nn.Identity()
    x = features(2, 4, 5, 6)
    for k, name in enumerate(both.scan.directions):
        one = randomised(Attentive(6, scan=ByClass(directions=(name,)), **SMALL)).eval()
        one.out_norm = one.out_proj = torch.nn.Identity()
        state = both.state_dict()
        own = {"x_proj_weight", "dt_proj_weight", "dt_proj_bias", "A_log", "D"}
        one.load_state_dict({n: v[k : k + 1] if n in own else v for n, v in state.items()})
        found.append(one(x))
    with torch.no_grad():
        assert_same(both(x), found[0] + found[1])


def test_an_order_of_the_size_alone_keeps_the_prompts_of_the_tokens():
    """Sorted by class or not, a token that scans with its own prompt is told by prompt: sorted."""
    x = features(1, 4, 4, 6)
    raster = randomised(Attentive(6, scan=Raster(directions=("row",)), **SMALL)).eval()
    assert torch.equal(raster(x), _with(raster, prompt="sorted")(x))
    windowed = Attentive(6, scan=Window(size=3, directions=("row",)), **SMALL).double().eval()
    assert windowed(features(1, 4, 5, 6)).isfinite().all()  # zero tokens have no prompt


def _with(part, **attributes):
    for name, value in attributes.items():
        setattr(part, name, value)
    return part


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes is 0"),
        ({"prompt_rank": 0}, "prompt_rank is 0"),
        ({"d_conv": 2}, "d_conv is 2; it must be odd"),
        ({"expand": 0.01}, r"expand \* dim is 0"),
    ],
)
def test_wrong_options_of_the_mixer_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Attentive(8, **options)


def test_the_rank_of_the_step_follows_from_the_inner_channels():
    """MambaIR's follows from C: 3 of 48 channels either way, but 22 and 11 of 174."""
    assert Attentive(174).dt_proj_weight.shape[2] == 22
    assert Attentive(48, expand=1.0).dt_proj_weight.shape[2] == 3
    assert Attentive(8, d_inner=40).dt_proj_weight.shape[1:] == (40, 3)


# ------------------------------------------------------------------ feed-forwards and blocks


def test_feed_forwards_need_hidden_channels():
    with pytest.raises(ValueError, match="must be even"):
        GatedMLP(28, ratio=1.25)  # the authors' code fails inside for these
    with pytest.raises(ValueError, match="needs at least 1"):
        ConvFFN(8, ratio=0.1)
    with pytest.raises(ValueError, match="gives 1 hidden channels; it needs at least 2"):
        GatedMLP(8, ratio=0.125)
    assert ConvFFN(8, ratio=0.125).fc1.out_features == 1
    assert GatedMLP(8, ratio=0.25).fc1.out_features == 2
    with pytest.raises(ValueError, match="kernel is 4"):
        ConvFFN(8, kernel=4)


@pytest.mark.parametrize("shift", [0, 2])
def test_an_attentive_layer_is_two_halves_with_a_scaled_skip(shift):
    block = AttentiveLayer(
        8,
        attention=lambda dim, scan: WindowAttention(dim, window=4, heads=2, shift=shift),
        mixer=lambda dim, scan: Attentive(dim, scan=scan, **SMALL),
        branch=lambda dim: ConvFFN(dim, ratio=1.5, kernel=3),
        scan=ByClass(),
    )
    assert (block.near.skip_scale == 1e-4).all() and (block.far.skip_scale == 1e-4).all()
    block, x = randomised(block).eval(), features(2, 3, 5, 8)
    w = weights_of(block)
    with torch.no_grad():
        expected = plain_attentive.attentive_layer(w, x, window=4, heads=2, shift=shift)
        assert_same(block(x), expected)


def test_drop_path_drops_both_branches_of_both_halves():
    block = AttentiveLayer(
        8, attention=lambda d, scan: WindowAttention(d, heads=2), drop_path=0.999
    )
    block.train()
    x = torch.randn(1, 4, 4, 8)
    torch.manual_seed(0)  # drops all four
    assert torch.allclose(block(x), x * (1 + 1e-4) ** 2, atol=1e-6)


def test_a_bare_block_adds_no_skip_and_drops_its_input():
    block = randomised(BareBlock(8)).eval()
    x = features(2, 3, 4, 8)
    with torch.no_grad():
        assert torch.equal(block(x), block.mixer(block.norm(x)))
        assert_same(block.norm(x), norm(weights_of(block.norm), x))
    block = BareBlock(8, drop_path=0.999).train()
    torch.manual_seed(0)
    assert torch.equal(block(x.float()), block.mixer(block.norm(torch.zeros(2, 3, 4, 8))))


def test_windows_alternate_in_the_stages_of_a_burst_network_too():
    network = zoo.build(
        "qmambabsr_tiny",
        stages=[2, 3],
        body={"type": "rssb", "mixer": {"type": "window_attention", "window": 6}, "branch": None},
    )
    shifts = [[block.mixer.shift for block in body] for body in network.bodies]
    assert shifts == [[0, 3], [0, 3, 0]]
