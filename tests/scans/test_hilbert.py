"""Hilbert curves: steps to neighbours, ends, and the classical curve on powers of two."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.scan_orders import SIZES
from zoo.scans import Hilbert, HilbertCropped, Serpentine


def test_hilbert_steps_to_the_four_neighbours_at_every_size():
    for height, width in SIZES:
        for path in Hilbert().order(height, width).tolist():
            for a, b in pairwise(path):
                assert abs(a // width - b // width) + abs(a % width - b % width) == 1


def test_hilbert_ends_where_a_path_of_single_steps_can():
    for height, width in SIZES:
        paths = dict(zip(Hilbert().directions, Hilbert().order(height, width), strict=True))
        top_right, bottom_left, last = width - 1, (height - 1) * width, height * width - 1
        far = width == 1 or (width % 2 == 1 and height % 2 == 0)
        far_transposed = height == 1 or (height % 2 == 1 and width % 2 == 0)
        assert paths["hilbert"][0] == paths["transposed"][0] == 0
        assert paths["hilbert"][-1] == (last if far else top_right)
        assert paths["transposed"][-1] == (last if far_transposed else bottom_left)


def test_the_path_of_hilbert_is_the_same_in_every_version():
    """Networks learn along it. Other paths of single steps, with other cuts, end there too."""
    digest = hashlib.sha256()
    for height, width in SIZES:
        digest.update(Hilbert().order(height, width).numpy().astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == "e78febc8e5f7288c"


def hilbert_by_digits(side):
    """The classical curve: two bits of the step number choose a quadrant, from fine to coarse."""
    path = []
    for step in range(side * side):
        x, y, square = 0, 0, 1
        while square < side:
            quadrant = step % 4
            step //= 4
            if quadrant == 0:
                x, y = y, x
            elif quadrant == 1:
                y += square
            elif quadrant == 2:
                x, y = x + square, y + square
            else:
                x, y = 2 * square - 1 - y, square - 1 - x
            square *= 2
        path.append((x, y))
    return path


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("curve", [Hilbert, HilbertCropped])
def test_hilbert_is_the_classical_curve_on_powers_of_two(side, curve):
    first, second = curve(directions=("hilbert", "transposed")).order(side, side).tolist()
    assert first == [y * side + x for x, y in hilbert_by_digits(side)]
    assert second == [x * side + y for x, y in hilbert_by_digits(side)]


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_every_step_of_serpentines_and_hilbert_curves_is_to_a_neighbour(height, width):
    for order in (Serpentine(), Hilbert()):
        order_KS = order.order(height, width)
        rows_KS, columns_KS = order_KS // width, order_KS % width
        steps_KS = rows_KS.diff(dim=1).abs() + columns_KS.diff(dim=1).abs()
        assert (steps_KS == 1).all()
