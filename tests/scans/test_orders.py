"""The contract of scan orders, over everything registered and every size up to 20 x 20."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.errors import RecipeError
from zoo.scans import (
    SCANS,
    Compose,
    Diagonal,
    Hilbert,
    Raster,
    Serpentine,
    Shuffled,
    Window,
)
from zoo.scans.base import CACHED_ORDERS, _cache

ORDERS = [
    Raster(),
    Raster(directions=("column_reversed", "row")),
    Window(size=1),
    Window(size=3),
    Window(size=8),
    Serpentine(),
    Diagonal(),
    Hilbert(),
    Shuffled(seed=3, count=2),
    Compose(orders=(Window(size=4, directions=("row",)), Diagonal())),
]
SIZES = [(h, w) for h in range(1, 21) for w in range(1, 21)]
OFFICIAL = json.loads((Path(__file__).parent.parent / "official" / "scan_indices.json").read_text())
each_order = pytest.mark.parametrize("order", ORDERS, ids=repr)


def test_every_registered_order_is_tested():
    assert {type(order) for order in ORDERS} == {entry.target for entry in SCANS.entries()}


@each_order
def test_each_direction_visits_every_token_once(order):
    for height, width in SIZES:
        order_KS = order.order(height, width)
        assert order_KS.dtype == torch.int32
        assert len(order_KS) == len(order.directions) == len(set(order.directions))
        for path_S in order_KS:
            assert sorted(path_S[path_S >= 0].tolist()) == list(range(height * width))


@each_order
def test_reversed_directions_are_exact_reverses(order):
    for height, width in ((1, 1), (5, 7), (16, 3)):
        paths = dict(zip(order.directions, order.order(height, width), strict=True))
        for name, path_S in paths.items():
            forward = paths.get(name.removesuffix("_reversed"))
            if name.endswith("_reversed") and forward is not None and "." not in name:
                assert torch.equal(path_S, forward.flip(0))


def window_by_loops(height, width, size):
    rows, columns = -(-height // size), -(-width // size)

    def token(y, x):
        return y * width + x if y < height and x < width else -1

    row = [
        token(i * size + r, j * size + c)
        for i in range(rows)
        for j in range(columns)
        for r in range(size)
        for c in range(size)
    ]
    column = [
        token(i * size + r, j * size + c)
        for j in range(columns)
        for i in range(rows)
        for c in range(size)
        for r in range(size)
    ]
    return {"row": row, "column": column}


def serpentine_by_loops(height, width):
    row = [
        y * width + (x if y % 2 == 0 else width - 1 - x)
        for y in range(height)
        for x in range(width)
    ]
    column = [
        (y if x % 2 == 0 else height - 1 - y) * width + x
        for x in range(width)
        for y in range(height)
    ]
    return {"row": row, "column": column}


def diagonal_by_loops(height, width):
    diagonal, antidiagonal = [], []
    for line in range(height + width - 1):
        for y in range(height):
            x = line - y
            if 0 <= x < width:
                diagonal.append(y * width + x)
                antidiagonal.append(y * width + width - 1 - x)
    return {"diagonal": diagonal, "antidiagonal": antidiagonal}


def raster_by_loops(height, width):
    return {
        "row": [y * width + x for y in range(height) for x in range(width)],
        "column": [y * width + x for x in range(width) for y in range(height)],
    }


@pytest.mark.parametrize(
    ("order", "by_loops"),
    [
        (Raster(), raster_by_loops),
        (Window(size=3), lambda h, w: window_by_loops(h, w, 3)),
        (Window(size=8), lambda h, w: window_by_loops(h, w, 8)),
        (Serpentine(), serpentine_by_loops),
        (Diagonal(), diagonal_by_loops),
    ],
    ids=lambda value: repr(value) if not callable(value) else "",
)
def test_orders_equal_a_construction_by_loops(order, by_loops):
    for height, width in SIZES:
        paths = dict(zip(order.directions, order.order(height, width).tolist(), strict=True))
        for name, expected in by_loops(height, width).items():
            assert paths[name] == expected
            assert paths[f"{name}_reversed"] == expected[::-1]


def test_raster_equals_the_authors_index_list():
    found = Raster().order(OFFICIAL["raster"]["H"], OFFICIAL["raster"]["W"]).tolist()
    assert found == OFFICIAL["raster"]["scan_k0..k3"]


@pytest.mark.parametrize("listed", OFFICIAL["window"], ids=lambda e: f"{e['w']}{e['direction']}")
def test_windows_equal_the_authors_index_lists(listed):
    name = {"w": "row", "w_flip": "row_reversed", "c_w": "column", "c_w_flip": "column_reversed"}
    order = Window(size=listed["w"], directions=(name[listed["direction"]],))
    assert order.order(listed["H"], listed["W"])[0].tolist() == listed["scan"]


def test_hilbert_steps_to_neighbours():
    for height, width in SIZES:
        for path in Hilbert().order(height, width).tolist():
            steps = [
                (abs(a // width - b // width), abs(a % width - b % width))
                for a, b in pairwise(path)
            ]
            assert all(max(step) == 1 for step in steps)
            assert sum(step == (1, 1) for step in steps) <= 1


def test_hilbert_starts_along_its_own_side():
    first, second = Hilbert(directions=("hilbert", "transposed")).order(6, 10)
    assert first[-1] == 9 and second[-1] == 50


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 12))
def test_windows_of_any_size(height, width, size):
    order = Window(size=size).order(height, width)
    assert order[0].tolist() == window_by_loops(height, width, size)["row"]


def test_shuffles_depend_on_seed_and_size_alone():
    assert torch.equal(Shuffled(seed=1).build(4, 6, "cpu"), Shuffled(seed=1).build(4, 6, "cpu"))
    assert not torch.equal(Shuffled(seed=1).order(4, 6), Shuffled(seed=2).order(4, 6))
    assert not torch.equal(*Shuffled(count=2).order(5, 5))


def test_shorter_orders_are_padded_at_the_end():
    order = Compose(orders=(Window(size=4, directions=("row",)), Raster(directions=("row",))))
    window, raster = order.order(5, 5)
    assert len(window) == 64 and raster[:25].tolist() == list(range(25))
    assert (raster[25:] == -1).all()


@each_order
def test_tracing_with_dynamic_sizes(order):
    class Model(torch.nn.Module):
        def forward(self, x_BHW):
            return order.order(x_BHW.shape[1], x_BHW.shape[2])

    dims = {1: torch.export.Dim("h", min=2, max=512), 2: torch.export.Dim("w", min=2, max=512)}

    def trace():
        return torch.export.export(Model(), (torch.zeros(1, 5, 7),), dynamic_shapes=(dims,))

    if not order.traceable:
        with pytest.raises(Exception, match="cannot be traced"):
            trace()
        return
    module = trace().module()
    for height, width in ((5, 7), (9, 4), (16, 16)):
        found = module(torch.zeros(1, height, width))
        assert torch.equal(found, order.order(height, width))


def test_the_cache_returns_the_same_tensor_and_is_bounded():
    _cache.clear()
    first = Raster().order(3, 4)
    assert Raster().order(3, 4) is first
    for height in range(1, CACHED_ORDERS + 10):
        Raster().order(height, 50)
    assert len(_cache) == CACHED_ORDERS
    assert Raster().order(3, 4) is not first


def test_orders_built_in_inference_mode_serve_training():
    _cache.clear()
    with torch.inference_mode():
        order = Raster().order(2, 9)
    assert not order.is_inference()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(size=0), "size is 0"),
        (lambda: Raster(directions=("row", "colum")), r"directions\[1\].*did you mean 'column'"),
        (lambda: Diagonal(directions=()), "at least one"),
        (lambda: Shuffled(count=0), "count is 0"),
        (lambda: Compose(orders=()), "orders is empty"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(RecipeError, match=message):
        make()
