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
from tests.helpers.official_weights import CASES, OFFICIAL, PUBLISHED, state_dict
from zoo.checkpoints import OFFICIAL as FORMATS
from zoo.checkpoints import save_official
from zoo.recipe import build

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
        # A loop over the thousands of steps of MambaCSR's padded windows takes long; gradients of
        # this backend are compared with all others in tests/ops.
        marks=pytest.mark.slow if backend == "reference" and "csr" in name else (),
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
        pairs[theirs] = (parameter.grad, expected[f"g.{theirs}"].reshape(parameter.shape))
    for key, (ours, theirs) in pairs.items():
        if key in CASES[name].get("dead", ()):  # behind a ReLU that is shut for this input
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
    after = torch.load(theirs, weights_only=True)[release_of(CASES[name]["class"]).wrapper]
    assert sorted(after) == sorted(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


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
}


@pytest.mark.parametrize("official", list(PUBLISHED))
def test_published_model_has_the_authors_keys_and_count(official):
    with torch.device("meta"):
        network = zoo.build(NAMES[official])
    release = release_of(published_class(official))
    keys = release.key_map(network.recipe.network)
    ours = {keys.to_theirs(key): value.numel() for key, value in network.state_dict().items()}
    theirs = {key: torch.Size(shape).numel() for key, shape in PUBLISHED[official]["keys"]}
    assert ours == theirs
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[official]["parameters"]


def published_class(official):
    if official.startswith("mambacsr"):
        return "MambaCSR"
    return "MambaIRUNet" if official.endswith("unet") else "MambaIR"


@pytest.mark.parametrize("official", [n for n in PUBLISHED if "light" in n or "realDN" in n])
def test_detection_finds_the_published_network(official, tmp_path):
    state = {key: torch.zeros(shape) for key, shape in PUBLISHED[official]["keys"]}
    torch.save({"params": state}, tmp_path / "w.pth")
    found = zoo.load(tmp_path / "w.pth").recipe.network
    published = zoo.build(NAMES[official]).recipe.network
    # What the file leaves to defaults or cannot tell is not compared.
    for key in ("type", "scale", "dim", "depths", "refinement"):
        assert found.get(key) == published.get(key) or (key == "scale" and "scale" not in published)
    assert found["block"]["branch"] == published["block"]["branch"]
    for key, value in published["block"]["mixer"].items():
        assert found["block"]["mixer"][key] == value


def test_official_file_of_a_network_of_our_own_is_refused(tmp_path):
    network = zoo.build("mambair_tiny_x2", head="nearest_conv")
    with pytest.raises(
        zoo.errors.CheckpointError, match="authors' code does not have this network"
    ):
        save_official(network, tmp_path / "w.pth")
    assert not list(tmp_path.iterdir())


def test_a_mixer_that_their_code_does_not_have_is_not_written_as_theirs(tmp_path):
    network = zoo.build("mambair_tiny_x2", **{"block.mixer": {"type": "axial"}})
    with pytest.raises(zoo.errors.CheckpointError, match="scans something else"):
        save_official(network, tmp_path / "w.pth")
