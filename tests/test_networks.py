"""Every registered block, branch, head, scan and network, tiny: forward, training, saving."""

from __future__ import annotations

import pytest
import torch

import zoo
from tests.helpers.fingerprints import SEED, TABLE, check_fingerprint, has_row
from zoo.blocks import (
    BLOCKS,
    BRANCHES,
    DOWNSAMPLERS,
    MERGES,
    MIXERS,
    RSSB,
    SCALE_FUSIONS,
    SKIPS,
)
from zoo.errors import RecipeError
from zoo.heads import HEADS, pixel_shuffle
from zoo.networks import NETWORKS
from zoo.networks.extension import Extension
from zoo.networks.single_image import SingleImage
from zoo.networks.size import check_depths, check_levels, check_scale
from zoo.scans import SCANS, Window

NEEDS = {"window": {"size": 3}, "compose": {"orders": ["raster", "diagonal"]}}
COARSE = {"depths": [1], "fusion": {"scan": {"size": 4}}}
KEEP_SIZE = ("residual", "conv")
DIV2K = (0.4488, 0.4371, 0.4040)
SIZES = [(1, 1), (1, 7), (9, 1), (5, 8)]


def unet(**changes):
    return {"network": {"type": "unet", "dim": 32, **changes}}


def tiny(**changes):
    network = {"type": "single_image", "dim": 32, "depths": [1, 2], **changes}
    return {"network": network}


RECIPES = {
    **{f"block-{n}": tiny(block=n) for n in BLOCKS.names()},
    **{f"branch-{n}": tiny(block={"branch": {"type": n}}) for n in BRANCHES.names()},
    "branch-none": tiny(block={"branch": None}),
    **{f"merge-{n}": tiny(block={"mixer": {"merge": n}}) for n in MERGES.names()},
    **{
        f"scan-{entry.name}": tiny(scans=[{"type": entry.name, **NEEDS.get(entry.name, {})}])
        for entry in SCANS.entries()
        if entry.target.grids == 1 and not entry.target.by_content
    },
    **{f"mixer-{n}": tiny(block={"mixer": n}) for n in MIXERS.names()},
    "scan-by_class": tiny(block={"mixer": "attentive"}, scans=["by_class"]),
    "mirrored": tiny(scale=2, padding="mirror", pad_to=4),
    "mirrored-fusion": tiny(scale=2, padding="mirror", pad_to=3, coarse=COARSE),
    **{
        f"fusion-{n}": tiny(scale=2, coarse={**COARSE, "fusion": {**COARSE["fusion"], "type": n}})
        for n in SCALE_FUSIONS.names()
    },
    "fusion-sequential": tiny(
        coarse={
            "depths": [2, 1],
            "scans": [["raster"], ["hilbert"]],
            "fusion": {"scan": {"size": 2, "arrangement": "sequential"}},
        },
        scans=[["raster"], ["serpentine", "diagonal"]],
    ),
    "fusion-official": tiny(coarse=COARSE, compat="official"),
    **{f"head-{n}": tiny(head=n, scale=1 if n in KEEP_SIZE else 2) for n in HEADS.names()},
    "scale-3": tiny(scale=3),
    "scale-4-nearest": tiny(scale=4, head="nearest_conv"),
    "scale-3-nearest": tiny(scale=3, head="nearest_conv"),
    "gray": tiny(channels=1, head="residual"),
    "3conv": tiny(conv="3conv", patch_norm=False),
    "mixed-scans": tiny(scans=["raster", "hilbert", {"type": "window", "size": 2}]),
    "mixer-head_scan": tiny(block={"mixer": "head_scan"}),
    "mixer-omni_scan": tiny(block={"mixer": {"type": "omni_scan", "combine": "scale"}}),
    "unscaled": tiny(block={"skip_scale": False, "norm": {"eps": 1e-6}}),
    "blocks-in-turn": tiny(block=["rssb", {"type": "rlmb", "branch": {"compress": 6}}]),
    "blocks-by-group": tiny(block=[["res"], ["rssb", "res"]]),
    "unet": unet(depths=[1, 1, 1, 1], refinement=1),
    "unet-one-level": unet(depths=[1], refinement=0),
    **{f"skip-{n}": unet(depths=[1, 1], skip=n, top_skip=n) for n in SKIPS.names()},
    **{f"down-{n}": unet(depths=[1, 1], down=n) for n in DOWNSAMPLERS.names()},
    "unet-by-level": unet(
        dim=[8, 20, 12],
        depths=[1, 2, 1],
        decoder_depths=[2, 1],
        block=[["res"], [{"type": "rssb", "branch": None}], ["res"]],
        scans=[["raster"], ["zigzag", "stripes"], ["spiral"]],
        up="bilinear",
        head="pixelshuffle_direct",
        scale=2,
        padding="reflect",
    ),
    "wavelet": {"network": {"type": "wavelet", "dim": 32, "depths": [1], "high_depths": [1]}},
    "wavelet-grid": {
        "network": {
            "type": "wavelet",
            "dim": 8,
            "depths": [2, 1],
            "high_depths": [1, 2],
            "block": ["res", {"type": "rssb", "branch": "gdfn"}],
            "pad_to": 12,
            "extra_grid": True,
        }
    },
}


