"""Every block, mixer, branch, merge, fusion and aligner against its equations, in float64.

Parts have random weights, none of them where it begins; batch, height, width and channels all
differ. What the parts are compared with is in tests/helpers/plain.py.
"""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch

from tests.helpers import plain, plain_attentive, plain_field
from tests.helpers.case_names import case_name
from tests.helpers.plain import randomised, weights_of
from zoo.blocks import (
    ALIGNERS,
    BLOCKS,
    BRANCHES,
    BURST_FUSIONS,
    EDA,
    GUIDED_BLOCKS,
    MERGES,
    MIXERS,
    MSFM,
    RLMB,
    RSSB,
    SS2D,
    Attentive,
    ChannelScan,
    ChannelTransformer,
    DropPath,
    GatedFeedForward,
    GatedMerge,
    GroupFlow,
    HighFrequencyBlock,
    LayerNorm,
    OmniScan,
    ResBlock,
    ShuffleAttention,
    SimpleGate,
    UnshuffleDown,
    group_conv,
    scan_sizes,
)
from zoo.blocks.group import blocks_of_groups
from zoo.blocks.layers import Conv2d, at_least_one, check_kernel
from zoo.scans import Raster, Window

SHAPE = (2, 3, 5, 8)


def features(*shape):
    return torch.randn(shape or SHAPE, dtype=torch.float64)


def assert_same(found, expected):
    assert found.shape == expected.shape
    # float64 sums in another sequence
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


MIXER_CASES = {
    "ss2d": ({"expand": 1.3, "d_state": 3, "dt_rank": 2}, plain.ss2d),
    "axial": ({"expand": 1.3, "d_state": 3, "dt_rank": 2, "d_conv": 5}, plain.axial),
    "mamba1d": ({"d_state": 3, "dt_rank": 2}, plain.mamba1d),
    "head_scan": ({"expand": 1.5, "d_state": 3, "dt_rank": 2}, plain_field.head_scan),
    "omni_scan": (
        {"expand": 1.3, "d_state": 3, "channel_width": 3, "channel_rank": 2},
        plain_field.omni_scan,
    ),
    "attentive": (
        {"expand": 1.3, "d_state": 3, "dt_rank": 2, "classes": 4, "prompt_rank": 2},
        plain_attentive.attentive,
    ),
    "window_attention": (
        {"window": 4, "heads": 2, "shift": 1},
        lambda w, x: plain_attentive.window_attention(w, x, window=4, heads=2, shift=1),
    ),
}


@pytest.mark.parametrize("name", MIXER_CASES)
def test_mixers_equal_the_recurrence_step_by_step(name):
    options, expected = MIXER_CASES[name]
    part, x = randomised(MIXERS.get(name).target(8, **options)).eval(), features()
    with torch.no_grad():
        assert_same(part(x), expected(weights_of(part), x))


TAKE_SCANS = [entry.name for entry in MIXERS.entries() if entry.target.takes_scan]


@pytest.mark.parametrize("name", TAKE_SCANS)
def test_a_mixer_reads_along_the_order_that_it_is_given(name):
    """Not always along its default: with the same weights, another order gives another result."""
    build = MIXERS.get(name).target
    rows = randomised(build(8, scan=Raster()))
    windows = build(8, scan=Window(size=2)).to(torch.float64)
    windows.load_state_dict(rows.state_dict())
    x = features()
    assert not torch.allclose(rows(x), windows(x))


@pytest.mark.parametrize("width", [1, 2])
def test_an_omni_scan_may_scale_by_its_channels(width):
    options = {"d_state": 3, "channel_width": width, "channel_rank": 2, "combine": "scale"}
    part, x = randomised(OmniScan(8, **options)), features()
    with torch.no_grad():
        assert_same(part(x), plain_field.omni_scan(weights_of(part), x, scale=True))


BRANCH_CASES = {
    "cab": ({"compress": 2, "squeeze": 3}, plain.cab),
    "cab_light": ({"compress": 2, "squeeze": 3}, plain.cab_light),
    "cab_depthwise": ({"squeeze": 3}, plain.cab_depthwise),
    "channel_attention": ({"squeeze": 3}, plain.channel_attention_branch),
    "mlp": ({}, plain.mlp),
    "gdfn": ({"ratio": 1.7, "bias": True}, plain_field.gdfn),
    "simple_gate": ({"ratio": 1.5, "bias": True}, plain_field.simple_gate),
    "conv_ffn": ({"ratio": 1.3, "kernel": 3}, plain_attentive.conv_ffn),
    "gated_mlp": ({"ratio": 1.3, "kernel": 3}, plain_attentive.gated_mlp),
}


