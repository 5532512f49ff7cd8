"""The contract of scan orders, over everything registered and every size up to 20 x 20."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

import zoo
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
    ScanOrder,
    Serpentine,
    Shuffled,
    Spiral,
    Stripes,
    Window,
    Zigzag,
    ZOrder,
)
from zoo.scans.base import CACHED_ORDERS, _cache, path_through
from zoo.scans.official import official_column_sources

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
CROSS_SCALES = [
    CrossScale(size=2),
    CrossScale(size=6, directions=("column_reversed", "row")),
    CrossScale(size=16),
    CrossScale(size=4, arrangement="sequential"),
]
SIZES = [(h, w) for h in range(1, 21) for w in range(1, 21)]
AUTHORS_NAMES = {
    "w": "row",
    "w_flip": "row_reversed",
    "c_w": "column",
    "c_w_flip": "column_reversed",
}
OFFICIAL = json.loads((Path(__file__).parent.parent / "official" / "scan_indices.json").read_text())
each_order = pytest.mark.parametrize("order", ORDERS, ids=repr)
each_cross_scale = pytest.mark.parametrize("order", CROSS_SCALES, ids=repr)


def sizes_of(order):
    """All sizes up to 20 x 20 that an order is defined on, and one that is far from square."""
    if not isinstance(order, CrossScale):
        return SIZES
    defined = [(h, w) for h, w in SIZES if h % order.size == w % order.size == 0]
    return [*defined, (order.size, 3 * order.size), (3 * order.size, 2 * order.size)]


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
@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 12))
def test_windows_of_any_size(height, width, size):
    row, column, row_reversed, column_reversed = Window(size=size).order(height, width).tolist()
    expected = window_by_loops(height, width, size)
    assert row == expected["row"] and column == expected["column"]
    assert row_reversed == row[::-1] and column_reversed == column[::-1]


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_every_step_of_serpentines_and_hilbert_curves_is_to_a_neighbour(height, width):
    for order in (Serpentine(), Hilbert()):
        order_KS = order.order(height, width)
        rows_KS, columns_KS = order_KS // width, order_KS % width
        steps_KS = rows_KS.diff(dim=1).abs() + columns_KS.diff(dim=1).abs()
        assert (steps_KS == 1).all()


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


@pytest.mark.parametrize("name", ["hilbert_cropped", "hilbert", "shuffled"])
def test_an_order_that_cannot_be_traced_is_refused_before_the_tracing(name, tmp_path, monkeypatch):
    """Also for a fixed size; the message names orders that can be traced."""
    from export.onnx import export

    monkeypatch.setattr("export.graph.traced_graph", lambda *a: pytest.fail("traced"))
    network = zoo.build("mambair_tiny_x2", dim=30, depths=[1], scans=[name])
    with pytest.raises(RecipeError, match=r"cannot be traced, .*not even for one size; .*stripes"):
        export(network, tmp_path / "a.onnx", shape="1x3x8x8")


def test_the_cache_returns_the_same_tensor_and_is_bounded():
    _cache.clear()
    first = Raster().order(3, 4)
    assert Raster().order(3, 4) is first
    for height in range(1, CACHED_ORDERS + 10):
        Raster().order(height, 50)
    assert len(_cache) == CACHED_ORDERS
    assert Raster().order(3, 4) is not first
    assert Raster().order(3, 4, "meta").device.type == "meta"
    assert Raster().order(3, 4).device.type == "cpu"


def test_the_cache_is_looked_into_and_changed_by_one_thread_at_a_time(monkeypatch):
    lock = zoo.scans.base._lock

    class Guarded(OrderedDict):
        def __contains__(self, key):
            assert lock.locked()
            return super().__contains__(key)

        def __setitem__(self, key, value):
            assert lock.locked()
            super().__setitem__(key, value)

        def values(self):
            assert lock.locked()
            return super().values()

    monkeypatch.setattr("zoo.scans.base._cache", Guarded())
    first = Raster().order(3, 4)
    assert Raster().order(3, 4) is first and not lock.locked()


def test_sizes_that_are_symbols_are_traced_in_every_kind_of_trace():
    """No such size can be a key of the cache, and ``is_compiling`` is false here."""
    order = Window(size=3)
    traced = make_fx(lambda x_HW: order.order(*x_HW.shape) + 0, tracing_mode="symbolic")
    graph = traced(torch.zeros(4, 5))
    assert torch.equal(graph(torch.zeros(6, 3)), order.order(6, 3))


def test_the_cache_is_bounded_in_bytes(monkeypatch):
    """Two orders of 4 directions of 10 x 30 tokens fit; the third drops the oldest."""
    _cache.clear()
    size = Raster().order(10, 30).nbytes
    monkeypatch.setattr("zoo.scans.base.CACHED_BYTES", 2 * size)
    first, second = Raster().order(10, 30), Raster().order(30, 10)
    assert Raster().order(10, 30) is first
    Raster().order(15, 20)
    assert len(_cache) == 2
    assert Raster().order(10, 30) is first and Raster().order(30, 10) is not second
    large = Raster().order(50, 60)
    assert len(_cache) == 1 and Raster().order(50, 60) is large


def test_orders_built_in_inference_mode_serve_training():
    _cache.clear()
    with torch.inference_mode():
        order = Raster().order(2, 9)
    assert not order.is_inference()


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


def test_the_cache_takes_no_order_that_is_wrong():
    class Twice(ScanOrder):
        directions = ("row",)

        def build(self, height, width, device):
            return torch.zeros(1, height * width, dtype=torch.int32)

    with pytest.raises(ValueError, match="visits token 0 twice"):
        Twice().order(2, 3)


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
