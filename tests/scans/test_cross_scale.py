"""Cross-scale orders: each path by loops, the authors' lists, sizes and tracing."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.scan_orders import AUTHORS_NAMES, CROSS_SCALES, OFFICIAL, sizes_of
from zoo.errors import RecipeError
from zoo.scans import CrossScale
from zoo.scans.official import official_column_sources

each_cross_scale = pytest.mark.parametrize("order", CROSS_SCALES, ids=repr)


def cross_scale_by_loops(order, height, width):
    """One direction after another: coarse and fine walks, turned round apart, then interleaved."""
    size, coarse_width = order.size // 2, width // 2
    rows, columns = height // order.size, width // order.size

    def coarse(y, x):
        return y * coarse_width + x

    def fine(y, x):
        return height // 2 * coarse_width + y * width + x

    row = [
        (i * size + r, j * size + c)
        for i in range(rows)
        for j in range(columns)
        for r in range(size)
        for c in range(size)
    ]
    column = [
        (i * size + r, j * size + c)
        for j in range(columns)
        for i in range(rows)
        for c in range(size)
        for r in range(size)
    ]
    for name in order.directions:
        cells, nested = (row, [(0, 0), (0, 1), (1, 0), (1, 1)])
        if name.startswith("column"):
            cells, nested = (column, [(0, 0), (1, 0), (0, 1), (1, 1)])
        low = [coarse(y, x) for y, x in cells]
        high = [fine(2 * y + b, 2 * x + r) for y, x in cells for b, r in nested]
        if name.endswith("_reversed"):
            low, high = low[::-1], high[::-1]
        if order.arrangement == "sequential":
            yield low + high
        else:
            yield [t for n, first in enumerate(low) for t in (first, *high[4 * n : 4 * n + 4])]


@each_cross_scale
def test_cross_scale_equals_a_construction_by_loops(order):
    for height, width in sizes_of(order):
        found = order.order(height, width).tolist()
        assert found == list(cross_scale_by_loops(order, height, width))


@pytest.mark.parametrize(
    "listed",
    OFFICIAL["cross_scale"],
    ids=lambda e: f"{e['H']}x{e['W']}{e['direction']}",
)
def test_cross_scale_equals_the_authors_index_lists(listed):
    height, width, size = listed["H"], listed["W"], listed["w1"]
    name = AUTHORS_NAMES[listed["direction"]]
    path = CrossScale(size=size, directions=(name,)).order(height, width)[0].tolist()
    first_fine = height * width // 4
    assert path == [n + first_fine * (grid == "H") for grid, n in listed["scan_pairs"]]

    # Where the authors' code writes each result, coarse ones nowhere.
    places = torch.arange(height * width)
    if name.startswith("column"):
        sources_L = official_column_sources(height, width, size)
        places[sources_L] = torch.arange(height * width)
    found = [-1 if token < first_fine else int(places[token - first_fine]) for token in path]
    assert found == listed["merge_dst"]
    read = [-1 if token < first_fine else token - first_fine for token in path]
    assert (read == found) == listed["reverse_is_true_inverse"]


def test_cross_scale_is_not_defined_on_other_sizes():
    for height, width, said in ((8, 20, "width is 20"), (12, 16, "height is 12")):
        with pytest.raises(RecipeError, match=f"{said}; .* needs a multiple of 8"):
            CrossScale(size=8).order(height, width)


@pytest.mark.parametrize(("fixed", "arrangement"), [(1, "aligned"), (2, "sequential")])
def test_cross_scale_is_traced_with_one_side_fixed_and_the_other_padded(fixed, arrangement):
    """A file of fixed height and any width: no comparison may settle the width."""
    order = CrossScale(size=4, arrangement=arrangement)

    class Model(torch.nn.Module):
        def forward(self, x_BHW):
            height, width = (side + -side % 4 for side in x_BHW.shape[1:])
            return order.build(height, width, x_BHW.device)

    shapes = {3 - fixed: torch.export.Dim("side", min=2, max=64)}
    traced = torch.export.export(Model(), (torch.zeros(1, 6, 6),), dynamic_shapes=(shapes,))
    for side in (3, 8):
        height, width = (6, side) if fixed == 1 else (side, 6)
        found = traced.module()(torch.zeros(1, height, width))
        assert torch.equal(found, order.order(height + -height % 4, width + -width % 4))
