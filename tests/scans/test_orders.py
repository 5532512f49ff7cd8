"""The contract of scan orders, over everything registered and every size up to 20 x 20."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from tests.helpers.scan_orders import AUTHORS_NAMES, CROSS_SCALES, OFFICIAL, SIZES, sizes_of
from zoo.errors import RecipeError
from zoo.scans import (
    SCANS,
    ByClass,
    Compose,
    CrossScale,
    Diagonal,
    Dilated,
    Hilbert,
    HilbertCropped,
    Raster,
    Serpentine,
    Shuffled,
    Spiral,
    Stripes,
    Window,
    Zigzag,
    ZOrder,
)
from zoo.scans.base import path_through

ORDERS = [
    Raster(),
    Raster(directions=("column_reversed", "row")),
    Window(size=1),
    Window(size=3),
    Window(size=8),
    Window(size=5, directions=("column_reversed",)),
    Serpentine(),
    Diagonal(),
    Hilbert(),
    Shuffled(seed=3, count=2),
    Compose(orders=(Window(size=4, directions=("row",)), Diagonal())),
    Window(size=(2, 5), shift=1, serpentine=True),
    Stripes(shift=2, directions=("stripe", "transposed_turned_reversed", "stripe_turned")),
    Zigzag(),
    Spiral(),
    Dilated(step=3),
    ZOrder(),
    HilbertCropped(),
]
ORDERS += [  # those of --import
    entry.target()
    for entry in SCANS.entries()
    if not entry.target.__module__.startswith("zoo.")
    and entry.target.grids == 1
    and not entry.target.by_content
]

each_order = pytest.mark.parametrize("order", ORDERS, ids=repr)


def test_every_registered_order_is_tested():
    tested = {type(order) for order in [*ORDERS, *CROSS_SCALES]}
    by_content = {ByClass}  # tests/scans/test_by_class.py
    assert tested | by_content == {entry.target for entry in SCANS.entries()}


@pytest.mark.parametrize("order", [*ORDERS, *CROSS_SCALES], ids=repr)
def test_each_direction_visits_every_token_once(order):
    for height, width in sizes_of(order):
        order_KS = order.order(height, width)
        assert order_KS.dtype == torch.int32
        assert len(order_KS) == len(order.directions) == len(set(order.directions))
        for path_S in order_KS:
            visited_L = path_S[path_S >= 0].sort().values
            tokens = torch.arange(order.tokens(height, width), dtype=torch.int32)
            assert torch.equal(visited_L, tokens)


@pytest.mark.parametrize("order", [o for o in ORDERS if not isinstance(o, Compose)], ids=repr)
def test_reversed_directions_are_exact_reverses(order):
    for height, width in ((1, 1), (5, 7), (16, 3)):
        paths = dict(zip(order.directions, order.order(height, width), strict=True))
        for name, path_S in paths.items():
            forward = paths.get(name.removesuffix("_reversed"))
            if name.endswith("_reversed") and forward is not None:
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
        (
            Window(size=5, directions=("column_reversed",)),
            lambda h, w: window_by_loops(h, w, 5),
        ),
        (Raster(directions=("column_reversed", "row")), raster_by_loops),
        (Serpentine(), serpentine_by_loops),
        (Diagonal(), diagonal_by_loops),
    ],
    ids=lambda value: repr(value) if not callable(value) else "",
)
def test_orders_equal_a_construction_by_loops(order, by_loops):
    for height, width in SIZES:
        expected = by_loops(height, width)
        for name, path in zip(order.directions, order.order(height, width).tolist(), strict=True):
            forward = expected[name.removesuffix("_reversed")]
            assert path == (forward[::-1] if name.endswith("_reversed") else forward)


def test_raster_equals_the_authors_index_list():
    found = Raster().order(OFFICIAL["raster"]["H"], OFFICIAL["raster"]["W"]).tolist()
    assert found == OFFICIAL["raster"]["scan_k0..k3"]


@pytest.mark.parametrize("listed", OFFICIAL["window"], ids=lambda e: f"{e['w']}{e['direction']}")
def test_windows_equal_the_authors_index_lists(listed):
    order = Window(size=listed["w"], directions=(AUTHORS_NAMES[listed["direction"]],))
    assert order.order(listed["H"], listed["W"])[0].tolist() == listed["scan"]


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 12))
def test_windows_of_any_size(height, width, size):
    row, column, row_reversed, column_reversed = Window(size=size).order(height, width).tolist()
    expected = window_by_loops(height, width, size)
    assert row == expected["row"] and column == expected["column"]
    assert row_reversed == row[::-1] and column_reversed == column[::-1]


def test_shuffles_depend_on_seed_and_size_alone():
    state = torch.random.get_rng_state()
    assert torch.equal(Shuffled(seed=1).build(4, 6, "cpu"), Shuffled(seed=1).build(4, 6, "cpu"))
    assert not torch.equal(Shuffled(seed=1).order(4, 6), Shuffled(seed=2).order(4, 6))
    assert not torch.equal(*Shuffled(count=2).order(5, 5))
    assert torch.equal(Shuffled(count=2).order(5, 5), Shuffled(count=4).order(5, 5)[:2])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_composed_directions_are_those_of_the_orders():
    parts = (Window(size=4), Hilbert(), Window(size=3, directions=("row",)))
    composed = Compose(orders=parts)
    for height, width in ((1, 1), (5, 7), (16, 3)):
        found = zip(composed.directions, composed.order(height, width).tolist(), strict=True)
        for index, part in enumerate(parts):
            for name, path in zip(part.directions, part.order(height, width).tolist(), strict=True):
                found_name, found_path = next(found)
                assert found_name == f"{index}.{name}"
                assert found_path[: len(path)] == path
                assert set(found_path[len(path) :]) <= {-1}


def test_compose_is_traceable_where_all_its_orders_are():
    assert Compose(orders=(Raster(), Diagonal())).traceable
    assert not Compose(orders=(Raster(), Hilbert())).traceable


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


@pytest.mark.parametrize("name", ["hilbert_cropped", "hilbert", "shuffled"])
def test_an_order_that_cannot_be_traced_is_refused_before_the_tracing(name, tmp_path, monkeypatch):
    """Also for a fixed size; the message names orders that can be traced."""
    from export.onnx import export

    monkeypatch.setattr("export.graph.traced_graph", lambda *a: pytest.fail("traced"))
    network = zoo.build("mambair_tiny_x2", dim=30, depths=[1], scans=[name])
    with pytest.raises(RecipeError, match=r"cannot be traced, .*not even for one size; .*stripes"):
        export(network, tmp_path / "a.onnx", shape="1x3x8x8")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(size=0), "size is 0"),
        (lambda: Window(size=(4, 0)), r"size is \(4, 0\)"),
        (lambda: Window(size=(4, 3), shift=3), "shift is 3; it must be from 0 to 2"),
        (lambda: Stripes(width=0), "width is 0"),
        (lambda: Stripes(width=4, shift=4), "shift is 4; it must be from 0 to 3"),
        (lambda: Stripes(directions=("strip",)), r"directions\[0\].*did you mean 'stripe'"),
        (lambda: Stripes(width=2000), "width is 2000; use at most 256"),
        (lambda: Dilated(step=0), "step is 0"),
        (lambda: Dilated(step=2000), "step is 2000; use at most 256"),
        (lambda: Raster(directions=("row", "colum")), r"directions\[1\].*did you mean 'column'"),
        (lambda: Diagonal(directions=()), "at least one"),
        (lambda: Serpentine(directions=("rwo",)), r"directions\[0\].*did you mean 'row'"),
        (lambda: Hilbert(directions=("hilbrt",)), r"directions\[0\].*did you mean 'hilbert'"),
        (lambda: Shuffled(count=0), "count is 0"),
        (lambda: Shuffled(count=65), "count is 65; it must be at most 64"),
        (lambda: Window(size=257), "size is 257; use at most 256 tokens"),
        (lambda: CrossScale(size=258), "size is 258; use at most 256 tokens"),
        (lambda: CrossScale(size=0), "size is 0; it must be even and at least 2"),
        (lambda: Shuffled(seed=-1), "seed is -1"),
        (lambda: Shuffled(seed=2**64), "seed is 18446744073709551616"),
        (lambda: Compose(orders=()), "orders is empty"),
        (lambda: Compose(orders=(Raster(), CrossScale())), r"orders\[1\] scans 2 grids"),
        (lambda: CrossScale(size=5), "size is 5; it must be even"),
        (lambda: CrossScale(directions=("rwo",)), r"directions\[0\].*did you mean 'row'"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


def test_options_may_be_as_large_and_as_small_as_they_say():
    assert len(Shuffled(count=64).directions) == 64 and Shuffled(seed=2**64 - 1).seed
    for order in (Window(size=256), Window(size=(1, 1)), Window(size=(256, 1))):
        assert order.shift == 0
    assert Window(size=(4, 3), shift=2) and Stripes(width=256, shift=255) and Stripes(width=1)
    assert Dilated(step=256) and Dilated(step=1) and CrossScale(size=256)


@pytest.mark.parametrize("entry", SCANS.entries(), ids=lambda entry: entry.name)
def test_every_order_refuses_directions_that_it_has_not(entry):
    needed = {"window": {"size": 4}}.get(entry.name, {})
    if entry.name in ("compose", "shuffled"):  # they take none
        return
    known = entry.target(**needed).directions
    for directions, message in (((), "at least one of"), ((known[0], "x"), r"directions\[1\]")):
        with pytest.raises(RecipeError, match=message):
            entry.target(directions=directions, **needed)
    assert entry.target(directions=known[:1], **needed).directions == known[:1]


def test_a_network_names_the_orders_that_can_be_traced():
    with pytest.raises(RecipeError) as told:
        Hilbert().check_traceable()
    named = str(told.value).partition("use one of ")[2].split(", ")
    assert {"raster", "window", "stripes"} <= set(named)
    assert not {"hilbert", "hilbert_cropped", "shuffled", "cross_scale", "by_class"} & set(named)
    Raster().check_traceable()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_a_path_is_made_of_steps_of_any_integers(dtype):
    steps_HW = torch.tensor([[2, 0], [3, 1]], dtype=dtype)
    assert path_through(steps_HW).tolist() == [1, 3, 0, 2]