@pytest.mark.parametrize("name", BRANCH_CASES)
def test_branches_equal_their_equations(name):
    options, expected = BRANCH_CASES[name]
    part, x = randomised(BRANCHES.get(name).target(8, **options)), features()
    with torch.no_grad():
        assert_same(part(x), expected(weights_of(part), x))


def test_all_mixers_branches_fusions_and_aligners_of_the_package_are_compared():
    def own(registry):
        return {e.name for e in registry.entries() if e.target.__module__.startswith("zoo.")}

    assert own(MIXERS) == set(MIXER_CASES)
    assert own(BRANCHES) == set(BRANCH_CASES)
    assert own(MERGES) == {"sum", "gated", "shuffle_attention"}
    assert own(GUIDED_BLOCKS) == {"hfe"}
    assert own(BURST_FUSIONS) == {name for name, *_ in FUSION_CASES}
    assert own(ALIGNERS) == {"none", "warp", *ALIGNER_CASES}
    networks = {"rssb", "rlmb"}  # by the official outputs
    assert own(BLOCKS) == networks | {
        *("channel_transformer", "msfm", "res"),
        *("attentive_layer", "bare"),  # tests/test_attentive.py
    }


def test_the_widths_of_a_part_are_those_of_its_paper():
    def count(part):
        return sum(p.numel() for p in part.parameters())

    light, classic = RSSB(60), RSSB(180)
    assert [t.shape[0] for t in (light.mixer.out_norm.weight, light.branch.layers[0].weight)] == [
        120,
        20,
    ]
    assert classic.mixer.A_log.shape == (4, 360, 16) and classic.mixer.dt_proj_weight.shape[2] == 12
    assert classic.branch.layers[3].reduce.weight.shape[0] == 6
    assert RLMB(48).mlp.fc1.weight.shape == (96, 48)
    assert count(GatedMerge(48)) == 2 * 48 + 48 * 6 + 6 + 6 * 48 + 48
    # Restormer, Sec. 3: no biases; 2.66 times the channels.
    hidden = int(48 * 2.66)
    attention = 48 * 144 + 9 * 144 + 48 * 48 + 4
    assert count(ChannelTransformer(48)) == 4 * 48 + attention + 3 * 48 * hidden + 18 * hidden
    assert MIXERS.get("mamba1d").target(8).conv_weight.shape == (16, 4)  # Mamba, Fig. 3
    assert BRANCHES.get("mlp").target(8).fc1.weight.shape == (16, 8)
    assert BRANCHES.get("channel_attention").target(8, squeeze=4).layers[0].reduce.out_channels == 2
    pbff = BURST_FUSIONS.get("pbff").target(16, burst=3)
    assert len(pbff.blocks) == 2 and pbff.blocks[0].layers[3].reduce.out_channels == 2
    qssm = BURST_FUSIONS.get("qssm").target(48, burst=14)
    assert count(qssm) == pytest.approx(168.0e3, rel=0.01)
    assert qssm.channel_attention.reduce.out_channels == 12
    assert count(MSFM(48)) == pytest.approx(91.0e3, rel=0.01)
    narrow = MSFM(8, ratio=1.7, heads=2).branches["transformer"]
    assert (narrow.feed_forward.out_proj.in_channels, narrow.attention.heads) == (13, 2)


def test_a_gate_of_the_merge_is_that_of_its_own_direction():
    merge, y_BLKE = randomised(GatedMerge(16)), features(2, 5, 3, 16)
    with torch.no_grad():
        assert_same(merge.add(y_BLKE), plain.gated_merge(weights_of(merge), y_BLKE))
    with pytest.raises(ValueError, match="dim >= 8"):
        GatedMerge(7)


@pytest.mark.parametrize("directions", [2, 3])
def test_shuffle_attention_gates_each_channel_by_its_own_directions(directions):
    part = randomised(ShuffleAttention(5, directions=directions))
    y_BLKE = features(2, 7, directions, 5)
    with torch.no_grad():
        assert_same(part.add(y_BLKE), plain_field.shuffle_attention(weights_of(part), y_BLKE))


def test_a_guided_block_equals_its_equations():
    part, x, guide = randomised(HighFrequencyBlock(6)), features(2, 3, 5, 6), features(2, 3, 5, 6)
    with torch.no_grad():
        assert_same(part(x, guide), plain_field.hfe(weights_of(part), x, guide))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_a_channel_transformer_equals_restormers_equations(heads):
    part, x = randomised(ChannelTransformer(8, heads=heads, ratio=1.7)), features()
    with torch.no_grad():
        assert_same(part(x), plain.channel_transformer(weights_of(part), x, heads))


