"""The adapter for spandrel: detection, equality with our own loading, and each capability."""

from __future__ import annotations

import importlib
import inspect
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import zoo
from tests.helpers.official_weights import CASES, OFFICIAL, state_dict
from tests.helpers.small_weights import small_network, their_names
from zoo.checkpoints import OFFICIAL as OFFICIAL_RELEASES
from zoo.checkpoints.embedded import KEY, embedded
from zoo.checkpoints.releases import release_of
from zoo.errors import CheckpointError, ZooError
from zoo.integrations.spandrel import OWN, install, is_ours

SMALL = [name for name in CASES if not name.startswith("full_")]

FAMILIES = {
    "ir": "MambaIR",
    "csr": "MambaCSR",
    "irv2": "MambaIRv2",
    "dvmsr": "DVMSR",
    "mair": "MaIR",
    "vmambair": "VmambaIR",
    "eamamba": "EAMamba",
    "wavemamba": "Wave-Mamba",
}


@pytest.fixture
def registry(spandrel, spandrel_extra):
    """What ComfyUI has: spandrel's own architectures, and those of its second package."""
    registry = spandrel.MAIN_REGISTRY.copy()
    registry.add(*spandrel_extra.EXTRA_REGISTRY)
    install(registry)
    return registry


@pytest.fixture
def load(spandrel, registry):
    return spandrel.ModelLoader(registry=registry).load_from_state_dict


def facts(case):
    """What the tensors of a case do not show."""
    options = CASES[case].get("options") or {}
    return {key: value for key, value in options.items() if key != "compat"}


def restored(network, image):
    with torch.inference_mode():
        return network(image).clamp(0, 1)


@pytest.mark.parametrize("case", SMALL)
def test_the_authors_weights_give_the_same_pixels(load, case):
    state = {"params": state_dict(case)}
    model, network = load(state), zoo.load(state, **facts(case))
    family = FAMILIES[case.partition("_")[0]]
    assert model.architecture.name == ("MambaIRUNet" if "unet" in case else family)
    assert (model.scale, model.input_channels) == (network.scale, network.channels)
    assert model.output_channels == network.out_channels
    assert model.purpose == ("SR" if model.scale > 1 else "Restoration")
    image = load_file(OFFICIAL / f"{case}.safetensors")["input"]
    for part in (image, image[..., :13, :15], image[..., :1, :7], image[..., :1, :1]):
        assert torch.equal(model(part), restored(network, part)), part.shape
    assert model.size_requirements.none  # as any size was taken without padding by spandrel


def test_eamamba_for_super_resolution_gives_the_same_pixels(load):
    """No file of its authors is among the fixtures."""
    state = {"params": their_names(zoo.build("eamamba_light_x2"))}
    model, image = load(state), torch.rand(1, 3, 13, 18)
    assert (model.architecture.name, model.scale, model.purpose) == ("EAMambaSR", 2, "SR")
    assert torch.equal(model(image), restored(zoo.load(state), image))


def test_each_release_was_loaded():
    found = {release_of(state_dict(case)).name for case in SMALL}
    assert found | {"EAMambaSR"} == {release.name for release in OFFICIAL_RELEASES}


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["half", "bfloat16"])
def test_each_family_runs_in_half_precision(load, case, dtype):
    """Outputs lie within the rounding of some ten layers; fixtures have large, random weights."""
    model = load(state_dict(case))
    image = load_file(OFFICIAL / f"{case}.safetensors")["input"]
    with torch.inference_mode():
        whole = model.model(image)
        model.to(dtype)
        half = model.model(image.to(dtype))
        assert model(image.to(dtype)).dtype == dtype
    assert model.supports_half and model.supports_bfloat16 and half.dtype == dtype
    error = (half.float() - whole).abs().mean() / (whole.max() - whole.min())
    assert error < 32 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", ["mambair_tiny_x2", "mambacsr_tiny_x2"])
def test_the_shipped_weights_are_known_by_their_tensors(load, spandrel, name):
    model = load(load_file(zoo.checkpoints.WEIGHTS / f"{name}.safetensors"))
    image = torch.rand(1, 3, 21, 34)
    assert model.architecture.id == OWN and model.architecture.name == "Mamba Restoration Zoo"
    assert torch.equal(model(image), restored(zoo.load(name), image))
    assert model.tags[:2] == {"mambair_tiny_x2": ["48dim", "2x2blocks"]}.get(
        name, ["32dim", "2x2blocks"]
    )


@pytest.mark.parametrize("name", ["mambair_tiny_x2", "mambacsr_tiny_x2"])
def test_tiles_of_a_photo_hardly_show(load, spandrel, name):
    """As tools cut them: 64 pixels, of which the outer 16 are thrown away."""
    model = load(load_file(zoo.checkpoints.WEIGHTS / f"{name}.safetensors"))
    assert model.tiling is spandrel.ModelTiling.SUPPORTED
    photo_HWC = pytest.importorskip("skimage.data").chelsea()[100:196, 100:260]
    image = torch.from_numpy(photo_HWC).permute(2, 0, 1)[None].float() / 255
    whole, tile = model(image), model(image[..., 16:80, 32:96])
    levels = (tile[..., 32:96, 32:96] - whole[..., 64:128, 96:160]).abs() * 255
    assert levels.mean() < 1 and levels.max() < 8


def test_networks_of_several_resolutions_ask_for_whole_images(load, spandrel):
    for case in ("ir_realdn_unet_16x24", "wavemamba_16x24"):
        assert load(state_dict(case)).tiling is spandrel.ModelTiling.DISCOURAGED


UNUSUAL = {
    "hilbert": {"scans": ["hilbert"]},
    "stripes": {"scans": [{"type": "window", "size": 8}]},
    "range": {"img_range": 255.0},
    "padding": {"pad_to": 16},
    "branch": {"block.branch": "mlp"},
}


