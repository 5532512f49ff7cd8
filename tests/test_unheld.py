"""Files of the authors' code are written only if they are read back as the same network."""

import pytest
import torch

import zoo
from tests.helpers.small_weights import small_network, their_names
from zoo.blocks import linear_projections
from zoo.checkpoints import save_official, unheld
from zoo.checkpoints.as_published import network_of_our_names
from zoo.checkpoints.releases import release_of
from zoo.errors import CheckpointError

UNET = {"dim": 8, "depths": [1, 1, 1, 1], "refinement": 1}
SMALL = {
    "vmambair_derain": UNET,
    "eamamba_derain": UNET,
    "mambair_realdn": {**UNET, "dim": 30},
    "wavemamba_lol": {"dim": 8, "depths": [1, 1, 1], "high_depths": [1, 1, 1]},
    "mair_light_t_x2": {"dim": 12, "depths": [1]},
    "mambair_light_x2": {"dim": 30, "depths": [1]},
}


def refused(tmp_path, name, changes):
    """Return the message with which an authors' file of a changed network is refused."""
    with torch.device("meta"):
        network = zoo.build(name, **SMALL[name] | changes)
    with pytest.raises(CheckpointError) as error:
        save_official(network, tmp_path / "w.pth")
    assert not list(tmp_path.iterdir())
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/w.pth: ")
    assert message.endswith("; save it as .safetensors instead")
    return message


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_of_each_kind_are_written(tmp_path, name):
    save_official(zoo.build(name, **SMALL[name]), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        ("unet", {"residual": False}, ": residual is False, but the authors' "),
        (
            "unet",
            {"padding": "mirror"},
            ": padding is 'mirror to multiples of 8', but the authors' ",
        ),
        ("unet", {"pad_to": 16}, " to multiples of 16', but the authors' "),
        ("wave", {"pad_to": 128}, ": padding is 'reflect to multiples of 128', but the authors' "),
        (
            "wave",
            {"extra_grid": True},
            ": padding is 'reflect to multiples of 8, always by at least",
        ),
        ("wave", {"padding": "mirror"}, "padding is 'mirror to multiples of 8', but the authors' "),
        ("body", {"block.norm": {"type": "layer", "eps": 0.01}}, "norm.eps is 0.01, but the"),
        ("body", {"block.mixer.norm": {"type": "layer", "eps": 0.01}}, "out_norm.eps is 0.01, but"),
    ],
)
def test_a_setting_that_their_file_cannot_hold_is_named(tmp_path, names, changes, message):
    kinds = {"unet": list(SMALL)[:3], "wave": ["wavemamba_lol"], "body": list(SMALL)[4:]}
    for name in kinds[names]:
        assert message in refused(tmp_path, name, changes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vmambair_derain", {"depths": [1, 1, 1]}, "does not have this network"),
        ("vmambair_derain", {"scale": 4, "head": "pixelshuffle"}, ": scale is 4, but"),
        ("wavemamba_lol", {"depths": [1, 1], "high_depths": [1, 1]}, "does not have this network"),
        ("mambair_realdn", {"out_channels": 1, "residual": False}, ": out_channels is 1, but"),
        ("eamamba_derain", {"decoder_depths": [2, 1, 1]}, "has no decoders.2.1."),
        ("eamamba_derain", {"scans": ["raster"]}, "does not have this network"),
    ],
)
def test_a_network_that_their_code_does_not_have_is_not_written(tmp_path, name, changes, message):
    assert message in refused(tmp_path, name, changes)


def test_a_network_that_is_watched_is_written_as_any_other(tmp_path):
    """A hook changes what modules keep for themselves, and not what they compute."""
    network = zoo.build("mambair_light_x2", **SMALL["mambair_light_x2"])
    network.groups[0].register_full_backward_hook(lambda *_: None)
    save_official(network, tmp_path / "w.pth")


def test_an_ablation_of_theirs_without_its_branch_is_refused_in_a_sentence(tmp_path):
    with torch.device("meta"):
        network = zoo.build("mambair_classic_x2_no_conv")
    with pytest.raises(CheckpointError, match="MambaIR does not have this network; save it as"):
        save_official(network, tmp_path / "w.pth")


def test_a_range_that_the_file_does_not_hold_is_told(tmp_path, caplog):
    """The authors' code has this option, so the file is right."""
    for name in list(SMALL)[4:]:
        caplog.clear()
        save_official(zoo.build(name, **SMALL[name], img_range=255.0), tmp_path / "w.pth")
        assert "does not hold img_range 255.0: it is loaded without it unless" in caplog.text


def test_an_old_file_that_detection_does_not_fit_says_to_pass_the_recipe(tmp_path):
    from zoo.checkpoints.releases import OFFICIAL, key_map_of

    release = next(one for one in OFFICIAL if one.name == "VmambaIR")
    for changes in ({"scale": 2, "head": "pixelshuffle"}, {"depths": [1, 1, 1]}):
        network = zoo.build("vmambair_derain", **SMALL["vmambair_derain"] | changes)
        state = key_map_of(release, network).state_to_theirs(network.state_dict())
        torch.save({"params": state}, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match=r"w\.pth.*; pass its recipe"):
            zoo.load(tmp_path / "w.pth")
        zoo.load(tmp_path / "w.pth", recipe=network.recipe)


def test_a_network_with_linear_projections_is_not_saved_as_a_file_that_cannot_be_loaded(tmp_path):
    network = linear_projections(zoo.build("mambair_tiny_x2", dim=30, depths=[1]))
    with pytest.raises(CheckpointError, match="linear_projections has changed the names"):
        zoo.save(network, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_networks_are_compared_without_memory_for_their_values():
    network = small_network()
    state = their_names(network)
    read = unheld._network_read(network, release_of(state), state)
    described = network_of_our_names(network.state_dict())
    assert all(p.is_meta for one in (read, described) for p in one.parameters())
