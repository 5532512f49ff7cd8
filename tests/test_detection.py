"""Which network a file of the authors' code holds: what its names and shapes show."""

from __future__ import annotations

import pytest
import torch

import zoo
from tests.helpers.small_weights import small_network, their_names
from zoo.checkpoints.evidence import difference
from zoo.checkpoints.keymap import MissingKeyError
from zoo.checkpoints.mair import most_alike
from zoo.checkpoints.mambair import _branch, divisor, ratio_of
from zoo.checkpoints.releases import OFFICIAL
from zoo.errors import CheckpointError


def test_three_light_generations_are_told_apart(tmp_path):
    for name, branch in (("", "cab_light"), ("_gen_a", "cab_depthwise"), ("_gen_b", "cab")):
        network = zoo.build(f"mambair_light_x2{name}", depths=[1])
        zoo.checkpoints.save_official(network, tmp_path / "w.pth")
        found = zoo.load(tmp_path / "w.pth")
        assert found.recipe.network["block"]["branch"]["type"] == branch
        expected = network.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in found.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"conv": "3conv"},
        {"patch_norm": False},
        {"channels": 1, "head": "pixelshuffle", "scale": 8},
        {"head": "pixelshuffle", "scale": 3, "dim": 48},
        {"head": "residual", "scale": 1, "channels": 1},
        {"scans": [{"type": "raster", "directions": ["row"]}]},
        {"scans": [{"type": "raster", "directions": ["row", "row_reversed"]}]},
        {
            "block.mixer": {
                "type": "ss2d",
                "expand": None,
                "d_inner": 41,
                "d_state": 3,
                "dt_rank": 5,
                "d_conv": 5,
            }
        },
        {"block.branch": {"type": "cab", "compress": 5, "squeeze": 7}},
    ],
    ids=str,
)
def test_whatever_their_code_can_be_is_detected(tmp_path, changes):
    settings = {"dim": 36, "depths": [2, 1], **changes}
    network = zoo.build("mambair_light_x2", **settings).eval()
    zoo.checkpoints.save_official(network, tmp_path / "w.pth")
    found = zoo.load(tmp_path / "w.pth")
    image = torch.rand(1, network.channels, 5, 4)
    with torch.no_grad():
        assert torch.equal(found(image), network(image))


@pytest.mark.parametrize("expand", [1.2, 1.5, 2.0])
def test_unets_of_other_widths_are_detected(tmp_path, expand):
    settings = {"dim": 30, "depths": [1, 2, 1, 1], "refinement": 1}
    network = zoo.build("mambair_realdn", **settings, **{"block.mixer.expand": expand}).eval()
    zoo.checkpoints.save_official(network, tmp_path / "w.pth")
    found = zoo.load(tmp_path / "w.pth")
    image = torch.rand(1, 3, 9, 10)
    with torch.no_grad():
        assert torch.equal(found(image), network(image))


def test_img_range_is_given_by_the_user(tmp_path):
    network = zoo.build("mambair_light_x2", dim=36, depths=[1], img_range=255.0).eval()
    zoo.checkpoints.save_official(network, tmp_path / "w.pth")
    image = torch.rand(1, 3, 5, 4)
    with torch.no_grad():
        found = zoo.load(tmp_path / "w.pth", img_range=255.0)
        assert torch.equal(found(image), network(image))


def their_state():
    network = zoo.build("mambair_light_x2", dim=36, depths=[1])
    caught = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            zoo.checkpoints.saving, "write_pickled", lambda _, content: caught.update(content)
        )
        zoo.checkpoints.save_official(network, "w.pth")
    return caught["params"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "conv_blk.cab.5.attention",
            "conv_blk.cab.5.eca",
            "looks like MambaIR, but the key '.*conv_blk.cab.N.attention.1.weight' is missing",
        ),
        ("conv_blk.", "other_blk.", "not recognised .*keys are those of MambaIR.*so its block"),
        (".D", ".D", None),
    ],
)
def test_a_file_that_is_nearly_theirs_says_which_part_differs(tmp_path, old, new, message):
    state = {key.replace(old, new): value for key, value in their_state().items()}
    torch.save(state, tmp_path / "w.pth")
    if message is None:
        assert zoo.load(tmp_path / "w.pth")
        return
    with pytest.raises(CheckpointError, match=message) as error:
        zoo.load(tmp_path / "w.pth")
    part = "branch: {type: YOURS}" if "eca" in new else "block: {type: YOURS}"
    assert part in str(error.value) and "pass recipe={extends: mambair_" in str(error.value)


