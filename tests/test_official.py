"""Equality with the authors' code: outputs, gradients, keys, parameter counts, conversion.

The reference outputs were made by the authors' released modules in evaluation mode. float64
differs by rounding alone, some 1e-14, so 1e-10 separates that from an error of logic; the float32
tolerance of each case is twenty times the authors' own rounding error.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.facts.resolved import explicit
from tests.helpers.official_weights import CASES, OFFICIAL, PUBLISHED, state_dict
from zoo.checkpoints import OFFICIAL as FORMATS
from zoo.checkpoints import save_official
from zoo.checkpoints.keymap import fit
from zoo.networks import NETWORKS
from zoo.recipe import build
from zoo.schema import resolve_part

LOGIC = 1e-10


@pytest.fixture
def checkpoint(tmp_path, request):
    path = tmp_path / "weights.pth"
    torch.save({"params": state_dict(request.param)}, path)
    return request.param, path


def case_ids(names):
    return pytest.mark.parametrize("checkpoint", names, indirect=True)


def options(name):
    """What the file of a case does not tell: schedule and mapping of the authors' MambaCSR."""
    return CASES[name].get("options", {})


def release_of(class_name):
    return next(f for f in FORMATS if f.name == class_name)


def but_slow(names, slow):
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in names]


SMALL = [name for name in CASES if not name.startswith("full_")]


@case_ids(but_slow(CASES, {"full_mambacsr_wo"}))
def test_outputs_in_both_precisions(checkpoint):
    name, path = checkpoint
    expected = load_file(OFFICIAL / f"{name}.safetensors")
    network = zoo.load(path, **options(name))
    with torch.no_grad(), zoo.use_backend("chunked"):
        output = network(expected["input"])
        exact = network.double()(expected["input"].double())
    assert (output - expected["output"]).abs().max() <= CASES[name]["atol"]
    assert (exact - expected["output_fp64"]).abs().max() <= LOGIC


@case_ids(SMALL)
@pytest.mark.parametrize("backend", [s.name for s in zoo.backends() if s.available])
def test_built_network_with_converted_weights_on_every_backend(checkpoint, backend, tmp_path):
    name, path = checkpoint
    expected = load_file(OFFICIAL / f"{name}.safetensors")
    converted = tmp_path / "converted.safetensors"
    recipe = zoo.convert(path, converted, **options(name)).recipe
    network = build(recipe)
    network.load_state_dict(zoo.load(converted).state_dict())
    network.eval()
    with torch.no_grad(), zoo.use_backend(backend):
        output = network(expected["input"])
    assert (output - expected["output"]).abs().max() <= CASES[name]["atol"]


GRADIENTS = [
    pytest.param(
        backend,
        name,
        # A loop over thousands of steps takes long; gradients of this backend are compared with all
        # others in tests/ops.
        marks=pytest.mark.slow if backend == "reference" and name != "ir_dn_color_24x20" else (),
    )
    for backend in [s.name for s in zoo.backends() if s.available]
    for name in CASES
    if CASES[name]["grads"]
]


@pytest.mark.parametrize(("backend", "checkpoint"), GRADIENTS, indirect=["checkpoint"])
def test_gradients(checkpoint, backend):
    name, path = checkpoint
    expected = load_file(OFFICIAL / f"{name}.safetensors")
    network = zoo.load(path, **options(name))
    image = expected["input"].requires_grad_()
    with zoo.use_backend(backend):
        loss = (network(image) * expected["cot"]).mean()
        loss.backward()
    keys = release_of(CASES[name]["class"]).key_map(network.recipe.network)
    pairs = {"input": (image.grad, expected["grad_input"])}
    for key, parameter in network.named_parameters():
        theirs = keys.to_theirs(key)
        # Nothing flows into the router in evaluation, where routes are constants.
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        pairs[theirs] = (found, expected[f"g.{theirs}"].reshape(parameter.shape))
    for key, (ours, theirs) in pairs.items():
        # Behind a ReLU that is shut for this input, or in the router.
        if key in CASES[name].get("dead", ()):
            assert theirs.norm() == ours.norm() == 0, key
            continue
        assert theirs.norm() > 0, key
        # The authors' gradients are float32 too; the smallest ones agree to 3e-4.
        assert (ours - theirs).norm() / theirs.norm() <= 1e-3, key