@pytest.mark.parametrize("branches", [("conv",), ("transformer", "ssm"), plain.MSFM_BRANCHES])
def test_msfm_is_the_weighted_sum_of_its_branches(branches):
    options = {"branches": branches, "heads": 2, "ratio": 1.7}
    part, x = randomised(MSFM(8, **options)), features()
    with torch.no_grad():
        assert_same(part(x), plain.msfm(weights_of(part), x, branches, heads=2))


def test_msfm_gives_its_scan_order_to_the_mixer():
    order = Window(size=2, directions=("column",))
    part = randomised(MSFM(8, scan=order, mixer=SS2D, branches=["ssm"]))
    assert part.branches["ssm"].scan == order


def test_a_residual_block_equals_its_equation():
    part, x = randomised(ResBlock(8)), features()
    with torch.no_grad():
        assert_same(part(x), plain.res_block(weights_of(part), x))


def test_the_bottleneck_that_ends_a_group_has_slopes_of_a_fifth():
    part, x = randomised(group_conv(8, "3conv")), features()
    w = weights_of(part)
    with torch.no_grad():
        expected = plain.leaky(plain.conv(w.under("0"), x), 0.2)
        expected = plain.leaky(plain.conv(w.under("2"), expected), 0.2)
        assert_same(part(x), plain.conv(w.under("4"), expected))
    assert group_conv(9, "3conv")[0].out_channels == 2


def qssm_case(frame_mix, denoise, c_source):
    options = {"frame_mix": frame_mix, "denoise": denoise, "c_source": c_source}
    return (
        "qssm",
        {**options, "expand": 1.3, "d_state": 3, "dt_rank": 2},
        lambda *given: plain.qssm(*given, **options),
        3,
    )


# Name, options, expectation, other frames S of a part that is built for a burst of 4.
FUSION_CASES = [
    ("concat", {}, plain.concat_fusion, 3),
    ("pbff", {}, lambda *given: plain.pbff(*given, blocks=2), 3),
    ("nrfe", {}, lambda *given: plain.nrfe(*given, blocks=2), 3),
    ("nrfe", {"blocks": 1}, lambda *given: plain.nrfe(*given, blocks=1), 10),
    qssm_case("concat", "concat", "frames"),
    qssm_case("mean_max", "none", "reference"),
    qssm_case("concat", "mean_max", "reference"),
]


@pytest.mark.parametrize(("name", "options", "expected", "others"), FUSION_CASES, ids=case_name)
def test_fusions_equal_their_equations(name, options, expected, others):
    part = randomised(BURST_FUSIONS.get(name).target(8, burst=4, **options))
    reference, frames = features(), features(SHAPE[0], others, *SHAPE[1:])
    with torch.no_grad():
        assert_same(part(reference, frames), expected(weights_of(part), reference, frames))


ALIGNER_CASES = {
    "eda": (EDA, {"kernel": 3, "dilation": 2}),
    "gflow": (GroupFlow, {"kernel": 1, "dilation": 1}),
}