def test_a_strange_tensor_beside_theirs_says_which_part_differs(tmp_path):
    key = "layers.0.residual_group.blocks.0.self_attention.gate.weight"
    torch.save({**their_state(), key: torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"unexpected 1: .*so its mixer differs; register"):
        zoo.load(tmp_path / "w.pth")


@pytest.mark.parametrize("shape", [(), (0,), (1, 2, 3, 4, 5)])
def test_impossible_shapes_in_their_files_are_named(tmp_path, shape):
    for key in ("conv_first.weight", "layers.0.residual_group.blocks.0.ln_1.weight"):
        torch.save({**their_state(), key: torch.zeros(shape)}, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match=r"w\.pth: "):
            zoo.load(tmp_path / "w.pth")


@pytest.mark.parametrize(("hidden", "ratio"), [(62, 1.3), (60, 1.25), (96, 2.0), (48, 1.0)])
def test_a_ratio_has_as_few_decimals_as_give_the_width(hidden, ratio):
    """62 / 48 is 1.29, which gives 61."""
    assert ratio_of(48, hidden) == ratio and int(ratio * 48) == hidden


def test_a_block_without_a_branch_names_the_key_that_it_has_not():
    for state, first in (({}, "nothing"), ({"x.1": 0, "c.cab.0.q": 0}, "c.cab.0.q")):
        message = rf"the key 'c\.cab\.N\.attention\.1\.weight' is missing, while '{first}' is there"
        with pytest.raises(MissingKeyError, match=message):
            _branch(state, "c.cab.", 60)


@pytest.mark.parametrize("name", ["shallow.x", "groups.0.x", "encoders.0.x", "head.x"])
def test_our_names_are_known_by_each_of_their_starts(name):
    with pytest.raises(CheckpointError, match="the names are ours, but do not say which network"):
        zoo.load({name: torch.zeros(2)})


def test_a_ratio_of_one_decimal_comes_before_one_of_two():
    """7 / 6 is 1.17, which gives 7 as well."""
    assert ratio_of(6, 7) == 1.2


@pytest.mark.parametrize(
    ("dim", "hidden", "usual", "expected"),
    [
        (60, 2, 30, 30),
        (17, 2, 30, 6),  # and so would 8
        (29, 1, 3, 24),  # and so would 29
        (23, 3, 30, 6),
        (40, 10, 3, 4),
        (11, 3, 3, 3),
    ],
)
def test_a_divisor_is_the_usual_one_or_one_of_the_authors_where_it_fits(
    dim, hidden, usual, expected
):
    assert divisor(dim, hidden, usual) == expected
    with pytest.raises(CheckpointError, match="no integer divides 10 channels into 4; pass"):
        divisor(10, 4, usual)


@pytest.mark.parametrize(
    ("scale", "model"),
    [(1, "mair_light_t_x2"), (2, "mair_light_t_x2"), (3, "mair_light_t_x3"),
     (4, "mair_light_t_x4"), (8, "mair_light_t_x4")],
)  # fmt: skip
def test_a_mair_file_of_another_scale_is_like_the_nearest_published(scale, model):
    state = {
        "conv_first.weight": torch.zeros(6, 3, 3, 3),
        "upsample.0.weight": torch.zeros(3 * scale**2, 6, 3, 3),
        "layers.0.residual_group.blocks.0.self_attention.A_logs": torch.zeros(24, 1),
    }
    assert most_alike(state) == (model, 8)


UNEVEN = {
    **{"mair_light_t_x2": "block.branch.ratio", "wavemamba_uhdll": "block.branch.ratio"},
    **{"vmambair_derain": "block.branch.ratio", "eamamba_light_x2": "block.branch.ratio"},
    **{"mambairv2_light_x2": "block.branch.ratio", "dvmsr_x4": "block.mixer.expand"},
    **{"mambacsr_wo": "block.mlp_ratio", "mambacsr_final": "coarse.fusion.mlp_ratio"},
}
"""A model of each release, and an option that is a ratio of channels."""


@pytest.mark.parametrize("name", UNEVEN)
def test_a_ratio_of_two_numbers_that_has_no_two_decimals_is_found(name):
    """123 / 60 is 2.05, and the integer of 2.05 * 60 is 122; no shorter number will do for 74."""
    sizes, wide = {"dim": 120, "depths": [1]}, 120
    if name == "vmambair_derain":
        sizes, wide = {"dim": 30, "depths": [1, 1, 1, 1], "refinement": 1}, 240
    if name == "wavemamba_uhdll":
        sizes |= {"depths": [1, 1, 1], "high_depths": [1, 1, 1]}
    if name == "mambacsr_final":
        sizes |= {"coarse.depths": [1]}
    for hidden in (246 * wide // 120, 74 * wide // 120):
        with torch.device("meta"):
            network = zoo.build(name, **sizes, **{UNEVEN[name]: (hidden + 0.5) / wide})
        theirs = {key: torch.empty(value.shape) for key, value in their_names(network).items()}
        found = zoo.detect(theirs, as_published=True)
        with torch.device("meta"):
            state = zoo.build(found).state_dict()
        expected = {key: value.shape for key, value in network.state_dict().items()}
        assert {key: value.shape for key, value in state.items()} == expected


def test_releases_have_their_names_their_wrappers_and_a_published_recipe():
    assert [(one.name, one.wrapper, one.published, one.facts) for one in OFFICIAL] == [
        ("MambaIR", "params", "mambair_classic_x4", ()),
        ("MambaIRUNet", "params", "mambair_realdn", ()),
        ("MambaIRv2", "params", "mambairv2_x4", ()),
        ("MambaCSR", "params_ema", "mambacsr_final", ("scan_size",)),
        ("MaIR", "params", "mair_classic_x4", ("scan_len",)),
        ("VmambaIR", "params", "vmambair_derain", ()),
        ("EAMamba", "params", "eamamba_derain", ()),
        ("EAMambaSR", "params", "eamamba_light_x2", ()),
        ("Wave-Mamba", "params", "wavemamba_uhdll", ()),
        ("DVMSR", "", "dvmsr_x4", ()),
    ]
    assert {one.published for one in OFFICIAL} <= {*zoo.list_models()}


def test_a_branch_that_a_release_does_not_have_is_not_among_its_names():
    """MaIR and Wave-Mamba take MambaIR's blocks with another branch."""
    starts = {
        "MambaIR": "layers.0.residual_group.blocks.0.",
        "MaIR": "layers.0.residual_group.blocks.0.",
        "Wave-Mamba": "restoration_network.down_group1.l_blk.0.",
    }
    known = {
        one.name: one.every_key.knows(f"{starts[one.name]}conv_blk.cab.0.weight")
        for one in OFFICIAL
        if one.name in starts
    }
    assert known == {"MambaIR": True, "MaIR": False, "Wave-Mamba": False}


@pytest.mark.parametrize(
    ("key", "part", "line"),
    [
        ("a.self_attention.multi_scan.x", "merge", "block: {mixer: {merge: {type: YOURS}}}"),
        ("a.self_attention.x", "mixer", "block: {mixer: {type: YOURS}}"),
        ("a.conv_blk.x", "branch", "block: {branch: {type: YOURS}}"),
        ("a.conv_block.x", "branch", "block: {branch: {type: YOURS}}"),
        ("a.win_mhsa.x", "attention", "block: {attention: {type: YOURS}}"),
        ("a.assm.x", "mixer", "block: {mixer: {type: YOURS}}"),
        ("a.mixer.x", "mixer", "block: {mixer: {type: YOURS}}"),
        ("a.blocks.0.convffn1.x", "branch", "block: {branch: {type: YOURS}}"),
        ("layers2.0.blocks.0.x", "coarse branch", "coarse: {...}"),
        ("layers3.0.x", "fusion of scales", "coarse: {fusion: {type: YOURS}}"),
        ("a.blocks.0.x", "block", "block: {type: YOURS}"),
        ("a.residual_group.layers.0.x", "block", "block: {type: YOURS}"),
        ("upsample.a", "head", "head: {type: YOURS}"),
        ("conv_last.0.a", "head", "head: {type: YOURS}"),
        ("a", "network", "..."),
    ],
)
def test_the_part_of_a_release_that_differs_is_named_with_its_line_in_a_recipe(key, part, line):
    state = their_names(small_network())
    known = len(state)
    if key.startswith("conv_last"):
        key = "other_conv_last.0.a"
    found = difference({**state, key: torch.zeros(1), "z": torch.zeros(1)}, OFFICIAL)
    assert found == (
        f"{known} of its {known + 2} keys are those of MambaIR, but not {key!r}, so its {part} "
        "differs; register that part and pass recipe={extends: mambair_classic_x4, network: "
        f"{{{line}}}}}"
        "; if it is no part of the network, remove it from the file"
    )


def test_a_file_of_which_half_or_nothing_is_strange_differs_in_no_part():
    state = their_names(small_network())
    strange = {f"strange{number}": torch.zeros(1) for number in range(len(state) + 1)}
    assert difference(state, OFFICIAL) is None and difference({}, OFFICIAL) is None
    assert difference({**state, **strange}, OFFICIAL) is None
    del strange["strange0"]
    assert "not 'strange1'" in difference({**state, **strange}, OFFICIAL)


def test_a_tensor_of_an_impossible_shape_is_named():
    state = {**their_names(small_network()), "conv_first.weight": torch.zeros(3)}
    with pytest.raises(
        CheckpointError,
        match=r"looks like MambaIR, but conv_first\.weight has the shape \(3,\), which does not "
        "fit the other tensors$",
    ):
        zoo.load(state)


def test_weights_that_are_not_quite_those_of_a_release_need_their_recipe():
    state = {**their_names(small_network()), "norm.weight": torch.zeros(9)}
    message = r"wrong size 1: norm\.weight \(9,\) instead of \(8,\)"
    hint = "; pass its recipe, as it is not quite the network of MambaIR"
    with pytest.raises(CheckpointError, match=f"{message}{hint}$"):
        zoo.load(state)
    with pytest.raises(CheckpointError, match=f"{message}$"):
        zoo.load(state, recipe=small_network().recipe)