@case_ids(SMALL)
def test_conversion_there_and_back_is_the_identity(checkpoint, tmp_path):
    name, path = checkpoint
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.pth"
    zoo.convert(path, ours, **options(name))
    zoo.convert(ours, theirs)
    before = state_dict(name)
    after = torch.load(theirs, weights_only=True)
    wrapper = release_of(CASES[name]["class"]).wrapper
    after = after[wrapper] if wrapper else after
    assert sorted(after) == sorted(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_wave_mamba_matches_the_channels_that_the_authors_code_matches():
    """The choice of a channel jumps where two are equally near, so it is compared first."""
    from zoo.blocks.guided import ChannelMatch, nearest_channels

    name = "wavemamba_16x24"
    expected = load_file(OFFICIAL / f"{name}.safetensors")
    network = zoo.build("wavemamba_uhdll", dim=16, depths=[1, 1, 1], high_depths=[1, 1, 1])
    keys = release_of(CASES[name]["class"]).key_map({})
    state = {keys.to_ours(key): value for key, value in state_dict(name).items()}
    network.load_state_dict(fit(state, network.state_dict(), name))
    calls = []

    def note(_, inputs):
        calls.append(nearest_channels(*(x_BHWC.flatten(1, 2) for x_BHWC in inputs)))

    for module in network.modules():
        if isinstance(module, ChannelMatch):
            module.register_forward_pre_hook(note)
    with torch.no_grad():
        network.eval()(expected["input"])
    assert torch.equal(torch.stack(calls, 1), expected["matches"].long())


NAMES = {
    "mambair_CAR_q10": "mambair_car10",
    "mambair_CAR_q30": "mambair_car30",
    "mambair_CAR_q40": "mambair_car40",
    "mambair_colorDN_15": "mambair_dn15",
    "mambair_colorDN_25": "mambair_dn25",
    "mambair_colorDN_50": "mambair_dn50",
    "mambair_realDN_unet": "mambair_realdn",
    "mambair_realSR_x4": "mambair_real_x4",
    "mambacsr_wo": "mambacsr_wo",
    "mambacsr_final": "mambacsr_final",
    **{f"mambair_classicSR_x{s}": f"mambair_classic_x{s}" for s in (2, 3, 4)},
    **{f"mambair_lightSR_x{s}": f"mambair_light_x{s}" for s in (2, 3, 4)},
    **{f"mambair_lightSR_x{s}_genA": f"mambair_light_x{s}_gen_a" for s in (2, 3, 4)},
    **{f"mambair_lightSR_x{s}_genB": f"mambair_light_x{s}_gen_b" for s in (2, 3, 4)},
    **{f"mambairv2_lightSR_x{s}": f"mambairv2_light_x{s}" for s in (2, 3, 4)},
    **{f"mambairv2_SRSmall_x{s}": f"mambairv2_small_x{s}" for s in (2, 3, 4)},
    **{f"mambairv2_SRBase_x{s}": f"mambairv2_x{s}" for s in (2, 3, 4)},
    **{f"mambairv2_SRLarge_x{s}": f"mambairv2_large_x{s}" for s in (2, 3, 4)},
    "mambairv2_colorDN_15": "mambairv2_dn15",
    "mambairv2_CAR_q10": "mambairv2_car10",
    "dvmsr_x4": "dvmsr_x4",
}


SIZES_ALIKE = [f"mambairv2_SR{size}_x{s}" for size in ("Small", "Base", "Large") for s in (2, 3)]
"""Their x4 differs from them in the head alone."""


@pytest.mark.parametrize("official", but_slow(PUBLISHED, set(SIZES_ALIKE)))
def test_published_model_has_the_authors_keys_and_count(official):
    with torch.device("meta"):
        network = zoo.build(NAMES[official])
    release = release_of(published_class(official))
    keys = release.key_map(network.recipe.network)
    ours = {keys.to_theirs(key): value.numel() for key, value in network.state_dict().items()}
    ours |= {key: make(official_shapes(official)).numel() for key, make in keys.buffers.items()}
    theirs = {key: value.numel() for key, value in official_shapes(official).items()}
    assert ours == theirs
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[official]["parameters"]


def official_shapes(official):
    with torch.device("meta"):
        return {key: torch.empty(shape) for key, shape in PUBLISHED[official]["keys"]}


def published_class(official):
    if official.startswith(("mambairv2", "dvmsr")):
        return "DVMSR" if official.startswith("dvmsr") else "MambaIRv2"
    if official.startswith("mambacsr"):
        return "MambaCSR"
    return "MambaIRUNet" if official.endswith("unet") else "MambaIR"


DETECTED = [n for n in PUBLISHED if any(word in n for word in ("light", "realDN", "dvmsr"))]


@pytest.mark.parametrize("official", DETECTED)
def test_detection_finds_the_published_network(official, tmp_path):
    state = {key: torch.zeros(shape) for key, shape in PUBLISHED[official]["keys"]}
    torch.save({"params": state}, tmp_path / "w.pth")
    found = zoo.load(tmp_path / "w.pth").recipe.network
    published = zoo.build(NAMES[official]).recipe.network
    # What the file leaves to defaults or cannot tell is not compared.
    for key in ("type", "scale", "dim", "depths", "refinement"):
        assert found.get(key) == published.get(key) or (key == "scale" and "scale" not in published)
    assert found["block"].get("branch") == published["block"].get("branch")
    for part in ("mixer", "attention"):
        for key, value in published["block"].get(part, {}).items():
            assert found["block"][part][key] == value


# Number of parameters of the authors' code, from the specification of these networks.
COUNTED = {
    "MaIR": {
        "mair_light_t_x2": 877_752,
        "mair_light_t_x3": 885_867,
        "mair_light_t_x4": 897_228,
        "mair_light_s_x2": 1_354_680,
        "mair_light_s_x3": 1_362_795,
        "mair_light_s_x4": 1_374_156,
        "mair_classic_x2": 19_444_247,
        "mair_classic_x3": 19_628_887,
        "mair_classic_x4": 19_591_959,
        "mair_dn15": 14_089_035,
    },
    "EAMamba": {"eamamba_derain": 25_320_512},
    "EAMambaSR": {
        "eamamba_light_x2": 725_056,
        "eamamba_light_x3": 909_696,
        "eamamba_light_x4": 872_768,
    },
    "VmambaIR": {"vmambair_derain": 28_709_875},
    "Wave-Mamba": {"wavemamba_uhdll": 1_512_718},
}


@pytest.mark.parametrize(
    ("release", "name", "count"),
    [(r, name, count) for r, names in COUNTED.items() for name, count in names.items()],
)
def test_a_published_model_is_counted_and_found_again_from_its_shapes(release, name, count):
    with torch.device("meta"):
        network = zoo.build(name)
    assert sum(p.numel() for p in network.parameters()) == count
    known, published = release_of(release), network.recipe.network
    keys = known.key_map(published)
    state = {}
    for key, value in network.state_dict().items():
        theirs = keys.to_theirs(key)
        state[theirs] = value.flatten(0, 1) if theirs.endswith(("_logs", "Ds", "Dsc")) else value
    assert known.recognises(state)
    facts = {"scan_len": 4 if "_s_" in name or "dn" in name else 8} if release == "MaIR" else {}
    found = explicit(resolve_part(NETWORKS, known.network(state, facts), "network"))
    assert found == explicit(resolve_part(NETWORKS, published, "network"))


@pytest.mark.parametrize(
    ("name", "width"),
    [("mair_light_t_x2", 8), ("mair_light_s_x3", 4), ("mair_classic_x4", 8), ("mair_dn15", 4)],
)
def test_a_mair_file_is_told_the_model_that_it_is_like(name, width):
    with torch.device("meta"):
        network = zoo.build(name, depths=[1])
    known = release_of("MaIR")
    keys = known.key_map(network.recipe.network)
    state = {}
    for key, value in network.state_dict().items():
        theirs = keys.to_theirs(key)
        state[theirs] = value.flatten(0, 1) if theirs.endswith("_logs") else value
    with pytest.raises(zoo.errors.CheckpointError, match=f"-n {name}, .* scan_len={width},"):
        known.network(state, {})


def test_a_mair_file_needs_the_width_of_its_stripes(tmp_path):
    torch.save({"params": state_dict("mair_dn_16x20")}, tmp_path / "w.pth")
    with pytest.raises(
        zoo.errors.CheckpointError, match=r"-n mair_dn15, .* in Python pass scan_len=4, as publ"
    ):
        zoo.load(tmp_path / "w.pth")
    with pytest.raises(zoo.errors.CheckpointError, match="scan_len is 0; it must be the width"):
        zoo.load(tmp_path / "w.pth", scan_len=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_file_of_the_light_eamamba_is_recognised_and_comes_back(scale, tmp_path):
    """No output of the authors' code is at hand: names and shapes are theirs, values are random."""
    dim, names = 64, {"conv_first.weight": (64, 3, 3, 3), "conv_last.weight": (3, 64, 3, 3)}
    both = {"weight": (dim, dim, 3, 3), "bias": (dim,)}
    names |= {"conv_after_body.weight": (dim, dim, 3, 3)}
    names |= {f"norm.body.{key}": (dim,) for key in both}
    names |= {f"conv_before_upsample.0.{key}": shape for key, shape in both.items()}
    for stage, factor in enumerate({2: [2], 3: [3], 4: [2, 2]}[scale]):
        wide = factor**2 * dim
        names |= {f"upsample.{2 * stage}.weight": (wide, dim, 3, 3)}
        names |= {f"upsample.{2 * stage}.bias": (wide,)}
    for group in range(4):
        names |= {f"layers.{group}.conv.{key}": shape for key, shape in both.items()}
        for block in range(4):
            at = f"layers.{group}.blocks.{block}"
            names |= {f"{at}.norm{n}.body.{key}": (dim,) for n in (1, 2) for key in both}
            names |= {f"{at}.mamba.{key}": shape for key, shape in LIGHT_MAMBA.items()}
            names |= {f"{at}.ffn.project_in.weight": (64, 64, 1, 1)}
            names |= {f"{at}.ffn.project_out.weight": (64, 32, 1, 1)}
    state = {name: torch.rand(shape) for name, shape in names.items()}
    torch.save({"params": state}, tmp_path / "w.pth")
    network = zoo.load(tmp_path / "w.pth")
    options, published = (
        one.recipe.network for one in (network, zoo.build(f"eamamba_light_x{scale}"))
    )
    assert {key: options[key] for key in ("scale", "dim", "depths", "patch_norm")} == {
        key: published[key] for key in ("scale", "dim", "depths", "patch_norm")
    }
    assert options["block"]["mixer"]["d_state"] == 10 and not network.normalise.has_mean
    image = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        assert network(image).shape == (1, 3, 5 * scale, 6 * scale)
    zoo.convert(tmp_path / "w.pth", tmp_path / "ours.safetensors")
    zoo.convert(tmp_path / "ours.safetensors", tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["params"]
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)


LIGHT_MAMBA = {
    "x_proj_weight": (8, 24, 8), "dt_projs_weight": (8, 8, 4), "dt_projs_bias": (8, 8),
    "A_logs": (64, 10), "Ds": (64,), "in_proj.weight": (128, 64), "conv.weight": (64, 1, 3, 3),
    "conv.bias": (64,), "out_norm.weight": (64,), "out_norm.bias": (64,),
    "out_proj.weight": (64, 64),
}  # fmt: skip
"""Tensors of a mixer of the light EAMamba, with 10 states, by the authors' names."""


def test_an_eamamba_file_may_hold_the_upsampler_that_its_network_does_not_use(tmp_path):
    state = state_dict("eamamba_dn_8x24") | {"upsample.0.weight": torch.zeros(12, 3, 3, 3)}
    torch.save({"params": state}, tmp_path / "w.pth")
    assert zoo.load(tmp_path / "w.pth").recipe.network["dim"] == 16
    state = state_dict("eamamba_dn_8x24")
    for key in [key for key in state if key.endswith("mamba.x_proj_weight")]:
        state[key] = state[key][:4]
    torch.save({"params": state}, tmp_path / "w.pth")
    with pytest.raises(zoo.errors.CheckpointError, match=r"has 4 scans, .* has 8"):
        zoo.load(tmp_path / "w.pth")


def test_official_file_of_a_network_of_our_own_is_refused(tmp_path):
    network = zoo.build("mambair_tiny_x2", head="nearest_conv")
    with pytest.raises(
        zoo.errors.CheckpointError, match="authors' code does not have this network"
    ):
        save_official(network, tmp_path / "w.pth")
    assert not list(tmp_path.iterdir())


def test_a_mixer_that_their_code_does_not_have_is_not_written_as_theirs(tmp_path):
    network = zoo.build("mambair_tiny_x2", **{"block.mixer": {"type": "axial"}})
    with pytest.raises(zoo.errors.CheckpointError, match="AxialSS2D, but of class SS2D in"):
        save_official(network, tmp_path / "w.pth")
