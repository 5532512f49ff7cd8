"""Bicubic resizing against a loop written from the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from zoo.data.bicubic import resize_bicubic


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


def test_weights_of_halving_are_the_known_ones():
    """The response to a unit impulse at each pixel: (-3, -9, 29, 111, 111, 29, -9, -3) / 256."""
    impulses = torch.eye(24, dtype=torch.float64)[:, None, None]  # 24 images of one row
    row = resize_bicubic(impulses, (1, 12))[:, 0, 0, 6]
    expected = torch.tensor([-3, -9, 29, 111, 111, 29, -9, -3], dtype=torch.float64) / 256
    torch.testing.assert_close(row[row != 0], expected, atol=1e-12, rtol=0)


def test_constants_stay_and_float32_follows_float64():
    constant = torch.full((1, 3, 9, 13), 0.3)
    torch.testing.assert_close(resize_bicubic(constant, 3), torch.full((1, 3, 27, 39), 0.3))
    image = torch.rand(1, 3, 16, 10, dtype=torch.float64)
    exact = resize_bicubic(image, 0.5)
    torch.testing.assert_close(
        resize_bicubic(image.float(), 0.5).double(), exact, atol=1e-6, rtol=0
    )