@pytest.mark.parametrize("options", UNUSUAL.values(), ids=UNUSUAL)
def test_a_file_that_would_be_misread_holds_its_recipe(load, tmp_path, options):
    network = small_network(**options)
    zoo.save(network, tmp_path / "w.safetensors")
    state, image = load_file(tmp_path / "w.safetensors"), torch.rand(1, 3, 9, 11)
    assert KEY in state
    assert torch.equal(load(state)(image), restored(network, image))
    assert torch.equal(restored(zoo.load(state), image), restored(network, image))
    half = {name: tensor.half() for name, tensor in state.items()}
    assert torch.equal(load(half)(image), restored(zoo.load(half), image))


def test_a_file_that_is_read_rightly_holds_tensors_only(load, tmp_path):
    network = small_network()
    zoo.save(network, tmp_path / "w.safetensors")
    state, image = load_file(tmp_path / "w.safetensors"), torch.rand(1, 3, 9, 11)
    assert state.keys() == network.state_dict().keys()
    assert torch.equal(load(state)(image), restored(network, image))


def test_files_are_loaded_by_path(spandrel, registry, tmp_path):
    loader = spandrel.ModelLoader(registry=registry)
    torch.save({"params_ema": state_dict("ir_light_x3_17x23"), "params": {}}, tmp_path / "a.pth")
    zoo.save(small_network(scans=["hilbert"]), tmp_path / "b.safetensors")
    assert loader.load_from_file(tmp_path / "a.pth").scale == 3
    assert loader.load_from_file(tmp_path / "b.safetensors").architecture.id == OWN


def test_what_is_no_network_of_one_image_says_so(load):
    with pytest.raises(ZooError, match=r"qmambabsr_tiny takes a burst of frames.*use zoo restore"):
        burst = zoo.load("qmambabsr_tiny")
        load({**burst.state_dict(), **embedded(json.dumps(burst.recipe.data()))})


def test_damaged_files_are_one_clear_error(load, tmp_path):
    state = state_dict("ir_light_x3_17x23")
    with pytest.raises(CheckpointError, match=r"the key .* is missing"):
        load({key: value for key, value in state.items() if key != "conv_first.weight"})
    for text in (torch.zeros(3, 3), torch.full((8,), 255, dtype=torch.uint8), torch.rand(0)):
        with pytest.raises(CheckpointError, match=r"recipe in (its tensor|the file).* damaged"):
            load({**small_network().state_dict(), KEY: text})


ARGUMENTS = {
    "SAFMN": {"dim": 36},
    "SAFMN_BCIE": {"dim": 36},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3},
    "SwinIR": {"img_size": 64, "window_size": 8},
    "Swin2SR": {"img_size": 64, "window_size": 8},
    "SRFormer": {"img_size": 44, "window_size": 22},
}
"""Constructor arguments of other architectures, where the defaults do not work."""

LEFT_OUT = {"AuraSR", "DDColor", "MMRealSR"}
"""Slow to build, or made of sizes of one file."""


def foreign(registries):
    """Yield each other architecture with the state dict of a network of it."""
    for support in (support for registry in registries for support in registry):
        home = importlib.import_module(type(support.architecture).__module__)
        for _, kind in inspect.getmembers(home, inspect.isclass):
            if issubclass(kind, nn.Module) and support.architecture.id not in LEFT_OUT:
                yield support.architecture, built(kind, **ARGUMENTS.get(kind.__name__, {}))


def built(kind, **arguments):
    """A network without values, where its constructor reads none."""
    try:
        with torch.device("meta"):
            return kind(**arguments)
    except RuntimeError:
        return kind(**arguments)


@pytest.mark.filterwarnings("ignore")
def test_state_dicts_of_all_other_architectures_are_left_to_them(spandrel, spandrel_extra):
    ours = spandrel.ArchRegistry()
    assert len(install(ours)) == len(OFFICIAL_RELEASES) + 1
    recognised = 0
    for theirs, network in foreign([spandrel.MAIN_REGISTRY, spandrel_extra.EXTRA_REGISTRY]):
        state = network.state_dict()
        recognised += theirs.detect(state)
        claimed = [one.architecture.id for one in ours if one.architecture.detect(state)]
        assert not claimed, (theirs.id, claimed)
    assert recognised >= 45


def test_state_dicts_that_only_resemble_ours_are_left_alone(spandrel):
    assert not is_ours({})
    assert not is_ours({"shallow.weight": torch.zeros(3), "a.A_log": torch.zeros(3)})
    shared = {
        key: value for key, value in small_network().state_dict().items() if "A_log" not in key
    }
    assert not is_ours(shared)
    hilbert = small_network(**{"block.branch": "mlp"})  # no published network has its tensors
    assert not is_ours(hilbert.state_dict())
    registry = spandrel.ArchRegistry()
    install(registry)
    with pytest.raises(spandrel.UnsupportedModelError):
        registry.load(hilbert.state_dict())


def test_ours_come_first_and_once(spandrel, spandrel_extra):
    registry = spandrel.MAIN_REGISTRY.copy()
    first = install(registry)
    registry.add(*spandrel_extra.EXTRA_REGISTRY)  # as ComfyUI does, after or before
    assert install(registry) == [] and len(first) == len(OFFICIAL_RELEASES) + 1
    order = [support.architecture.id for support in registry.architectures("detection")]
    assert sorted(order[: len(first)]) == sorted(first)
    before = len(spandrel.MAIN_REGISTRY)
    install()
    install()
    assert len(spandrel.MAIN_REGISTRY) == before + len(OFFICIAL_RELEASES) + 1
