"""Bicubic resizing against a loop written from the formula, and against MATLAB's own results."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from zoo.data.bicubic import _snapped, resize_bicubic
from zoo.errors import ImageError


def kernel(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x < 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def mirrored(index, size):
    """Mirror with the edge repeated, as often as it takes."""
    index %= 2 * size
    return index if index < size else 2 * size - 1 - index


def resize_row(row, factor):
    size = len(row)
    stretch = min(factor, 1.0)
    reach = 2 / stretch
    result = []
    for position in range(math.ceil(size * factor)):
        centre = (position + 0.5) / factor - 0.5
        first, last = math.floor(centre - reach) - 1, math.ceil(centre + reach) + 1
        weights = {i: kernel((centre - i) * stretch) for i in range(first, last + 1)}
        total = sum(weights.values())
        result.append(sum(w * row[mirrored(i, size)] for i, w in weights.items()) / total)
    return result


def by_loops(image_HW, factor):
    rows = np.array([resize_row(row, factor) for row in image_HW])
    return np.array([resize_row(column, factor) for column in rows.T]).T


@pytest.mark.parametrize("factor", [2, 3, 4, 1 / 2, 1 / 3, 1 / 4])
@pytest.mark.parametrize("size", [(12, 24), (7, 11), (1, 5), (2, 1)])
def test_equals_the_formula(size, factor):
    image = np.random.default_rng(0).random(size)
    found = resize_bicubic(torch.from_numpy(image)[None, None], factor)[0, 0].numpy()
    expected = by_loops(image, factor)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_of_8_bits_are_rounded_after_each_side_as_matlab_does(scale, dtype):
    """MATLAB keeps the type uint8: first the rows are made fewer, then the columns."""
    random = np.random.default_rng(scale)
    levels = random.integers(0, 256, (6 * scale, 8 * scale))
    levels[: 2 * scale] = 255 * random.integers(0, 2, (2 * scale, 8 * scale))  # overshoots

    def rounded(image):
        return np.clip(np.floor(image + 0.5 + 1e-9), 0, 255)  # sums of loops are not exact

    columns = rounded(np.array([resize_row(column, 1 / scale) for column in levels.T]).T)
    expected = rounded(np.array([resize_row(row, 1 / scale) for row in columns]))
    image = torch.from_numpy((levels / dtype(255)).astype(dtype)).double()[None, None]
    found = (resize_bicubic(image, 1 / scale, bits=8)[0, 0] * 255).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9)
    once = rounded(resize_bicubic(image, 1 / scale)[0, 0].numpy() * 255)
    assert 0.02 < (once != expected).mean() < 0.5  # rounding once is not the same


def test_a_size_is_that_of_the_exact_factor():
    """1.1 is a little more than 1.1 in binary, so 50 pixels would become 56."""
    assert resize_bicubic(torch.zeros(1, 1, 50, 90), 1.1).shape[2:] == (55, 99)
    assert resize_bicubic(torch.zeros(1, 1, 50, 90), 1.101).shape[2:] == (56, 100)
    assert resize_bicubic(torch.ones(1, 1, 4, 2), 0.5).tolist() == [[[[1.0], [1.0]]]]
    assert resize_bicubic(torch.ones(1, 1, 2, 4), 0.5).tolist() == [[[[1.0, 1.0]]]]


def test_each_side_has_its_own_factor():
    image = torch.rand(1, 2, 6, 8, dtype=torch.float64)
    rows, columns = resize_bicubic(image, (3, 8)), resize_bicubic(image, (6, 16))
    found = resize_bicubic(image, (3, 16))
    torch.testing.assert_close(found, resize_bicubic(rows, (3, 16)))
    torch.testing.assert_close(found, resize_bicubic(columns, (3, 16)))


def test_levels_are_whole_where_only_float32_made_them_not():
    levels = torch.tensor([3.0009, 3.0011, 3.4, 2.9991, 2.9989, 7.0], dtype=torch.float64)
    assert _snapped(levels).tolist() == [3.0, 3.0011, 3.4, 3.0, 2.9989, 7.0]


def test_half_a_level_is_rounded_upwards_exactly():
    image = torch.tensor([[10.0, 10, 10, 10, 11, 11, 11, 11]] * 8).double()[None, None] / 255
    found = resize_bicubic(image.float().double(), 0.5, bits=8) * 255
    exact = resize_bicubic(image * 255, 0.5)[0, 0, 0]
    assert torch.equal(found[0, 0, 0].round(), (exact + 0.5).floor())


def test_weights_of_halving_are_the_known_ones():
    """The response to a unit impulse at each pixel: (-3, -9, 29, 111, 111, 29, -9, -3) / 256."""
    impulses = torch.eye(24, dtype=torch.float64)[:, None, None]  # 24 images of one row
    row = resize_bicubic(impulses, (1, 12))[:, 0, 0, 6]
    expected = torch.tensor([-3, -9, 29, 111, 111, 29, -9, -3], dtype=torch.float64) / 256
    torch.testing.assert_close(row[row != 0], expected, atol=1e-12, rtol=0)


MATLAB = [
    # imresize(reshape(0:63, 8, 8)', 1/2, 'bicubic')
    (
        torch.arange(64.0).reshape(8, 8),
        1 / 2,
        [
            [4.04296875, 6.08203125, 8.10546875, 10.14453125],
            [20.35546875, 22.39453125, 24.41796875, 26.45703125],
            [36.54296875, 38.58203125, 40.60546875, 42.64453125],
            [52.85546875, 54.89453125, 56.91796875, 58.95703125],
        ],
    ),
    # imresize(reshape(0:63, 8, 8)', 1/4, 'bicubic')
    (
        torch.arange(64.0).reshape(8, 8),
        1 / 4,
        [[12.3837890625, 16.6318359375], [46.3681640625, 50.6162109375]],
    ),
    # imresize(reshape(0:224, 15, 15)', 1/3, 'bicubic')
    (
        torch.arange(225.0).reshape(15, 15),
        1 / 3,
        [
            [14.41975308642, 17.506172839506, 20.518518518519, 23.530864197531, 26.617283950617],
            [60.716049382716, 63.802469135802, 66.814814814815, 69.827160493827, 72.913580246914],
            [105.901234567901, 108.987654320988, 112, 115.012345679012, 118.098765432099],
            [151.086419753086, 154.172839506173, 157.185185185185, 160.197530864198, 163.283950617],
            [197.382716049383, 200.469135802469, 203.481481481481, 206.493827160494, 209.580246914],
        ],
    ),
    # imresize([100 1 0 100; 10 0 0 0; 0 0 0 0; 0 0 0 0], [5 5], 'bicubic')
    (
        torch.tensor([[100.0, 1, 0, 100], [10, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        5 / 4,
        [
            [108.685225, 27.6970975, -12.4465625, 26.8841925, 109.2025],
            [35.471365, 8.970789, -3.5895625, 6.637437, 26.961],
            [-0.6503125, -0.21221875, 0.39453125, -1.60790625, -6.53125],
            [-0.768075, -0.18963, 0.0459375, 0, 0],
            [0, 0, 0, 0, 0],
        ],
    ),
]
"""What MATLAB itself computes, as published with sanghyun-son/bicubic_pytorch (test_answer)."""


@pytest.mark.parametrize(("image", "factor", "expected"), MATLAB)
def test_equals_matlab(image, factor, expected):
    found = resize_bicubic(image.double()[None, None], factor)[0, 0]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-11)


def test_constants_stay_and_float32_follows_float64():
    constant = torch.full((1, 3, 9, 13), 0.3)
    torch.testing.assert_close(resize_bicubic(constant, 3), torch.full((1, 3, 27, 39), 0.3))
    image = torch.rand(1, 3, 16, 10, dtype=torch.float64)
    exact = resize_bicubic(image, 0.5)
    torch.testing.assert_close(
        resize_bicubic(image.float(), 0.5).double(), exact, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("shape", [(), (5,), (0,), (0, 4), (4, 0), (0, 3, 4, 4)])
def test_what_has_no_pixels_is_refused(shape):
    with pytest.raises(ImageError, match="bicubic resizing needs pixels, not shape"):
        resize_bicubic(torch.zeros(shape), 2)


@pytest.mark.parametrize("size", [(10, 14), (24, 7), (6, 21), (12, 14)])
def test_levels_are_rounded_after_the_side_with_the_smaller_factor(size):
    image = (torch.rand(2, 12, 14, dtype=torch.float64) * 255).round() / 255
    height, width = size
    one_side = [(height, 14), (12, width)]
    first = 0 if height / 12 <= width / 14 else 1
    once = resize_bicubic(image, one_side[first], bits=8)
    assert torch.equal(resize_bicubic(image, size, bits=8), resize_bicubic(once, size, bits=8))