@pytest.mark.parametrize(
    ("name", "refine", "blocks", "with_flow"),
    [("eda", "all", 1, True), ("eda", "last", 2, False), ("gflow", "none", 1, True)],
)
def test_alignment_equals_burstormers_for_each_frame_alone(name, refine, blocks, with_flow):
    kind, sampling = ALIGNER_CASES[name]
    part = randomised(kind(8, groups=2, blocks=blocks, refine=refine, frame_chunk=2)).eval()
    with torch.no_grad():
        for alignment in part.alignments:
            # Displacements are float32 positions: no larger than needed to leave the image.
            alignment.offset.weight *= 0.5
    frames = torch.rand(2, 4, 4, 8, 8, dtype=torch.float64)
    flow = 1.5 * features(2, 4, 2, 4, 8) if with_flow else None
    calls = []
    part.alignments[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        found = part(frames, flow)
    expected, moves = plain.eda(weights_of(part), frames, flow, groups=2, blocks=blocks, **sampling)
    # Positions are float32: 1e-6 pixels times the slope of the features, through four levels.
    torch.testing.assert_close(found.frames, expected, atol=2e-4, rtol=2e-4)
    for ours, theirs in zip(found.displacements, moves, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-4, rtol=2e-4)
    # Three frames two at a time; all at once where a graph is kept.
    assert len(calls) == 2
    torch.testing.assert_close(part(frames, flow).frames, found.frames, atol=2e-4, rtol=2e-4)
    assert len(calls) == 3


def test_blocks_of_a_group_take_scan_orders_and_drop_paths_in_turn():
    from zoo.blocks import ResidualGroup

    orders = [Raster(directions=("row",)), Window(size=2)]
    group = ResidualGroup(32, block=RSSB, scans=orders, drop_paths=[0.0, 0.1, 0.2], conv="1conv")
    assert [b.mixer.scan for b in group.blocks] == [orders[0], orders[1], orders[0]]
    assert [b.drop_path.rate for b in group.blocks] == [0.0, 0.1, 0.2]


def test_a_group_without_blocks_or_orders_says_so():
    from zoo.blocks import ResidualGroup

    for options, message in (
        ({"block": RSSB, "scans": []}, "scans is empty; name at least one scan order"),
        ({"block": [], "scans": [Raster()]}, "block is empty; name at least one block"),
    ):
        with pytest.raises(ValueError, match=message):
            ResidualGroup(32, drop_paths=[0.0], **options)


def test_a_list_of_blocks_may_be_longer_than_a_group_whichever_it_is():
    for depths in ([2, 1], [1, 2], [1, 2, 1]):
        assert blocks_of_groups([RSSB, ResBlock], depths) == [[RSSB, ResBlock]] * len(depths)
    with pytest.raises(ValueError, match=r"block has 2 kinds for group 0, .* at most 1 blocks"):
        blocks_of_groups([RSSB, ResBlock], [1, 1])


def test_options_of_parts_may_be_at_the_limits_that_they_say():
    assert scan_sizes(1, expand=1, d_state=1, dt_rank=1) == (1, 1, 1)
    assert scan_sizes(16, expand=None, d_state=256) == (32, 1, 256)
    assert scan_sizes(17, expand=None, d_inner=1, d_state=1).rank == 2
    for size in (1, 63):
        check_kernel(size, "kernel")
    check_kernel(62, "kernel", odd=False)
    for eps in (1e-12, 1.0):
        assert LayerNorm(4, eps=eps).eps == eps
    for size in (1, 1024):
        part = ChannelScan(4, width=size, rank=1, states=1)
        assert part.sizes == (1, 1, 1) and part.x_proj_weight.shape == (2, 3, size)
    assert ChannelScan(4, width=1, rank=1024, states=1).sizes == (1024, 1, 1)
    for factor in (-1000, 1000):
        assert RLMB(8, branch=None, branch_factor=factor).branch_factor == factor
    assert DropPath(0).rate == 0
    small = Attentive(8, classes=1, prompt_rank=1)
    assert small.prompt_classes.shape == (1, 1)
    assert at_least_one(5, 5, "x") == at_least_one(1, 1, "x") == 1
    assert GatedFeedForward(8, ratio=0.125).out_proj.in_channels == 1
    assert SimpleGate(8, ratio=0.25).out_proj.in_channels == 1
    assert EDA(8, groups=8, blocks=1, frame_chunk=0).frame_chunk == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerNorm(4, eps=1.01), "eps is 1.01; it must be from 1e-12 to 1"),
        (lambda: RLMB(8, branch_factor=-1001), "branch_factor is -1001; it must be from -1000"),
        (lambda: RLMB(8, branch_factor=1001), "branch_factor is 1001; it must be from -1000"),
        (lambda: DropPath(1), "drop_path is 1; it must be at least 0 and below 1"),
        (lambda: check_kernel(0, "k", odd=False), "k is 0; it must be from 1 to 63"),
        (lambda: check_kernel(2, "k"), "k is 2; it must be odd and from 1 to 63"),
        (lambda: ChannelScan(4, width=1025, rank=1, states=1), "channel_width is 1025; it must be"),
        (lambda: ChannelScan(4, width=0, rank=1, states=1), "channel_width is 0; it must be from"),
        (lambda: at_least_one(8, 0, "x"), "x is 0; it must be at least 1"),
        (
            lambda: MSFM(8, branches=["conv", "conv"]),
            "at least one of conv, ssm, .* each once",
        ),
        (lambda: EDA(8, groups=0), "groups is 0; it must divide the 8 channels"),
        (lambda: EDA(8, blocks=0), "blocks is 0 and frame_chunk is 4; blocks must be at least 1"),
        (lambda: EDA(8, frame_chunk=-1), "frame_chunk is -1; blocks must be"),
        (lambda: UnshuffleDown(8, out=6), "dim is 8, and the level below has 6 channels; .* of 4"),
        (lambda: SimpleGate(10, ratio=0.55), "gives 5 channels; .* must be even"),
    ],
)
def test_options_of_parts_beyond_their_limits_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_rank_of_a_scan_over_channels_may_follow_from_the_channels():
    for dim, rank in ((32, 2), (33, 3)):
        assert OmniScan(dim, channel_rank=None).channels.sizes[0] == rank


