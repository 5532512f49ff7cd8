"""MambaCSR beyond the authors' fixtures: true geometry, any size, schedules, both directions of
conversion, and what is refused. Equality with the authors' outputs is in test_official.py.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import zoo
from tests.helpers.brute_force_csr import BruteForce
from tests.helpers.official_weights import CASES, OFFICIAL, state_dict
from tests.helpers.plain import randomised
from zoo.checkpoints import OFFICIAL as FORMATS
from zoo.checkpoints import save_official
from zoo.checkpoints.mambacsr import authors_schedule
from zoo.cli import main
from zoo.data import Photo, read_photo, write_photo
from zoo.errors import CheckpointError, RecipeError
from zoo.registry import capabilities_of
from zoo.scans import CrossScale, Raster, Window
from zoo.scans.official import official_column_sources

RELEASE = next(f for f in FORMATS if f.name == "MambaCSR")
NONSQUARE, SQUARE = "csr_final_x2_32x48_nonsquare", "csr_final_x2_16x16"
LOGIC = 1e-10  # of float64; rounding alone is some 1e-14


def saved(name, folder):
    path = folder / "w.pth"
    torch.save({"params_ema": state_dict(name)}, path)
    return path


def tiny(**changes):
    settings = {"dim": 24, "depths": [2, 1], "block.mixer.d_state": 2, "scale": 2, **changes}
    return zoo.build("mambacsr_final", **{"coarse.depths": [1], **settings}).eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("csr_")])
def test_the_reference_agrees_in_float64(name, tmp_path):
    expected = load_file(OFFICIAL / f"{name}.safetensors")
    network = zoo.load(saved(name, tmp_path), **CASES[name]["options"]).double()
    with torch.no_grad(), zoo.use_backend("reference"):
        found = network(expected["input"].double())
    assert (found - expected["output_fp64"]).abs().max() <= LOGIC


@pytest.mark.parametrize("official", [True, False])
def test_both_geometries_equal_a_construction_by_loops(official, tmp_path):
    expected = load_file(OFFICIAL / f"{NONSQUARE}.safetensors")
    state = {key: value.double() for key, value in state_dict(NONSQUARE).items()}
    image = expected["input"].double()
    brute = BruteForce(state, scale=2, official=official)(image[0])[None]
    compat = "official" if official else None
    network = zoo.load(saved(NONSQUARE, tmp_path), scan_size=8, compat=compat).double()
    with torch.no_grad():
        assert (network(image) - brute).abs().max() <= LOGIC
    theirs = (brute - expected["output_fp64"]).abs().max()
    if official:
        assert theirs <= LOGIC
    else:
        assert theirs > 0.1  # the authors' code really is elsewhere


def test_on_a_square_grid_the_default_is_the_authors(tmp_path):
    expected = load_file(OFFICIAL / f"{SQUARE}.safetensors")
    network = zoo.load(saved(SQUARE, tmp_path), scan_size=8)
    assert "compat" not in network.recipe.network
    image = expected["input"].requires_grad_()
    output = network(image)
    assert (output - expected["output"]).abs().max() <= CASES[SQUARE]["atol"]
    (output * expected["cot"]).mean().backward()
    keys = RELEASE.key_map(network.recipe.network)
    for key, parameter in network.named_parameters():
        theirs = expected[f"g.{keys.to_theirs(key)}"].reshape(parameter.shape)
        assert theirs.norm() > 0
        assert (parameter.grad - theirs).norm() / theirs.norm() <= 1e-3, key
    dead = network.coarse.fusions[0].coarse_proj.weight.grad.chunk(2)[1]
    assert not dead.any()


def test_the_official_mapping_is_a_permutation_and_right_on_square_grids():
    for height, width, size in ((4, 12, 4), (32, 48, 16), (48, 16, 16), (12, 8, 2)):
        sources_L = official_column_sources(height, width, size)
        identity_L = torch.arange(height * width)
        assert torch.equal(sources_L.sort().values, identity_L)
        assert not torch.equal(sources_L, identity_L)
    assert torch.equal(official_column_sources(8, 8, 2), torch.arange(64))


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (17, 16), (33, 15)])
def test_any_size_is_the_padded_one_cropped(size):
    network = tiny()
    height, width = size
    image = torch.rand(1, 3, height, width)
    padded = F.pad(image, (0, -width % 16, 0, -height % 16), mode="replicate")
    with torch.no_grad():
        found, whole = network(image), network(padded)
    assert found.shape == (1, 3, 2 * height, 2 * width) and found.is_contiguous()
    assert torch.equal(found, whole[..., : 2 * height, : 2 * width])


@pytest.mark.slow
def test_a_network_of_two_scales_is_traced_once_for_all_sizes():
    network = tiny(depths=[1], compat="official")
    dims = {2: torch.export.Dim("h", min=2, max=256), 3: torch.export.Dim("w", min=2, max=256)}
    with torch.no_grad():
        program = torch.export.export(network, (torch.rand(1, 3, 20, 35),), dynamic_shapes=(dims,))
        for height, width in ((20, 35), (16, 48), (33, 7)):
            image = torch.rand(1, 3, height, width)
            torch.testing.assert_close(program.module()(image), network(image), atol=1e-5, rtol=0)


def test_the_grid_is_told_to_tools():
    assert capabilities_of(tiny()).size_multiple == 16
    assert capabilities_of(tiny(coarse=None)).size_multiple == 1
    assert capabilities_of(tiny(**{"coarse.fusion.scan.size": 8})).size_multiple == 8


def test_coarse_features_begin_before_the_norm_and_no_fusion_changes_them():
    """MambaCSR, Sec. 3.1: two coarse groups, each on what the coarse one before it left."""
    # Weights that matter: at the initial ones coarse tokens change fine ones by some 1e-6.
    network = randomised(tiny(depths=[1, 1, 1], **{"coarse.depths": [1, 1]}))
    image = torch.rand(1, 3, 16, 32, dtype=torch.float64)
    with torch.no_grad():
        shallow = network.shallow(network.normalise(image.permute(0, 2, 3, 1).contiguous()))
        x = network.patch_norm(shallow)
        coarse = network.coarse.norm(F.avg_pool2d(shallow.permute(0, 3, 1, 2), 2).movedim(1, 3))
        for index, group in enumerate(network.groups):
            x = group(x)
            if index < 2:
                coarse = network.coarse.groups[index](coarse)
                x = network.coarse.fusions[index](x, coarse)
        x = network.after_body(network.norm(x)) + shallow
        expected = network.normalise.undo(network.head(x, None)).permute(0, 3, 1, 2)
        torch.testing.assert_close(network(image), expected, atol=1e-9, rtol=1e-9)


def scans_of(network):
    return [[block.mixer.scan for block in group.blocks] for group in network.groups]


def windows(size, *names):
    return Window(size=size, directions=names)


ROW, COLUMN = ("row", "row_reversed"), ("column", "column_reversed")


def test_published_schedules_restart_in_every_group():
    with torch.device("meta"):
        network = zoo.build("mambacsr_final")
    pattern = [windows(s, *d) for s in (8, 64) for d in (ROW, COLUMN)]
    assert scans_of(network) == [[*pattern, *pattern[:2]]] * 6
    assert [b.mixer.scan for b in network.coarse.groups[0].blocks] == [*pattern, *pattern[:2]]
    assert network.coarse.fusions[0].scan == CrossScale(size=16)


@pytest.mark.parametrize(
    ("name", "size", "hierarchical", "alternating", "attention"),
    [
        ("mambacsr_wo", 8, True, True, True),
        ("mambacsr_wo_window4", 4, True, True, True),
        ("mambacsr_wo_window16", 16, True, True, True),
        ("mambacsr_wo_window32", 32, True, True, True),
        ("mambacsr_wo_window64", 64, False, True, True),
        ("mambacsr_wo_no_cab", 8, True, True, False),
        ("mambacsr_wo_four_way", 8, True, False, True),
        ("mambacsr_wo_four_way_no_cab", 8, True, False, False),
        ("mambacsr_wo_window64_no_cab", 64, False, True, False),
        ("mambacsr_wo_window64_four_way", 64, False, False, True),
        ("mambacsr_wo_window64_four_way_no_cab", 64, False, False, False),
    ],
)
def test_ablations_change_what_they_say(name, size, hierarchical, alternating, attention):
    network = zoo.build(name, dim=24, depths=[6, 6], **{"block.mixer.d_state": 2})
    sizes = [size, 64] if hierarchical else [size]
    ways = (ROW, COLUMN) if alternating else (ROW + COLUMN,)
    pattern = [windows(s, *w) for s in sizes for w in ways]
    assert scans_of(network) == [[pattern[i % len(pattern)] for i in range(6)]] * 2
    assert (network.groups[0].blocks[0].branch is not None) == attention
    assert network.coarse is None


def test_every_recipe_of_the_family_is_tested_and_runs():
    names = zoo.list_models("mambacsr_*")
    image = torch.rand(1, 3, 9, 17)
    for name in names:
        small = {"dim": 24, "depths": [2], "block.mixer.d_state": 2, "scale": 2}
        if "final" in name:
            small["coarse.depths"] = [1]
        with torch.no_grad():
            assert zoo.build(name, **small).eval()(image).shape == (1, 3, 18, 34)
    small = {"dim": 24, "depths": [6], "coarse.depths": [6]}
    raster = zoo.build("mambacsr_final_raster", **small)
    sequential = zoo.build("mambacsr_final_sequential", **small)
    assert scans_of(raster)[0][2:4] == [Raster(directions=ROW), Raster(directions=COLUMN)]
    assert raster.coarse.groups[0].blocks[2].mixer.scan == Raster(directions=ROW)
    assert sequential.coarse.fusions[0].scan == CrossScale(size=16, arrangement="sequential")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"coarse": None},
        {"coarse": None, "scan_size": 16, "depths": [5]},
        {"coarse": None, "directions": 4, "scan_size": 4},
        {"depths": [6, 1], "coarse.depths": [6, 1], "scan_size": 12},
        {"depths": [2, 1], "coarse.depths": [2, 1], "channels": 1, "scale": 4},
        {"conv": "3conv", "patch_norm": False, "scale": 3, "block.mlp_ratio": 3},
        {"block.branch": {"type": "cab", "compress": 6, "squeeze": 8}},
    ],
    ids=str,
)
def test_whatever_their_code_can_be_goes_out_and_comes_back(tmp_path, changes):
    changes = dict(changes)
    scan_size, directions = changes.pop("scan_size", 8), changes.pop("directions", 2)
    coarse = changes.get("coarse", {}) is not None
    settings = {"dim": 24, "depths": [2, 1], "block.mixer.d_state": 2, "scale": 2, **changes}

    def schedules(depths, size):
        return [
            authors_schedule(size, depth, directions=directions, coarse=coarse) for depth in depths
        ]

    settings["scans"] = schedules(settings["depths"], scan_size)
    if coarse:
        settings.setdefault("coarse.depths", [2])
        settings["coarse.scans"] = schedules(settings["coarse.depths"], 8)
    network = zoo.build("mambacsr_final", **settings).eval()
    save_official(network, tmp_path / "w.pth")
    assert list(torch.load(tmp_path / "w.pth")) == ["params_ema"]
    found = zoo.load(tmp_path / "w.pth", scan_size=scan_size)
    image = torch.rand(1, network.channels, 7, 20)
    with torch.no_grad():
        assert torch.equal(found(image), network(image))


def test_the_authors_schedule_by_depth():
    def sizes(*arguments, **options):
        return [scan["size"] for scan in authors_schedule(*arguments, directions=2, **options)]

    assert sizes(8, 6, coarse=True) == sizes(8, 2, coarse=False) == [8, 8, 64, 64]
    assert sizes(8, 5, coarse=True) == [32, 32]


def test_a_file_without_its_schedule_names_what_is_missing(tmp_path):
    path = saved(NONSQUARE, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"w\.pth: .*window sizes.*recipe='mambacsr_final'.*scan_size=8"
    ):
        zoo.load(path)
    with pytest.raises(CheckpointError, match=r"recipe='mambacsr_wo'"):
        zoo.load(saved("csr_wo_x2_16x16", tmp_path))
    with pytest.raises(CheckpointError, match="scan_size is '8'; it must be the side of a window"):
        zoo.load(path, scan_size="8")
    with pytest.raises(RecipeError, match="scan_size: unknown option"):
        zoo.load(saved(NONSQUARE, tmp_path), recipe="mambacsr_final", scan_size=8)
    state = state_dict(NONSQUARE)
    del state["layers3.0.A_logs"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"the key 'layers3\.0\.A_logs' is missing"):
        zoo.load(path, scan_size=8)


def test_a_recipe_may_give_the_schedule(tmp_path):
    path = saved(NONSQUARE, tmp_path)
    recipe = zoo.load(path, scan_size=8).recipe
    expected = load_file(OFFICIAL / f"{NONSQUARE}.safetensors")
    network = zoo.load(path, recipe=recipe.data(), compat="official")
    with torch.no_grad():
        found = network(expected["input"])
    assert (found - expected["output"]).abs().max() <= CASES[NONSQUARE]["atol"]


@pytest.mark.parametrize(
    "changes",
    [
        {"scans": ["raster"]},
        {"scans": [{"type": "window", "size": 4, "directions": ["row", "row_reversed"]}]},
        {"coarse.fusion.scan.arrangement": "sequential"},
        {"coarse.scans": [{"type": "window", "size": 4, "directions": ["row", "row_reversed"]}]},
    ],
    ids=str,
)
def test_walks_that_their_code_does_not_know_are_not_written_as_theirs(tmp_path, changes):
    directions = {"raster": 4}.get(str(changes.get("scans", [""])[0]), 2)
    schedule = authors_schedule(8, 1, directions=directions, coarse=True)
    network = tiny(
        depths=[1], **{"scans": schedule, "coarse.scans": schedule, "coarse.depths": [1], **changes}
    )
    with pytest.raises(CheckpointError, match="would scan"):
        save_official(network, tmp_path / "w.pth")
    assert not list(tmp_path.iterdir())


def test_a_gated_merge_makes_no_network_of_mambair(tmp_path):
    network = zoo.build("mambair_light_x2", dim=32, depths=[1], **{"block.mixer.merge": "gated"})
    with pytest.raises(CheckpointError, match="authors' code does not have this network"):
        save_official(network, tmp_path / "w.pth")


def test_the_command_line_takes_their_files(tmp_path, capsys):
    def run(*words):
        return main([str(word) for word in words])

    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "extends: mambacsr_final\n"
        "network:\n"
        "  {dim: 24, depths: [1], scale: 2, coarse: {depths: [1], scans: &walks [*row]},"
        " scans: *walks}\n".replace(
            "*row", "{type: window, size: 32, directions: [row, row_reversed]}"
        )
    )
    theirs, ours, photo = tmp_path / "w.pth", tmp_path / "w.safetensors", tmp_path / "a.png"
    network = zoo.build(recipe)
    save_official(network, theirs)
    write_photo(photo, Photo(torch.rand(20, 35, 3).numpy()))
    assert run("convert", theirs, "-o", ours, "-n", recipe, "--compat", "official") == 0
    assert zoo.load(ours).recipe.network["compat"] == "official"
    outputs = []
    for index, words in enumerate([(), ("--compat", "official")]):
        out = tmp_path / f"{index}.png"
        assert run("restore", photo, "-o", out, "-w", theirs, "-n", recipe, *words) == 0
        outputs.append(read_photo(out).color_HWC)
    assert outputs[0].shape == (40, 70, 3)
    assert run("convert", theirs, "-o", ours) == 2
    assert (
        "with -n mambacsr_final, in Python with recipe='mambacsr_final'" in capsys.readouterr().err
    )
    assert run("show", recipe, "--size", "32x48") == 0
    assert "GFLOPs for 32 x 48" in capsys.readouterr().out
    assert run("show", recipe, "--size", "32") == 2
    assert "write height x width in pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scans": [["raster"]]}, "scans has 1 lists for 2 groups; give one list for each"),
        (
            {"scans": [["raster"], [{"type": "window", "sise": 3}]]},
            r"network\.scans\[1\]\[0\]\.sise: .*did you mean 'size'",
        ),
        ({"scans": ["cross_scale"]}, r"scans\[0\] is CrossScale, which scans 2 grids"),
        ({"coarse.scans": ["cross_scale"]}, r"scans\[0\] is CrossScale, which scans 2 grids"),
        ({"coarse.scans": [["raster"], ["raster"]]}, r"coarse\.scans has 2 lists for 1 groups"),
        ({"coarse.depths": [1, 1, 1]}, r"coarse\.depths has 3 groups, but the network has only 2"),
        ({"coarse.depths": []}, r"coarse\.depths is \[\]; give at least one"),
        ({"coarse.depth": [1]}, r"network\.coarse\.depth: unknown option.*did you mean 'depths'"),
        ({"coarse.fusion.scan": "raster"}, r"coarse\.fusion: scan Raster scans one grid"),
        ({"coarse.fusion.scan.size": 5}, r"network\.coarse\.fusion\.scan: size is 5"),
        ({"coarse.fusion.compat": "official"}, r"the network sets this option"),
        ({"compat": "offical"}, r"network\.compat: expected one of official, got 'offical'"),
    ],
    ids=str,
)
def test_mistakes_are_named_with_place_and_fix(changes, message):
    with pytest.raises(RecipeError, match=message):
        tiny(**changes)