def test_every_network_is_tested():
    images = {e.name for e in NETWORKS.entries() if e.capabilities.input == "image"}
    assert {r["network"]["type"] for r in RECIPES.values()} == images  # bursts: tests/burst
    rows = {name for name in TABLE if not name.startswith("burst-")}
    assert rows == {name for name in RECIPES if has_row(name)}


@pytest.mark.parametrize("name", RECIPES)
def test_any_size_trains_and_comes_back_from_a_file(name, tmp_path):
    torch.manual_seed(SEED)
    network = zoo.build(RECIPES[name])
    scale, channels = network.scale, network.channels
    with torch.no_grad():
        for height, width in SIZES:
            image = torch.rand(1, channels, height, width)
            assert network.eval()(image).shape == (1, channels, scale * height, scale * width)

    image = torch.rand(2, channels, 6, 5)
    network.train()(image).square().mean().backward()
    missing = [key for key, p in network.named_parameters() if p.grad is None]
    assert not missing

    zoo.save(network, tmp_path / "w.safetensors")
    again = zoo.load(tmp_path / "w.safetensors")
    with torch.no_grad():
        assert torch.equal(again(image), network.eval()(image))
    check_fingerprint(name, network)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_network_may_be_cast_as_its_registration_says(dtype):
    network = zoo.build(tiny(scale=2)).eval()
    image = torch.rand(1, 3, 6, 9)
    with torch.no_grad():
        expected = network(image)
        found = network.to(dtype)(image.to(dtype))
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() < 0.05


def test_images_of_a_batch_do_not_meet():
    network = zoo.build(tiny(scale=2)).eval()
    images = torch.rand(3, 3, 5, 6)
    with torch.no_grad():
        together = network(images)
        apart = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_pixel_shuffle_reads_channels_as_torch_does():
    x = torch.rand(2, 12, 3, 4)
    expected = torch.nn.functional.pixel_shuffle(x, 2)
    found = pixel_shuffle(x.permute(0, 2, 3, 1), 2).permute(0, 3, 1, 2)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("channels", "mean"), [(3, DIV2K), (1, (0.0,))])
def test_a_range_other_than_one_is_put_on_after_the_mean_and_taken_off_before_it(channels, mean):
    """x = (x - mean) * img_range at first, x / img_range + mean at last (the authors' code)."""
    network = zoo.build(tiny(head="residual", channels=channels, img_range=255.0)).eval()
    image, seen = torch.rand(2, channels, 5, 6), []
    network.shallow.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network.head.conv.weight.zero_()
        network.head.conv.bias.copy_(torch.arange(1.0, channels + 1))
        found = network(image)
    mean_I11 = torch.tensor(mean)[:, None, None]
    expected = ((image - mean_I11) * 255).permute(0, 2, 3, 1)
    torch.testing.assert_close(seen[0], expected, atol=1e-4, rtol=1e-6)
    shift = torch.arange(1.0, channels + 1)[:, None, None] / 255
    torch.testing.assert_close(found, image + shift, atol=1e-6, rtol=1e-6)
    assert not any("mean" in key for key in network.state_dict())  # as in the authors' files


