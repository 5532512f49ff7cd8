"""Local attribution maps of networks whose receptive field is known."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.seen_through import Scanning, ThreeByThree
from zoo.analysis import diffusion_index, local_attribution
from zoo.analysis.attribution import blurred
from zoo.data.pixels import to_array
from zoo.errors import ImageError, ZooError
from zoo.scans import Window


def an_image(height=12, width=14):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("scale", [1, 2])
def test_a_convolution_is_attributed_to_the_pixels_it_sees(scale):
    found = local_attribution(ThreeByThree(scale), an_image(), at=(4, 5), side=3, steps=5)
    inside = torch.zeros(12, 14, dtype=torch.bool)
    inside[3:9, 4:10] = True  # the target, the next pixels of its gradient, and one around
    inside[8, 9] = False  # no gradient looks at the pixel below and to the right
    assert torch.equal(found.magnitude > 0, inside)
    assert (found.row, found.column, found.side) == (4, 5, 3)
    assert found.output_IHW.shape == (3, 12 * scale, 14 * scale)


def test_a_window_scan_is_attributed_to_what_it_has_read_before():
    scan = Window(size=4, directions=("row",))
    found = local_attribution(Scanning(scan), an_image(9, 10), at=(5, 5), side=1, steps=4)
    [path] = scan.order(9, 10).tolist()
    last = max(path.index(token) for token in (55, 56, 65))  # the pixel and the next two
    expected = torch.tensor([token in path[: last + 1] for token in range(90)])
    assert torch.equal(found.magnitude.flatten() > 0, expected)


def test_a_map_sums_to_what_sharpness_adds():
    """The path integral of a gradient, whatever the path."""
    network, image = ThreeByThree(), an_image()
    errors = []
    for steps in (10, 160):
        found = local_attribution(network, image, steps=steps)
        errors.append(abs(float(found.map_IHW.sum()) / (found.detail - found.blurred_detail) - 1))
    assert errors[1] < 0.02 and errors[1] < errors[0] / 4
    y_IHW = network(image[None])[0].detach()
    target = y_IHW[:, 2:11, 3:12]  # 8 x 8 in the middle, and the next pixels
    sizes = np.hypot(*(np.diff(target, axis=a)[:, :8, :8] for a in (1, 2)))
    assert found.detail == pytest.approx(sizes.sum(), rel=1e-5)
    y_IHW = network(blurred(image, 1.2)[None])[0].detach()
    sizes = np.hypot(*(np.diff(y_IHW[:, 2:11, 3:12], axis=a)[:, :8, :8] for a in (1, 2)))
    assert found.blurred_detail == pytest.approx(sizes.sum(), rel=1e-5)


def test_the_map_is_a_sum_over_steps_of_gradient_times_change():
    """A plain loop, with the gradient of a pixel's detail by finite differences."""
    network = ThreeByThree().double()
    image, steps = an_image(5, 6).double(), 3

    def detail(x_IHW):
        y_IHW = np.asarray(network(x_IHW[None])[0].detach())
        down, right = y_IHW[:, 3, 3] - y_IHW[:, 2, 3], y_IHW[:, 2, 4] - y_IHW[:, 2, 3]
        return np.hypot(down, right).sum()

    path = [blurred(image, 1.2 * (steps - t) / steps) for t in range(steps + 1)]
    expected = torch.zeros(3, 5, 6, dtype=torch.float64)
    for before, now in itertools.pairwise(path):
        for place in np.ndindex(3, 5, 6):
            moved = now.clone()
            moved[place] += 1e-6
            slope = (detail(moved) - detail(now)) / 1e-6
            expected[place] += slope * (now - before)[place]
    found = local_attribution(network, image, at=(2, 3), side=1, steps=steps)
    torch.testing.assert_close(found.map_IHW, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [(12, 14), (5, 1), (2, 3), (1, 1)])
def test_the_blur_is_that_of_opencv(size):
    image = an_image(*size)
    expected = cv2.GaussianBlur(to_array(image), (9, 9), 1.2, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(to_array(blurred(image, 1.2)), expected, atol=2e-6)
    assert blurred(image, 0) is image


def test_flat_images_have_no_attribution_but_no_nan_either():
    found = local_attribution(ThreeByThree(), torch.full((3, 20, 20), 0.5), side=4, steps=3)
    assert torch.isfinite(found.map_IHW).all() and float(found.magnitude.max()) < 1e-6
    with pytest.raises(ImageError, match="choose a target with detail"):
        diffusion_index(torch.zeros(4, 4))


def test_a_target_at_the_border_has_its_last_pixel_repeated():
    found = local_attribution(ThreeByThree(), an_image(), at=(10, 12), side=2, steps=2)
    assert torch.equal(found.magnitude > 0, _corner())


def _corner():
    inside = torch.zeros(12, 14, dtype=torch.bool)
    inside[9:, 11:] = True
    return inside


def test_the_diffusion_index_is_a_gini_coefficient_upside_down():
    values = torch.rand(7, 9, generator=torch.Generator().manual_seed(4))
    flat = values.flatten().double()
    gini = (flat[:, None] - flat[None]).abs().sum() / (2 * len(flat) ** 2 * flat.mean())
    assert diffusion_index(values) == pytest.approx(100 * (1 - float(gini)))
    assert diffusion_index(torch.ones(5, 5)) == pytest.approx(100)
    assert diffusion_index(torch.eye(10)[:1]) == pytest.approx(10)


@pytest.mark.parametrize("options", [{"steps": 0}, {"sigma": 0}, {"side": 0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ZooError, match="must be at least 1, sigma above 0"):
        local_attribution(ThreeByThree(), an_image(), **options)


def test_a_target_outside_is_refused():
    with pytest.raises(ImageError, match=r"the target at row 5, column 0 with 8 x 8 pixels"):
        local_attribution(ThreeByThree(), an_image(), at=(5, 0), side=8)
