"""Every registered block, branch, head, scan and network, tiny: forward, training, saving."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.blocks import BLOCKS, BRANCHES, MERGES, RSSB, SCALE_FUSIONS, DropPath
from zoo.heads import HEADS, pixel_shuffle
from zoo.networks import NETWORKS
from zoo.scans import SCANS, Window

NEEDS = {"window": {"size": 3}, "compose": {"orders": ["raster", "diagonal"]}}
COARSE = {"depths": [1], "fusion": {"scan": {"size": 4}}}
SIZES = [(1, 1), (1, 7), (9, 1), (5, 8)]


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
        if entry.target.grids == 1
    },
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
    **{f"head-{n}": tiny(head=n, scale=1 if n == "residual" else 2) for n in HEADS.names()},
    "scale-3": tiny(scale=3),
    "scale-4-nearest": tiny(scale=4, head="nearest_conv"),
    "scale-3-nearest": tiny(scale=3, head="nearest_conv"),
    "gray": tiny(channels=1, head="residual"),
    "3conv": tiny(conv="3conv", patch_norm=False),
    "mixed-scans": tiny(scans=["raster", "hilbert", {"type": "window", "size": 2}]),
    "unet": {"network": {"type": "unet", "dim": 32, "depths": [1, 1, 1, 1], "refinement": 1}},
}


def test_every_network_is_tested():
    images = {e.name for e in NETWORKS.entries() if e.capabilities.input == "image"}
    assert {r["network"]["type"] for r in RECIPES.values()} == images  # bursts: tests/burst


@pytest.mark.parametrize("name", RECIPES)
def test_any_size_trains_and_comes_back_from_a_file(name, tmp_path):
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


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    layer = DropPath(0.25).train()
    dropped = layer(torch.ones(4000, 1, 1, 2))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(dropped[..., 0], dropped[..., 1])
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(layer.eval()(dropped), dropped)


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