class ThreeOf51(torch.nn.Module):
    """A head that returns three channels of 51, whatever it gets."""

    def forward(self, features_BHWC, image_BHWI):
        return torch.full((*features_BHWC.shape[:3], 3), 51.0)


def test_a_range_other_than_one_is_taken_off_where_the_output_has_other_channels():
    network = zoo.build(tiny(channels=1, out_channels=3, img_range=255.0)).eval()
    network.head = ThreeOf51()
    found = network(torch.rand(1, 1, 4, 5))
    expected = 51 / 255 + torch.tensor(DIV2K)[:, None, None].expand(1, 3, 4, 5)
    torch.testing.assert_close(found, expected)


def test_the_features_of_a_network_go_round_its_body_before_the_first_norm():
    """MambaIR, Sec. 3.2, with numbers: patch norm is on the way in, not in the skip."""
    network = zoo.build(tiny(head="residual")).eval()
    image = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        network.after_body.weight.zero_(), network.after_body.bias.fill_(0.5)
        network.patch_norm.bias.fill_(3.0)
        shallow = network.shallow(network.normalise(image.permute(0, 2, 3, 1).contiguous()))
        correction = network.head.conv(shallow + 0.5).permute(0, 3, 1, 2)
        torch.testing.assert_close(network(image), image + correction)


@pytest.mark.parametrize("size", [(1, 1), (9, 14)])
def test_a_unet_repeats_the_last_row_and_column_up_to_multiples_of_eight(size):
    network = zoo.build(RECIPES["unet"]).eval()
    image = torch.rand(1, 3, *size)
    height, width = size
    padded = torch.nn.functional.pad(image, (0, -width % 8, 0, -height % 8), mode="replicate")
    with torch.no_grad():
        assert torch.equal(network(image), network(padded)[..., :height, :width])


@pytest.mark.parametrize("size", [0, 257, 10**6])
def test_an_image_is_not_mirrored_to_any_size(size):
    with pytest.raises(RecipeError, match=f"pad_to is {size}; it must be from 1 to 256"):
        zoo.build(tiny(pad_to=size))
    assert zoo.build(tiny(pad_to=256)).capabilities.size_multiple == 256


def test_parts_are_ordinary_classes():
    block = RSSB(32, scan=Window(size=4))
    assert block(torch.rand(1, 6, 7, 32)).shape == (1, 6, 7, 32)


def test_features_stay_in_one_layout():
    """No block hands on a tensor that the next one would have to copy."""
    network = zoo.build(tiny(scale=2)).eval()
    seen = []
    for group in network.groups:
        group.register_forward_hook(lambda _m, _i, output: seen.append(output.is_contiguous()))
    with torch.no_grad():
        network(torch.rand(1, 3, 16, 16))
    assert seen == [True, True]


def test_importing_costs_little_and_takes_nothing_optional():
    import subprocess
    import sys

    code = (
        # PyTorch's counter of operations brings Triton by itself, where it is installed.
        "import sys, time, torch, torch.utils.flop_counter; before = set(sys.modules); "
        "begun = time.process_time(); import zoo; "
        "zoo.build, zoo.load, zoo.restore, zoo.describe; print(time.process_time() - begun); "
        "print([m for m in ('onnx','tensorrt','triton.language','mamba_ssm','timm','skimage',"
        "'sklearn','tensorboard','onnxruntime') if m in set(sys.modules) - before])"
    )
    seconds, optional = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert optional == "[]"
    assert float(seconds) < 1.5