@pytest.mark.parametrize(("chunk", "frames", "calls"), [(0, 4, 1), (2, 4, 2), (3, 4, 1), (2, 1, 0)])
def test_frames_are_aligned_so_many_at_a_time_and_all_at_once_in_an_export(
    chunk, frames, calls, monkeypatch
):
    part = EDA(8, groups=2, blocks=1, frame_chunk=chunk).eval()
    burst, told = torch.rand(1, frames, 4, 4, 8), []
    part.alignments[0].register_forward_hook(lambda *_: told.append(1))
    with torch.no_grad():
        found = part(burst)
        assert len(told) == calls and found.frames.shape == burst.shape
        assert len(found.displacements) == (3 if frames > 1 else 0)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        part(burst)
    assert len(told) == calls + (frames > 1)


NORMED = {
    "ss2d": {"out_norm"},
    "head_scan": {"out_norm"},
    "omni_scan": {"out_norm", "channels.norm"},
    "hfe": {"guide_norm", "norm", "ffn_norm"},
}
"""The norms of parts that have the option ``norm`` which it builds."""


@pytest.mark.parametrize("name", NORMED)
def test_the_option_norm_builds_every_norm_that_it_is_of(name):
    registry = MIXERS if name in MIXERS.names() else GUIDED_BLOCKS
    part = registry.get(name).target(32, norm=partial(LayerNorm, eps=0.5))
    norms = {key: m.eps for key, m in part.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert norms == dict.fromkeys(NORMED[name], 0.5)


SEEN = {
    "expand": (1.5, lambda part: part.out_proj.in_features == 48),
    "d_inner": (40, lambda part: part.out_proj.in_features == 40),
    "d_state": (3, lambda part: part.A_log.shape[-1] == 3),
    "dt_rank": (5, lambda part: part.dt_proj_weight.shape[-1] == 5),
    "d_conv": (5, lambda part: 5 in part.conv.weight.shape[2:]),
    "merge": (GatedMerge, lambda part: isinstance(part.merge, GatedMerge)),
    "scan": (Window(size=2), lambda part: part.scan == Window(size=2)),
}
"""What shows that an option of a mixer has reached its layers."""


@pytest.mark.parametrize("option", SEEN)
@pytest.mark.parametrize("name", ["ss2d", "axial", "head_scan", "omni_scan", "attentive"])
def test_an_option_of_a_mixer_reaches_its_layers(name, option):
    build = MIXERS.get(name).target
    if option not in inspect.signature(build).parameters or (name, option) == ("axial", "scan"):
        return
    value, seen = SEEN[option]
    assert seen(build(32, **{option: value})) and not seen(build(32))


def test_a_block_has_a_norm_before_its_mixer_and_one_before_its_branch():
    one, other = partial(LayerNorm, eps=0.5), partial(LayerNorm, eps=0.25)
    block = RSSB(32, norm=one, branch_norm=other)
    assert (block.norm.eps, block.branch_norm.eps, block.mixer.out_norm.eps) == (0.5, 0.25, 1e-5)


def test_a_convolution_of_single_pixels_is_a_product_where_nothing_is_traced(monkeypatch):
    calls, real = [], torch.nn.functional.linear
    monkeypatch.setattr("zoo.blocks.layers.F.linear", lambda *x: calls.append(1) or real(*x))
    conv, x = Conv2d(6, 4, 1), torch.rand(1, 3, 5, 6)
    expected = conv(x)
    assert len(calls) == 1
    conv.to("meta")(x.to("meta"))
    for traced in ("torch.compiler.is_compiling", "torch.jit.is_tracing"):
        with monkeypatch.context() as patch:
            patch.setattr(traced, lambda: True)
            torch.testing.assert_close(conv.to_empty(device="cpu")(x).shape, expected.shape)
    assert len(calls) == 1


BIASED = {
    **{name: {"in_proj", "out_proj"} for name in ("ss2d", "head_scan", "omni_scan", "simple_gate")},
    "gdfn": {"in_proj", "conv", "out_proj"},
}
"""The layers of parts that have the option ``bias`` which it gives biases."""


@pytest.mark.parametrize("name", BIASED)
def test_the_option_bias_reaches_every_layer_that_it_is_of(name):
    registry = MIXERS if name in MIXERS.names() else BRANCHES
    layers = []
    for bias in (False, True):
        names = {key for key, _ in registry.get(name).target(32, bias=bias).named_parameters()}
        layers.append({key.removesuffix(".bias") for key in names if key.endswith(".bias")})
    assert layers[1] - layers[0] == BIASED[name]
