"""Effective receptive fields of networks whose receptive field is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo
from tests.helpers.seen_through import Scanning, ThreeByThree
from zoo.analysis import (
    ReceptiveField,
    channel_activations,
    effective_receptive_field,
    extents,
    local_attribution,
    scan_decays,
)
from zoo.analysis.probing import probed
from zoo.errors import ImageError, ZooError
from zoo.networks import Network
from zoo.scans import Raster, Window


def images(count, height, width, channels=3):
    random = torch.Generator().manual_seed(1)
    return [torch.rand(channels, height, width, generator=random) for _ in range(count)]


@pytest.mark.parametrize(("scale", "at"), [(1, None), (2, (4, 6)), (3, (0, 0))])
def test_the_field_of_a_convolution_is_its_kernel(scale, at):
    network = ThreeByThree(scale)
    found = effective_receptive_field(network, images(2, 9, 11), at=at)
    row, column = at or (4, 5)
    assert (found.row, found.column) == (row, column)
    expected = torch.zeros(9, 11, dtype=torch.float64)
    for y in range(9):
        for x in range(11):
            dy, dx = y - row + 1, x - column + 1
            if 0 <= dy < 3 and 0 <= dx < 3:
                taps_OI = network.layer.weight[:, :, dy, dx].detach().double()
                # Each pixel of the result covers scale x scale pixels.
                expected[y, x] = (scale**2 * taps_OI.sum(0)).abs().sum()
    torch.testing.assert_close(found.field_HW, expected, rtol=1e-5, atol=1e-6)
    assert found.field_HW.dtype == torch.float64


@pytest.mark.parametrize(
    "scan",
    [
        Window(size=4, directions=("row",)),
        Window(size=4, directions=("column_reversed",)),
        Raster(directions=("row", "row_reversed")),
    ],
)
def test_the_field_of_a_scan_is_what_it_has_read_before(scan):
    height, width = 10, 9  # not whole windows
    found = effective_receptive_field(Scanning(scan), images(1, height, width), at=(5, 6))
    read = set()
    for path in scan.order(height, width).tolist():
        read |= set(path[: path.index(5 * width + 6) + 1]) - {-1}
    expected = torch.tensor([token in read for token in range(height * width)])
    assert torch.equal(found.field_HW.flatten() > 0, expected)


def test_the_field_is_the_mean_over_images():
    network = Scanning(Raster(directions=("row",)))
    both = images(2, 6, 7)
    one, two = (effective_receptive_field(network, [image]).field_HW for image in both)
    assert not torch.allclose(one, two, rtol=1e-3)  # the scan selects, so it depends on the image
    seen = []
    mean = effective_receptive_field(network, both, seen=lambda: seen.append(1)).field_HW
    torch.testing.assert_close(mean, (one + two) / 2)
    assert len(seen) == 2


def test_extents_are_the_smallest_squares_that_hold_their_share():
    field_HW = torch.zeros(8, 10, dtype=torch.float64)
    field_HW[2, 1], field_HW[3, 2], field_HW[2, 4], field_HW[7, 9] = 4, 3, 2, 1
    field = ReceptiveField(field_HW, 2, 1)
    found = extents(field, (0.4, 0.41, 0.9, 0.95))
    assert [(e.fraction, e.side) for e in found] == [(0.4, 1), (0.41, 3), (0.9, 7), (0.95, 17)]
    # The second square is 3 x 3; the third is cut off by the border: 6 rows, 5 columns.
    assert np.allclose([e.area for e in found], [1 / 80, 9 / 80, 30 / 80, 1])
    with pytest.raises(ImageError, match=r"sums to 0\.0"):
        extents(ReceptiveField(torch.zeros(3, 3), 1, 1))


def test_a_network_is_left_as_it_was():
    network = ThreeByThree().train()
    network.layer.bias.requires_grad_(False)
    network.layer.eval()
    effective_receptive_field(network, images(1, 4, 4))
    with pytest.raises(ImageError, match="not inside"):
        effective_receptive_field(network, images(1, 4, 4), at=(4, 0))
    effective_receptive_field(network, images(1, 4, 4), at=(3, 3))
    assert network.training and not network.layer.training
    assert network.layer.weight.requires_grad and not network.layer.bias.requires_grad
    assert network.layer.weight.grad is None


def test_it_works_inside_inference_mode_and_no_grad():
    network, [image] = ThreeByThree(), images(1, 5, 5)
    plain = effective_receptive_field(network, [image]).field_HW
    with torch.inference_mode():
        assert torch.equal(effective_receptive_field(network, [image]).field_HW, plain)
    with torch.no_grad():
        assert torch.equal(effective_receptive_field(network, [image]).field_HW, plain)


def test_what_is_found_has_no_gradients_even_if_the_image_has():
    network, [image] = ThreeByThree(), images(1, 9, 9)
    image.requires_grad_(True)
    found = local_attribution(network, image, side=2, steps=2)
    assert not (found.map_IHW.requires_grad or found.output_IHW.requires_grad)
    assert not effective_receptive_field(network, [image]).field_HW.requires_grad
    assert image.grad is None


def test_wrong_images_and_networks_are_named():
    network = ThreeByThree()
    with pytest.raises(ImageError, match="no image"):
        effective_receptive_field(network, [])
    with pytest.raises(ImageError, match=r"\(4, 4\) and \(4, 5\)"):
        effective_receptive_field(network, [*images(1, 4, 4), *images(1, 4, 5)])
    with pytest.raises(ImageError, match=r"\(3, H, W\), not \(1, 4, 4\)"):
        effective_receptive_field(network, images(1, 4, 4, channels=1))
    with pytest.raises(ImageError, match="uint8"):
        effective_receptive_field(network, [torch.zeros(3, 4, 4, dtype=torch.uint8)])
    with pytest.raises(ZooError, match="this network takes bursts; only networks of single"):
        effective_receptive_field(zoo.build("qmambabsr_tiny"), images(1, 8, 8))
    network.guides = {"pan": 1, "map": 2}
    with pytest.raises(ZooError, match=r"this network takes guides \(pan, map\); only"):
        effective_receptive_field(network, images(1, 8, 8))


@pytest.mark.parametrize(
    "analysis",
    [
        local_attribution,
        scan_decays,
        lambda network, image: channel_activations(network, [image]),
        lambda network, image: effective_receptive_field(network, [image]),
    ],
    ids=["attribution", "decay", "activations", "field"],
)
def test_every_analysis_checks_its_image(analysis):
    network = Scanning(Raster())
    for shape in ((1, 16, 16), (3, 16), (3, 0, 16)):
        with pytest.raises(ImageError, match=r"an image for this network has shape \(3, H, W\)"):
            analysis(network, torch.zeros(shape))


def test_a_network_without_parameters_is_on_the_cpu():
    class Tripled(Network):
        def __init__(self):
            super().__init__()
            self._set_sizes(scale=1, channels=3, out_channels=None)

        def forward(self, image_BIHW):
            return 3 * image_BIHW

    found = effective_receptive_field(Tripled(), images(1, 5, 5))
    assert found.field_HW.nonzero().tolist() == [[2, 2]] and float(found.field_HW[2, 2]) == 9


def test_a_network_that_is_looked_at_keeps_no_gradients_for_its_parameters():
    network = ThreeByThree().train()
    with torch.inference_mode(), probed(network) as device:
        assert device.type == "cpu" and not torch.is_inference_mode_enabled()
        assert not any(p.requires_grad for p in network.parameters()) and not network.training
    assert all(p.requires_grad for p in network.parameters())