@pytest.mark.parametrize(("conv", "convolutions"), [("1conv", 1), ("3conv", 3)])
def test_the_groups_end_with_the_convolutions_that_the_network_ends_with(conv, convolutions):
    network = zoo.build(tiny(conv=conv, block="rlmb"))
    for part in (*(group.conv for group in network.groups), network.after_body):
        found = [m for m in part.modules() if isinstance(m, torch.nn.Conv2d)]
        assert len(found) == convolutions


def test_sizes_of_networks_have_limits_that_they_may_reach():
    check_scale(1), check_scale(64)
    check_levels([1] * 10)
    check_depths([5000, 5000])
    for check, value, message in (
        (check_scale, 0, "scale is 0; it must be from 1 to 64"),
        (check_scale, 65, "scale is 65; it must be from 1 to 64"),
        (check_levels, [1] * 11, "depths has 11 levels; use at most 10"),
        (check_depths, [5000, 5001], "depths adds up to 10,001 blocks; use at most 10,000"),
    ):
        with pytest.raises(ValueError, match=message):
            check(value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_path": 1.0, "depths": [1]}, "drop_path is 1; it must be at least 0 and below 1"),
        ({"img_range": 0.9e-3}, "img_range is 0.0009; it must be from 0.001 to 1e6"),
        ({"img_range": 1.1e6}, r"img_range is 1.1e\+06; it must be from 0.001 to 1e6"),
        ({"dim": 0}, "dim is 0; it must be at least 1"),
        ({"depths": []}, r"depths is \[\]; give at least one group with at least one block"),
        ({"depths": [1, 0]}, r"depths is \[1, 0\]; give at least one group"),
    ],
)
def test_numbers_of_a_network_beyond_their_limits_are_refused(changes, message):
    small = {"dim": 30, "depths": [1], "drop_path": 0.0}
    with pytest.raises(ValueError, match=message):
        SingleImage(**{**small, **changes})
    for img_range in (1e-3, 1e6):
        assert SingleImage(**small, img_range=img_range).normalise.img_range == img_range


def test_images_are_extended_to_at_most_256_pixels_or_as_many_as_the_network_needs():
    for pad_to, needed, grid in ((256, 1, 256), (1, 512, 512), (128, 512, 512), (6, 4, 12)):
        assert Extension("replicate", pad_to, needed=needed).grid == grid
    for pad_to, needed, message in (
        (257, 1, "pad_to is 257; it must be from 1 to 256"),
        (0, 1, "pad_to is 0; it must be from 1 to 256"),
        (3, 512, "needs multiples of 512, .* to multiples of 1536; use a multiple or a divisor"),
        (129, 2, "to multiples of 258"),
    ):
        with pytest.raises(ValueError, match=message):
            Extension("replicate", pad_to, needed=needed)
    with pytest.raises(ValueError, match="padding is 'mirror', but the network pads to multiples"):
        Extension("mirror", 1)


@pytest.mark.parametrize(
    ("given", "extra", "text"),
    [
        (("replicate", 1), False, "none"),
        (("replicate", 1), True, "replicate to multiples of 1, always by at least one"),
        (("mirror", 4), False, "mirror to multiples of 4"),
        (("reflect", 4), True, "reflect to multiples of 4, always by at least one"),
        (("reflect", 1), True, "reflect to multiples of 1, always by at least one"),
    ],
)
def test_an_extension_says_what_it_adds_and_adds_it(given, extra, text):
    extension = Extension(*given, extra=extra)
    assert str(extension) == text
    seen, image = [], torch.rand(1, 3, 8, 5)
    found = extension.around(lambda x: seen.append(x.shape[2:]) or x, image)
    assert torch.equal(found, image)
    grid = given[1]
    sides = [(size // grid + 1) * grid if extra else -(-size // grid) * grid for size in (8, 5)]
    assert seen == [tuple(sides)]


def test_too_many_levels_of_a_wavelet_network_are_refused():
    depths = [1] * 12
    with pytest.raises(RecipeError, match="depths has 12 levels; use at most"):
        zoo.build(
            {"network": {"type": "wavelet", "dim": 8, "depths": depths, "high_depths": depths}}
        )
